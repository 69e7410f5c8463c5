"""The local executor: one trial at a time, and no process left after `close`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from null_trials import request
from offspring import offspring, offspring_with

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError
from autoresearch.core.events import FirstBatch
from autoresearch.core.fleet import local
from autoresearch.core.fleet.executor import TrialLost, TrialMisplaced
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.fleet.slots import Slot
from autoresearch.core.trial.request import Budget, TrialRequest, TrialResult
from autoresearch.core.trial.supervisor import TrialCancelled

ENDLESS = "import time\ndef build(spec): time.sleep(600)"


def test_trials_run_one_after_another(prepared: Prepared, tmp_path: Path) -> None:
    executor = LocalExecutor()
    running: list[str] = []
    handles = [
        executor.submit(
            request(prepared, tmp_path / name, audit=False),
            lambda event, name=name: running.append(name),  # type: ignore[misc]
        )
        for name in ("a", "b")
    ]
    assert executor.capacity() == 1
    assert [handle.result(60).status for handle in handles] == ["ok", "ok"]
    assert running == sorted(running)
    executor.close()


def test_a_result_that_takes_too_long_is_a_timeout_error(prepared: Prepared, tmp_path: Path) -> None:
    executor = LocalExecutor()
    handle = executor.submit(request(prepared, tmp_path, ENDLESS, budget=Budget(60.0)))
    with pytest.raises(TimeoutError):
        handle.result(0.1)
    assert not handle.done()
    executor.close()
    assert handle.done()


def test_cancel_returns_when_nothing_is_left(prepared: Prepared, tmp_path: Path) -> None:
    known, executor = offspring(), LocalExecutor()
    first = executor.submit(request(prepared, tmp_path / "a", ENDLESS, budget=Budget(60.0)))
    second = executor.submit(request(prepared, tmp_path / "b"))
    second.cancel()
    first.cancel()
    assert offspring(known) == []
    for handle in (first, second):
        with pytest.raises(TrialCancelled):
            handle.result()
    executor.close()


def test_an_error_of_the_trial_reaches_the_one_who_waits(prepared: Prepared, tmp_path: Path) -> None:
    executor = LocalExecutor()
    handle = executor.submit(replace(request(prepared, tmp_path / "t"), prepared=tmp_path / "nowhere"))
    with pytest.raises(DataError):
        handle.result(30)
    executor.close()


def test_a_device_that_is_gone_gets_no_further_trial_while_others_are_left(monkeypatch, tmp_path: Path) -> None:
    ran: list[str] = []

    def run_trial(request, **_):
        (name,) = (value for key, value in request.environment if key == "CUDA_VISIBLE_DEVICES")
        ran.append(name)
        kind = "cuda" if name == "b" else "cpu"
        status = "ok" if kind == "cuda" else "crash"
        return TrialResult(status=status, seed=0, backend="null", preset="demo", device_kind=kind)

    monkeypatch.setattr(local, "run_trial", run_trial)
    slots = [Slot(f"cuda-{name}", f"card {name}", (("CUDA_VISIBLE_DEVICES", name),)) for name in "ab"]
    executor = LocalExecutor(slots)
    asked = TrialRequest("", "null", "demo", tmp_path, 64, 4, tmp_path, device_kind="cuda")
    with pytest.raises(TrialMisplaced, match="card a is gone, the trial ran on cpu; 1 of this machine's devices are"):
        executor.submit(asked).result(10)
    assert [executor.submit(asked).result(10).place for _ in range(2)] == ["card b", "card b"]
    assert (ran, executor.capacity()) == (["a", "b", "b"], 1)
    # The last one is not given up: the loop looks for its device.
    slots[1:] = []
    only = LocalExecutor(slots)
    assert (only.submit(asked).result(10).status, only.capacity()) == ("crash", 1)
    executor.close()
    only.close()


@pytest.mark.parametrize("guard", [True, False], ids=["the guard", "the feeder"])
def test_a_feeder_that_is_killed_loses_the_trial_and_is_no_crash_of_the_file(prepared, tmp_path, guard) -> None:
    known, executor = offspring(), LocalExecutor()

    def kill(event) -> None:
        if isinstance(event, FirstBatch):
            # The guard comes before its child, and both have the feeder's words.
            offspring_with("autoresearch.core.data.feed", known)[0 if guard else -1].kill()

    handle = executor.submit(request(prepared, tmp_path, budget=Budget(5.0)), kill)
    with pytest.raises(TrialLost, match=r"the feeder was killed \(SIGKILL\)"):
        handle.result(60)
    executor.close()
    assert offspring(known) == []


def test_a_device_that_is_given_up_while_it_is_free_gets_no_trial(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        local, "run_trial", lambda request, **_: TrialResult(status="ok", seed=0, backend="null", preset="demo")
    )
    executor = LocalExecutor([Slot(name, name, (("CUDA_VISIBLE_DEVICES", name),)) for name in "ab"])
    assert executor.give_up("a") and not executor.give_up("b")
    asked = TrialRequest("", "null", "demo", tmp_path, 64, 4, tmp_path)
    assert [executor.submit(asked).result(10).place for _ in range(3)] == ["b", "b", "b"]
    executor.close()
    shared = LocalExecutor([Slot(name, name, (("OMP_NUM_THREADS", "1"),)) for name in "ab"])
    assert (shared.device_of("a"), shared.give_up("a")) == ((), False)
    shared.close()
