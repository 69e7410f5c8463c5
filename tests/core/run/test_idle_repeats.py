"""An idle device measures the best file once more while a slow researcher thinks."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest
from loop_fixtures import CONFIG, open_run
from side_by_side import Edits, Field, FieldHandle, edit, numbers, two_constants

from autoresearch.core.events import Remeasuring
from autoresearch.core.judge.decision import Measured, Side
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.replay import decide_again
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.restore import mend
from autoresearch.core.trial.request import TrialResult

RACING = replace(CONFIG, judge="racing")
CLEAR = {"WIDTH": 1}
"""A gain that is kept after one trial."""
LAST = CONFIG.seed + 2999
"""The last of experiment 2's seeds."""


@pytest.fixture
def workspace(tmp_path):
    return two_constants(tmp_path / "w")


class Ponders(Edits):
    """Takes its time for every proposal after the first: until that many trials have been started."""

    def __init__(self, executor, started, *changes, patience_seconds=30.0):
        super().__init__(*changes, ahead=True)
        self.executor, self.started, self.patience_seconds = executor, started, patience_seconds

    def propose(self, history):
        proposal = super().propose(history)
        deadline = time.monotonic() + self.patience_seconds
        while len(self.histories) > 1 and len(self.executor.requests) < self.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return proposal


def go(workspace, executor, researcher, n, judge):
    events = []
    with open_run(workspace, config=replace(CONFIG, judge=judge.name)) as run:
        Loop(run, researcher, judge, executor, limits=Limits(n), observer=events.append).go()
    return [event.experiment for event in events if isinstance(event, Remeasuring)]


def racing():
    return Racing(JudgeOptions("demo"))


def test_the_trial_that_the_next_candidate_would_wait_for_is_run_while_it_is_thought_of(workspace):
    executor = Field(1)
    # Two trials of the baseline, one of the candidate, and the fourth is the repeat.
    assert go(workspace, executor, Ponders(executor, 4, CLEAR, {"DEPTH": 12}), 2, racing()) == [1]
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.experiment(1).status == "keep"
        first, second, *_ = reader.trials(experiment=2)
        assert (first.role, first.subject, first.seed) == ("incumbent", 1, LAST)
        # The candidate is screened at once, at the seed of that trial.
        assert (second.role, second.subject, second.seed) == ("candidate", 2, LAST)
        assert reader.experiment(2).trials == len(reader.trials(experiment=2))
        # Both trials are sealed with the experiment's decision, and the decision follows from them.
        assert reader.chain_faults() == []
        assert all(decide_again(reader, reader.experiment(n)).differences == () for n in range(3))
        assert first in reader.ended_trials()
        rows, trials = list(reader.experiments()), reader.every_trial()
    # The journal alone brings all of it back.
    (workspace / "runs/t/ledger.sqlite").write_bytes(b"damaged" * 1000)
    assert mend(workspace / "runs/t", lambda _: None)
    with LedgerReader(workspace / "runs/t") as reader:
        assert (list(reader.experiments()), reader.every_trial()) == (rows, trials)


def test_with_plenty_of_time_the_seeds_of_a_race_are_measured_and_no_more(workspace, monkeypatch):
    executor = Field(1)
    # Every answer takes longer than such a trial.
    monkeypatch.setattr(Loop, "_typical_seconds", lambda _: 1e-9)

    class Waits(Ponders):
        def propose(self, history):
            proposal, deadline = Edits.propose(self, history), time.monotonic() + 30
            if len(self.histories) > 1:
                while self.kept() < 5 and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(0.3)  # for one more than there should be
            return proposal

        def kept(self):
            return sum(change["WIDTH"] == 1 for change in executor.tried())

    go(workspace, executor, Waits(executor, 0, CLEAR, {"DEPTH": 12}, {"DEPTH": 13}, {"DEPTH": 14}), 2, racing())
    with LedgerReader(workspace / "runs/t") as reader:
        proposed = reader.experiment(2).created
        before = [trial for trial in reader.trials(experiment=2) if trial.started < proposed and trial.subject == 1]
    assert [trial.seed for trial in before] == [LAST, LAST - 1, LAST - 2, LAST - 3]


def test_greedy_and_a_quick_researcher_leave_the_device_idle(workspace, tmp_path):
    executor = Field(1)
    # Time for a third trial, which is not started.
    waits = Ponders(executor, 3, CLEAR, {"DEPTH": 12}, patience_seconds=1.0)
    assert go(workspace, executor, waits, 2, Greedy()) == []
    assert go(two_constants(tmp_path / "q"), Field(1), Edits(CLEAR, {"DEPTH": 12}), 2, racing()) == []


def test_two_devices_and_a_proposal_that_comes_during_the_repeat_wait_for_each_other(workspace):
    executor = Field(2)
    go(workspace, executor, Ponders(executor, 4, CLEAR, {"DEPTH": 12}, {"HEIGHT": 12}, {"HEIGHT": 13}), 4, racing())
    with LedgerReader(workspace / "runs/t") as reader:
        measured = [(trial.subject, trial.seed) for trial in reader.every_trial()]
        assert len(set(measured)) == len(measured)
        assert reader.chain_faults() == []
        assert [row.state for row in reader.experiments()] == ["decided"] * 5
        assert all(row.trials == len(reader.trials(experiment=row.number)) for row in reader.experiments())


