"""Trials whose machine goes away: they are run again under their own number, and say nothing about their source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from loop_fixtures import Scripted, ScriptedHandle, Widths, make_workspace, open_run, width_of

from autoresearch.core.errors import ArError, PrerequisiteError
from autoresearch.core.fleet.executor import TrialLost, TrialMisplaced
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal
from autoresearch.core.run import losses
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.losses import GIVEN_UP_AFTER
from autoresearch.core.run.rerun_policy import DeviceWatch
from autoresearch.core.run.scheduler import MAX_LOSSES
from autoresearch.core.store.rows import TrialRow
from autoresearch.core.trial.request import TrialResult


class Losing(Scripted):
    """Loses the first `losses` starts of every trial."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses
        self.error = TrialLost("its node was lost: killed")
        self.lost: Counter[str] = Counter()

    def submit(self, request, observer=None) -> ScriptedHandle:
        request.folder.mkdir(parents=True, exist_ok=True)
        request.folder.rmdir()
        super().submit(request, observer)
        return LosingHandle(self, request)


class LosingHandle(ScriptedHandle):
    def result(self, timeout: float | None = None) -> TrialResult:
        executor, name = self.executor, self.request.folder.name
        if executor.lost[name] < executor.losses:
            executor.lost[name] += 1
            raise executor.error
        return super().result(timeout)


def test_a_trial_that_lost_its_machine_is_run_again_and_counts_once(tmp_path: Path) -> None:
    with open_run(make_workspace(tmp_path)) as run:
        ending = Loop(run, Widths(5, 4), Greedy(), Losing(2), limits=Limits(2)).go()
        trials = [trial for number in range(3) for trial in run.ledger.trials(experiment=number)]
        assert ending.exit_code == 0
        assert [(trial.experiment, trial.k, trial.starts, trial.status) for trial in trials] == [
            (number, 1, 3, "ok") for number in range(3)
        ]
        assert len(run.ledger.events("trial lost")) == 6
        assert len(run.ledger.decisions()) == 3


class KillsDevices(Losing):
    """Width 5 loses every device that it runs on."""

    def __init__(self) -> None:
        super().__init__(0)

    def submit(self, request, observer=None) -> ScriptedHandle:
        self.losses = 100 if width_of(request.source) == 5 else 0
        return super().submit(request, observer)


def test_a_file_that_loses_every_device_is_given_up_and_the_run_goes_on(tmp_path: Path) -> None:
    executor = KillsDevices()
    with open_run(make_workspace(tmp_path)) as run:
        assert Loop(run, Widths(5, 4), Greedy(), executor, limits=Limits(2)).go().exit_code == 0
        assert [width_of(request.source) for request in executor.requests] == [10, 5, 5, 5, 4]
        row = run.ledger.experiment(1)
        assert (row.status, run.ledger.experiment(2).status) == ("crash", "keep")
        assert "its trial lost its device 3 times, so it may be what brings devices down; the last" in str(row.reason)


def test_a_node_with_another_device_is_held_against_no_file(tmp_path: Path) -> None:
    executor = KillsDevices()
    executor.error = TrialMisplaced("it ran on B")
    with open_run(make_workspace(tmp_path)) as run:
        with pytest.raises(ArError, match=f"lost its machine {MAX_LOSSES} times; the last time, it ran on B"):
            Loop(run, Widths(5), Greedy(), executor, limits=Limits(1)).go()
        assert run.ledger.experiment(1).status is None
        assert len(run.ledger.events("trial lost")) == MAX_LOSSES


def test_losses_count_over_all_calls_of_the_command(tmp_path: Path) -> None:
    watch = DeviceWatch("null", "A", Missing(), pauses=())
    make_workspace(tmp_path)
    for _ in range(GIVEN_UP_AFTER):
        with open_run(tmp_path) as run, pytest.raises(PrerequisiteError, match="the device is gone"):
            Loop(run, Widths(9), Greedy(), Scripted({9: "crash"}), limits=Limits(1), device_watch=watch).go()
    with open_run(tmp_path) as run:
        Loop(run, Widths(9), Greedy(), Scripted({9: "crash"}), limits=Limits(1)).go()
        assert "lost its device 3 times" in str(run.ledger.experiment(1).reason)


class Missing:
    """A device that is gone whenever somebody looks."""

    def __call__(self, backend: str, environment: object = ()):
        raise PrerequisiteError("no device.")


