"""Two `ar loop` processes on one Ray cluster of two slots: they share it; one run is paused, one node is drained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from library_text import copy_library

from autoresearch.core.cli.main import run as ar
from autoresearch.core.errors import LedgerError
from autoresearch.core.fleet.cluster import Cluster
from autoresearch.core.fleet.ray import NAME, NAMESPACE
from autoresearch.core.fleet.status import read_fleet_status
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import TrialRow

AR = [sys.executable, "-m", "autoresearch.core.cli.main"]
CORPUS_BYTES = 600_000
PATIENCE_SECONDS = 200.0
BUDGET_SECONDS = 1.0


@dataclass
class LoopProcess:
    """One run, and the process that goes on with it."""

    tag: str
    workspace: Path
    process: subprocess.Popen[str]

    def trials(self) -> list[TrialRow]:
        try:
            with LedgerReader(self.workspace / "runs" / self.tag) as reader:
                return [trial for row in reader.experiments() for trial in reader.trials(experiment=row.number)]
        except LedgerError:
            return []  # not made yet

    def ended(self) -> int:
        return sum(trial.status is not None for trial in self.trials())

    def stands_still(self) -> bool:
        """Return whether it has heard that it is paused, and none of its trials runs."""
        found = read_fleet_status(self.workspace / "runs" / self.tag)
        return found is not None and (found.paused, found.used) == (True, 0)

    def check_finished(self) -> None:
        """Check that after one Ctrl-C the running trials were finished."""
        _, said = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 130, said
        with LedgerReader(self.workspace / "runs" / self.tag) as reader:
            # By a busy machine: such a trial is run again, but not after a stop.
            spoilt = set(reader.numbers_of("trial repeated"))
        left = [trial for trial in self.trials() if trial.status != "ok"]
        assert all(trial.status is None and trial.experiment in spoilt for trial in left), left


def two_loops_share_the_slots(cluster: Cluster, address: str, folder: Path) -> None:
    text = copy_library(folder / "text", CORPUS_BYTES)
    loops = [start(tag, address, folder, text) for tag in ("night", "day")]
    try:
        night, day = loops
        each_gets_its_share(night, day)
        a_paused_run_stands_still(cluster, address, night, day)
        a_drained_node_is_left_alone(cluster, address, night, day)
        for loop in loops:
            loop.process.send_signal(signal.SIGINT)
        for loop in loops:
            loop.check_finished()
        assert cluster.scheduler().report()["runs"] == []
    finally:
        for loop in loops:
            loop.process.kill()
            loop.process.communicate()


def start(tag: str, address: str, folder: Path, text: Path) -> LoopProcess:
    workspace, environment = folder / tag, {**os.environ, "AR_DATA_DIR": str(folder / "data")}
    subprocess.run([*AR, "init", str(workspace)], check=True, capture_output=True, env=environment)
    where = ["--backend", "null", "--preset", "demo", "--workspace", str(workspace), "-q"]
    what = ["--tag", tag, "--judge", "greedy", "--budget", str(BUDGET_SECONDS), "--corpus", str(text)]
    command = [*AR, *where, "loop", *what, "--fleet", "ray", "--address", address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return LoopProcess(tag, workspace, subprocess.Popen(command, env=environment, **pipes))  # type: ignore[call-overload]


def each_gets_its_share(night: LoopProcess, day: LoopProcess) -> None:
    """Check that both runs get a quarter of the device-seconds or more since both are there.

    A loop that a busy machine keeps from using an offer lets the other go first for some seconds, so the share is
    counted until it is fair. A scheduler that starves a run never gets there.
    """

    def fair() -> bool:
        rows = [night.trials(), day.trials()]
        if min(night.ended(), day.ended()) < 3:
            return False
        begin, end = max(trials[0].started for trials in rows), time.time()
        seconds = [sum(within(trial, begin, end) for trial in trials) for trials in rows]
        return min(seconds) > 0.25 * sum(seconds)

    until(fair, night, day)


def within(trial: TrialRow, begin: float, end: float) -> float:
    return max(0.0, min(trial.ended or end, end) - max(trial.started, begin))


def a_paused_run_stands_still(cluster: Cluster, address: str, night: LoopProcess, day: LoopProcess) -> None:
    assert ar(["fleet", "--address", address, "pause", "night"]) == 0
    until(night.stands_still, night, day)
    lose_the_scheduler(cluster, night, day)
    before, further = len(night.trials()), day.ended() + 2
    until(lambda: day.ended() >= further, night, day)
    assert len(night.trials()) == before
    assert night.stands_still()


def lose_the_scheduler(cluster: Cluster, *loops: LoopProcess) -> None:
    """Kill the scheduler. The loops start another, and tell it what they hold."""
    import ray

    ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))

    def known() -> dict[str, bool]:
        with suppress(Exception):  # it takes a while until the new one answers
            return {run["tag"]: run["paused"] for run in cluster.scheduler().report()["runs"]}
        return {}

    until(lambda: known() == {"night": True, "day": False}, *loops)


def a_drained_node_is_left_alone(cluster: Cluster, address: str, night: LoopProcess, day: LoopProcess) -> None:
    drained = sorted(cluster.nodes())[0]
    command = [*AR, "fleet", "--address", address, "drain", drained[:12]]  # from outside, as people call it
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, f"({drained[:8]}) is drained" in done.stderr) == (0, True), done.stderr

    def used() -> set[str]:
        return {key[0] for run in cluster.scheduler().report()["runs"] for key in run["used"]}

    until(lambda: drained not in used(), night, day)
    assert ar(["fleet", "--address", address, "resume", "night"]) == 0
    further = night.ended() + 1, day.ended() + 1

    def went_on() -> bool:
        assert drained not in used()
        return night.ended() >= further[0] and day.ended() >= further[1]

    until(went_on, night, day)  # in turns, on the node that is left
    assert ar(["fleet", "--address", address, "undrain", drained]) == 0
    assert cluster.scheduler().report()["drained"] == []


def until(condition: Callable[[], bool], *loops: LoopProcess) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, said_by(loops)
        assert all(loop.process.poll() is None for loop in loops), said_by(loops)
        time.sleep(0.1)


def said_by(loops: Sequence[LoopProcess]) -> str:
    for loop in loops:
        loop.process.kill()
    return "\n".join(f"{loop.tag}: {loop.process.communicate()[1]}" for loop in loops)
