"""The local executor: one trial at a time, and no process left after `close`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from null_trials import request
from offspring import offspring

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.trial.request import Budget
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
