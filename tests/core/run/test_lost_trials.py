"""Trials whose machine goes away: they are run again under their own number, and say nothing about their source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from loop_fixtures import Scripted, ScriptedHandle, Widths, make_workspace, open_run

from autoresearch.core.errors import ArError
from autoresearch.core.fleet.executor import TrialLost
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.scheduler import MAX_LOSSES
from autoresearch.core.trial.request import TrialResult


class Losing(Scripted):
    """Loses the first `losses` starts of every trial."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses
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
            raise TrialLost("its node was lost: killed")
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


def test_a_trial_that_loses_every_machine_ends_the_loop_and_stays_open(tmp_path: Path) -> None:
    with open_run(make_workspace(tmp_path)) as run:
        with pytest.raises(
            ArError, match=f"lost its machine {MAX_LOSSES} times; the last time, its node was lost: killed"
        ):
            Loop(run, Widths(5), Greedy(), Losing(100), limits=Limits(1)).go()
        assert [row.number for row in run.ledger.undecided()] == [0]
    with open_run(tmp_path) as run:
        assert Loop(run, Widths(5), Greedy(), Losing(0), limits=Limits(1)).go().exit_code == 0
