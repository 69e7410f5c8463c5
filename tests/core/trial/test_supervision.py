"""Nothing survives a trial, whichever way it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from null_trials import request
from offspring import offspring

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import TrialError
from autoresearch.core.events import Event, FirstBatch
from autoresearch.core.trial import processes
from autoresearch.core.trial.processes import KILLED, Launch, ProcessSupervisor, how_it_ended, was_killed
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.request import Budget, IsolationLevel
from autoresearch.core.trial.sandbox.levels import best_level
from autoresearch.core.trial.supervisor import TrialCancelled, run_trial

LEVELS: list[IsolationLevel] = sorted({best_level(), "process"})
DAEMON = (
    "import subprocess\n"
    "subprocess.Popen(['setsid', 'sh', '-c', 'exec sleep {seconds}'])\n"
    "subprocess.run(['sh', '-c', 'setsid sleep {seconds} &'])\n"
)
ENDLESS = "import time\ndef train(model, data, clock):\n    next(iter(data.batches(2, 64)))\n    time.sleep(600)\n"


def sleepers(seconds: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and process.info["cmdline"][-2:] == ["sleep", seconds]
    ]


def wait_until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="setsid and the adoption of orphans are Linux")
@pytest.mark.parametrize("level", LEVELS)
def test_daemons_that_left_the_session_do_not_outlive_the_trial(
    prepared: Prepared, tmp_path: Path, level: IsolationLevel
) -> None:
    seconds = f"{600 + os.getpid() / 1e7 + LEVELS.index(level) / 10:.7f}"
    result = run_trial(request(prepared, tmp_path, DAEMON.replace("{seconds}", seconds), isolation=level))
    assert result.status == "ok"
    assert sleepers(seconds) == []


@pytest.mark.parametrize("level", LEVELS)
def test_no_process_is_left_when_the_supervisor_is_killed(
    prepared: Prepared, tmp_path: Path, level: IsolationLevel
) -> None:
    asked = request(prepared, tmp_path / "trial", ENDLESS, isolation=level, budget=Budget(600.0))
    code = (
        "import json, sys\nfrom pathlib import Path\n"
        "from autoresearch.core.trial.request import Budget, TrialRequest\n"
        "from autoresearch.core.trial.supervisor import run_trial\n"
        "fields = json.load(sys.stdin)\n"
        "for name in ('prepared', 'folder'): fields[name] = Path(fields[name])\n"
        "run_trial(TrialRequest(**{**fields, 'budget': Budget(600.0)}))\n"
    )
    fields = {name: str(value) if isinstance(value, Path) else value for name, value in vars(asked).items()}
    fields.pop("budget")
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert supervisor.stdin is not None
    supervisor.stdin.write(json.dumps(fields).encode())
    supervisor.stdin.close()
    events = tmp_path / "trial" / "events.jsonl"
    wait_until(lambda: events.exists() and "first_batch" in events.read_text(), 120.0)
    family = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(family) >= 4  # two guards, the feeder, the train child
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    wait_until(lambda: not any(process.is_running() for process in family))


@pytest.mark.parametrize("level", LEVELS)
def test_a_cancelled_trial_leaves_nothing(prepared: Prepared, tmp_path: Path, level: IsolationLevel) -> None:
    cancel = threading.Event()
    known, family = offspring(), list[psutil.Process]()

    def observe(event: Event) -> None:
        if isinstance(event, FirstBatch):
            family.extend(offspring(known))
            cancel.set()

    asked = request(prepared, tmp_path, ENDLESS, isolation=level, budget=Budget(600.0))
    with pytest.raises(TrialCancelled):
        run_trial(asked, observer=observe, cancel=cancel)
    assert len(family) >= 4
    assert not any(process.is_running() for process in family)


def test_an_exception_in_the_supervisor_leaves_nothing(prepared: Prepared, tmp_path: Path) -> None:
    known, family = offspring(), list[psutil.Process]()

    def observe(event: Event) -> None:
        if isinstance(event, FirstBatch):
            family.extend(offspring(known))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(request(prepared, tmp_path, ENDLESS, budget=Budget(600.0)), observer=observe)
    assert family
    assert not any(process.is_running() for process in family)


def test_a_process_that_cannot_be_killed_is_told_of_and_leaves_no_other_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "KILL_SECONDS", 5.0)
    launches = [Launch(role, ["sleep", "600"], tmp_path / role) for role in ("train", "feed")]
    for launch in launches:
        (launch.work / "home").mkdir(parents=True)
    with (
        Record(tmp_path / "trial", "") as record,
        ProcessSupervisor(record, memory_limit_mb=None, disk_limit_mb=1, cancel=None) as supervisor,
    ):
        stuck, other = (supervisor.start(launch) for launch in launches)
        wait, stuck.process.wait = stuck.process.wait, never_ends  # type: ignore[method-assign,assignment]
        with pytest.raises(TrialError, match=r"the train process \(number \d+\) was killed and is still there"):
            stuck.kill()
    assert other.returncode() is not None
    wait(10)


def never_ends(timeout: float | None = None) -> int:
    raise subprocess.TimeoutExpired("sleep", timeout or 0.0)


@pytest.mark.parametrize("status", [128 + signal.SIGKILL, -signal.SIGKILL])
def test_a_process_whose_guard_was_killed_was_killed_too(status):
    assert how_it_ended(status) == KILLED and was_killed(status)
    assert not was_killed(0) and not was_killed(1) and not was_killed(None)