def test_a_machine_that_dies_with_several_trials_is_held_against_none_of_them(tmp_path: Path, monkeypatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(losses, "time", SimpleNamespace(time=lambda: clock.now))
    with open_run(make_workspace(tmp_path)) as run:
        Loop(run, Widths(5), Greedy(), Scripted(), limits=Limits(1)).go()
        first, other = (TrialRow(number, 1, "candidate", number, 0, 1, 0.0, None, None, None, {}) for number in (7, 8))
        known = losses.Losses(run.ledger)
        for _ in range(4):
            clock.now += 1000.0
            known.note(first, "killed")
            known.note(other, "killed")
        assert known.given_up(first) is known.given_up(other) is None
        for _ in range(GIVEN_UP_AFTER):
            clock.now += 1000.0
            assert known.given_up(first) is None
            known.note(first, "killed")
        assert "lost its device 7 times" in str(losses.Losses(run.ledger).given_up(first))
        assert known.given_up(other) is None


def test_a_trial_that_loses_every_machine_ends_the_loop_and_stays_open(tmp_path: Path) -> None:
    with open_run(make_workspace(tmp_path)) as run:
        with pytest.raises(
            ArError, match=f"lost its machine {MAX_LOSSES} times; the last time, its node was lost: killed"
        ):
            Loop(run, Widths(5), Greedy(), Losing(100), limits=Limits(1)).go()
        assert [row.number for row in run.ledger.undecided()] == [0]
    with open_run(tmp_path) as run:
        assert Loop(run, Widths(5), Greedy(), Losing(0), limits=Limits(1)).go().exit_code == 0


class Driver(Scripted):
    """Two devices whose trials end together. The driver restarts once and takes both along, or as often as it is told.

    The trials in `well` end well all the same.
    """

    def __init__(self, restarts: int = 1, well: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.restarts, self.well = restarts, well

    def capacity(self) -> int:
        return 2

    def submit(self, request, observer=None) -> ScriptedHandle:
        handle = super().submit(request, observer)
        width, starts = width_of(request.source), [width_of(one.source) for one in self.requests]
        down = width != 10 and width not in self.well and starts.count(width) <= self.restarts
        found = TrialResult(status="crash", seed=0, backend="null", preset="demo", reason="the train process ended")
        if down:
            handle.result = lambda timeout=None: found
        handle.polled = int(width in self.well)  # as soon over as the one that started before it
        return handle


class Restarting:
    """A device that is gone at every other look, `times` times, and back at the one after that."""

    def __init__(self, times: int) -> None:
        self.times, self.looks = times, 0

    def __call__(self, backend: str, environment: object = ()):
        self.looks += 1
        if self.looks % 2 and self.looks < 2 * self.times:
            raise PrerequisiteError("no device.")
        return SimpleNamespace(description=lambda: "A")


class TwoWidths(Widths):
    """Proposes a new width for every device, and does not wait for verdicts."""

    def propose(self, history):
        width = self.widths[self.calls]
        self.calls += 1
        source = history.incumbent.source.replace(f"WIDTH = {width_of(history.incumbent.source)}", f"WIDTH = {width}")
        return Proposal(source, f"width {width}", "shape", researcher=self.name)


def test_a_device_that_comes_back_has_all_trials_run_again_that_were_on_it(tmp_path: Path) -> None:
    watch = DeviceWatch("null", "A", Restarting(1), pauses=(0.01,))
    with open_run(make_workspace(tmp_path)) as run:
        Loop(run, TwoWidths(11, 12), Greedy(), Driver(), limits=Limits(2), device_watch=watch).go()
        assert [run.ledger.experiment(number).status for number in (1, 2)] == ["discard", "discard"]
        assert [run.ledger.trials(experiment=number)[0].starts for number in (1, 2)] == [2, 2]
        # Nobody's excuse for a slow trial is used up by it, and the run has paid for none.
        assert [one["slept"] for one in run.ledger.events("trial repeated")] == [True, True]


def test_trials_that_lose_their_device_for_ever_end_the_loop(tmp_path: Path) -> None:
    watch = DeviceWatch("null", "A", Restarting(99), pauses=(0.01,))
    with open_run(make_workspace(tmp_path)) as run:
        with pytest.raises(ArError, match=f"lost its device {MAX_LOSSES} times; the last time, the device was gone"):
            Loop(run, TwoWidths(11, 12), Greedy(), Driver(9), limits=Limits(2), device_watch=watch).go()
        assert [row.number for row in run.ledger.undecided()] == [1, 2]


def test_a_trial_that_ended_well_counts_although_the_other_one_lost_the_device(tmp_path: Path) -> None:
    watch = DeviceWatch("null", "A", Missing(), pauses=())
    with open_run(make_workspace(tmp_path)) as run:
        with pytest.raises(PrerequisiteError, match="the device is gone"):
            Loop(run, TwoWidths(11, 12), Greedy(), Driver(well=(12,)), limits=Limits(2), device_watch=watch).go()
        assert [run.ledger.trials(experiment=number)[0].status for number in (1, 2)] == [None, "ok"]