@pytest.mark.parametrize("where", ["start_repeat", "score"])
def test_a_loop_that_dies_at_a_repeat_goes_on_without_loss(workspace, where, monkeypatch):
    class DiedError(Exception):
        pass

    executor = Field(1)
    with open_run(workspace, config=RACING) as run:
        original, calls = getattr(run.ledger, where), []

        def die(*args, **kwargs):
            result = original(*args, **kwargs)
            calls.append(args)
            if where == "start_repeat" or kwargs.get("repeat"):
                raise DiedError
            return result

        monkeypatch.setattr(run.ledger, where, die)
        with pytest.raises(DiedError):
            Loop(run, Ponders(executor, 4, CLEAR, {"DEPTH": 12}), racing(), executor, limits=Limits(2)).go()
    again = Field(1)
    go(workspace, again, Edits({"DEPTH": 12}, {"DEPTH": 13}), 2, racing())
    with LedgerReader(workspace / "runs/t") as reader:
        trials = reader.trials(experiment=2)
        assert reader.experiment(2).state == "decided"
        assert [trial.k for trial in trials] == list(range(1, len(trials) + 1))
        assert all(trial.status == "ok" for trial in trials)
        assert (trials[0].role, trials[0].subject) == ("incumbent", 1)
        assert reader.experiment(2).trials == len(trials)
        assert reader.chain_faults() == []
        assert decide_again(reader, reader.experiment(2)).differences == ()


@pytest.mark.parametrize("withdrawn", [True, False])
def test_a_repeat_for_an_experiment_that_never_comes_is_sealed(workspace, withdrawn):
    with open_run(workspace, config=RACING) as run:
        Loop(run, Edits(CLEAR), racing(), Field(1), limits=Limits(1)).go()
        trial, _ = run.start_repeat()
        measured = TrialResult(status="ok", val_bpb=1.5, seed=trial.seed, backend="null", preset="demo")
        run.ledger.score(trial.experiment, trial.k, measured, repeat=True)
        if withdrawn:
            source = edit(run.ledger.source(1), {"DEPTH": 12})
            rows = [run.propose(Proposal(source, "an edit", "shape", researcher="edits"), "") for _ in range(2)]
            run.withdraw(rows[0], "it does not fit")
    folder = workspace / "runs/t"
    with LedgerReader(folder) as reader:
        assert reader.has_experiment(2) is False and reader.chain_faults() == []
        before = reader.every_trial()
    (folder / "ledger.sqlite").write_bytes(b"damaged" * 1000)
    assert mend(folder, lambda _: None)
    with LedgerReader(folder) as reader:
        assert (reader.every_trial(), reader.chain_faults()) == (before, [])
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE trials SET val_bpb = val_bpb - 0.1 WHERE experiment = 2")
    with LedgerReader(folder) as reader:
        (fault,) = reader.chain_faults()
    assert fault == "experiment 2: its trials are not what was written when the best file was measured again"


class SlowOnce(Field):
    """One device; the first trial of the best file at an idle moment is slow, and so is the first of DEPTH 12."""

    def __init__(self):
        super().__init__(1)
        self.starts = []

    def submit(self, request, observer=None):
        handle, change = super().submit(request, observer), numbers(request.source)
        name = "repeat" if request.seed == LAST and change["DEPTH"] == 10 else str(change["DEPTH"])
        self.starts.append(name)
        slow = name in ("repeat", "12") and self.starts.count(name) == 1
        result = FieldHandle.result
        handle.result = lambda timeout=None: result(handle).model_copy(
            update={"cpu_seconds": 4.0 if slow else 10.0, "train_seconds": 10.0}
        )
        return handle


@pytest.mark.parametrize("dies", [False, True])
def test_a_slow_repeat_takes_no_excuse_from_the_candidate_that_comes_next(workspace, dies):
    executor = SlowOnce()
    with open_run(workspace, config=RACING) as run:
        # Two trials of the baseline, one of the candidate, and the repeat twice.
        loop = Loop(run, Ponders(executor, 5, CLEAR, {"DEPTH": 12}), racing(), executor, limits=Limits(2))
        if dies:  # once the repeat has its excuse, the loop ends; the notes alone say so
            loop._running._excuses.note = dying(loop._running._excuses.note)
            with pytest.raises(RuntimeError):
                loop.go()
        else:
            loop.go()
    if dies:
        go(workspace, executor, Ponders(executor, 5, {"DEPTH": 12}), 2, racing())
    assert executor.starts.count("repeat") == 2
    assert executor.starts.count("12") >= 2
    with LedgerReader(workspace / "runs/t") as reader:
        told = [(one["subject"], one["idle"], one["slept"]) for one in reader.events("trial repeated")]
        assert told == [(1, True, False), (2, False, False)]
        assert reader.numbers_of("trial slow") == []
        assert [trial.starts for trial in reader.trials(experiment=2)][:2] == [2, 2]


def dying(method):
    """Return the method, made to end the loop after its work."""

    def call(*args, **kwargs):
        method(*args, **kwargs)
        raise RuntimeError

    return call


def side(*trials):
    return Side(5, "", trials, estimate=1.0)


def test_an_incumbent_without_a_trial_of_its_own_is_measured_in_any_case():
    own = Measured("candidate", 1, "ok", 1.0)
    repeats = [Measured("incumbent", 10 + n, "ok", 1.0, own=False) for n in range(5)]
    judge = racing()
    assert judge.repeats_when_idle(side(own), plenty=False)
    assert not judge.repeats_when_idle(side(own, repeats[0]), plenty=False)
    assert judge.repeats_when_idle(side(own, *repeats[:3]), plenty=True)
    assert not judge.repeats_when_idle(side(own, *repeats[:4]), plenty=True)
    # One that fails whenever it is measured again is not measured for ever.
    failed = [Measured("incumbent", 20 + n, "crash", None, own=False) for n in range(3)]
    assert judge.repeats_when_idle(side(own, *failed[:2]), plenty=False)
    assert not judge.repeats_when_idle(side(own, *failed), plenty=False)
