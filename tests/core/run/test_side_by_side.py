"""Several experiments at once: what runs, what waits, what is thought about, and an incumbent that moves meanwhile."""

from __future__ import annotations

import random
import threading
import time

import pytest
from loop_fixtures import open_run
from side_by_side import Edits, Field, edit, numbers, two_constants

from autoresearch.core.errors import LimitReachedError
from autoresearch.core.events import Proposing, Thinking, Withdrawn
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop, Stop
from autoresearch.core.run.merge import reapply
from autoresearch.core.store.git import Repository
from autoresearch.core.store.reader import LedgerReader

MANY = [{"WIDTH": 3 + n * 7 % 11} if n % 2 else {"DEPTH": 3 + n * 5 % 13} for n in range(40)]


@pytest.fixture
def workspace(tmp_path):
    return two_constants(tmp_path / "w")


def go(workspace, researcher, executor, n, *, judge=None, stop=None, run=None):
    events = []
    with run or open_run(workspace) as opened:
        loop = Loop(
            *(opened, researcher, judge or Greedy(), executor),
            limits=Limits(n),
            stop=stop,
            observer=events.append,
        )
        ending = loop.go()
    return ending, events


def story(workspace):
    """Every experiment, and the order of the decisions."""
    with LedgerReader(workspace / "runs/t") as reader:
        rows = [
            (row.number, row.parent, row.status, row.val_bpb, row.trials, row.source_sha256)
            for row in reader.experiments()
        ]
        return rows, reader.decisions()


def test_as_many_trials_run_as_there_are_devices_and_every_experiment_is_decided_once(workspace):
    executor = Field(3, [2, 0, 1, 1])
    ending, _ = go(workspace, Edits(*({"WIDTH": w} for w in range(20, 30))), executor, 8)
    rows, decisions = story(workspace)
    assert (ending.exit_code, executor.most) == (0, 3)
    assert sorted(decisions) == list(range(9)) and decisions != sorted(decisions)
    assert [row[4] for row in rows] == [1] * 9
    assert len(executor.requests) == 9


def test_the_same_order_of_results_gives_the_same_decisions(tmp_path):
    for seed in (1, 2):
        order = [random.Random(seed).randrange(4) for _ in range(40)]
        told = []
        for name in "ab":
            folder = two_constants(tmp_path / f"{name}{seed}")
            go(folder, Edits(*MANY), Field(4, order), 6, judge=Racing(JudgeOptions(preset="demo")))
            told.append(story(folder))
        assert told[0] == told[1]
    assert len({str(story(tmp_path / f"a{seed}")) for seed in (1, 2)}) == 2


def test_a_researcher_that_takes_its_time_thinks_while_the_trial_runs_and_sees_it(workspace):
    researcher = Edits({"WIDTH": 9}, {"DEPTH": 9}, {"WIDTH": 8}, ahead=True)
    _, events = go(workspace, researcher, Field(1), 3)
    flying = [tuple(one.hypothesis for one in history.in_flight) for history in researcher.histories]
    assert flying == [(), ("WIDTH 9",), ("DEPTH 9",)]
    # The first was thought of when the baseline was known; the others while a trial ran.
    kinds = [event.name for event in events if isinstance(event, Thinking | Proposing)]
    assert kinds == ["proposing", "thinking", "thinking"]


def test_a_quick_researcher_is_asked_when_all_is_known(workspace):
    researcher = Edits({"WIDTH": 9}, {"DEPTH": 9}, {"WIDTH": 8})
    go(workspace, researcher, Field(1), 3)
    assert [history.in_flight for history in researcher.histories] == [(), (), ()]
    assert [len(history.attempts) for history in researcher.histories] == [1, 2, 3]


def test_a_proposal_that_waits_is_re_applied_when_the_incumbent_moves(workspace):
    executor = Field(1)
    go(workspace, Edits({"WIDTH": 9}, {"DEPTH": 9}, ahead=True), executor, 2)
    assert executor.tried() == [
        {"WIDTH": 10, "DEPTH": 10, "HEIGHT": 10},
        {"WIDTH": 9, "DEPTH": 10, "HEIGHT": 10},
        {"WIDTH": 9, "DEPTH": 9, "HEIGHT": 10},
    ]
    rows, _ = story(workspace)
    assert [(row[1], row[2]) for row in rows] == [(0, "keep"), (0, "keep"), (1, "keep")]
    with LedgerReader(workspace / "runs/t") as reader:
        moved = reader.experiment(2)
        assert reader.events("rebased")[0]["from"] == 0
    repository = Repository.open(workspace)
    assert repository.refs("t")[2] == moved.commit == repository.ref("refs/heads/autoresearch/t")


def test_a_proposal_that_no_longer_fits_is_withdrawn_and_another_is_asked_for(workspace):
    executor = Field(1)
    researcher = Edits({"WIDTH": 9}, {"WIDTH": 12}, {"DEPTH": 9}, ahead=True)
    _, events = go(workspace, researcher, executor, 2)
    assert [one["WIDTH"] for one in executor.tried()] == [10, 9, 9]
    withdrawn = [event.reason for event in events if isinstance(event, Withdrawn)]
    assert withdrawn == ["it edits experiment 0, and does not fit experiment 1, which is better now"]
    with LedgerReader(workspace / "runs/t") as reader:
        assert [row.hypothesis for row in reader.experiments()] == ["baseline", "WIDTH 9", "DEPTH 9"]
        assert reader.totals().failed_proposals == 1
        assert Repository.open(workspace).refs("t") == {row.number: row.commit for row in reader.experiments()}


def test_a_late_result_that_was_better_than_its_own_parent_is_offered_again_with_what_was_kept(workspace):
    # Both edit the baseline; the deeper gain lands first, so the other is no longer better when it lands.
    executor = Field(2, [0, 0])
    go(workspace, Edits({"WIDTH": 5}, {"DEPTH": 8}, {"HEIGHT": 11}), executor, 3)
    with LedgerReader(workspace / "runs/t") as reader:
        rows = {row.number: row for row in reader.experiments()}
        offered = next(row for row in rows.values() if row.parameters.get("rebased") == 2)
        assert rows[2].status == "discard"
        assert (offered.parent, offered.status) == (1, "keep")
        assert numbers(reader.text(offered.source_sha256)) == {"WIDTH": 5, "DEPTH": 8, "HEIGHT": 10}


def test_a_late_keep_does_not_lose_what_was_kept_before_it(workspace):
    executor = Field(2, [0, 0])
    go(workspace, Edits({"WIDTH": 8}, {"DEPTH": 5}, {"HEIGHT": 11}), executor, 4)
    with LedgerReader(workspace / "runs/t") as reader:
        best = reader.incumbent()
        assert numbers(reader.text(best.source_sha256)) == {"WIDTH": 8, "DEPTH": 5, "HEIGHT": 10}
        assert (best.parent, best.parameters["rebased"]) == (2, 1)


def test_an_edit_that_was_no_better_than_its_own_parent_is_not_offered_again(workspace):
    executor = Field(2, [0, 0])
    go(workspace, Edits({"WIDTH": 5}, {"DEPTH": 12}, {"HEIGHT": 11}), executor, 3)
    with LedgerReader(workspace / "runs/t") as reader:
        assert not [row for row in reader.experiments() if "rebased" in row.parameters]


def test_neighbouring_constants_are_no_conflict_and_the_same_one_is_where_it_was_moved_the_other_way():
    base = "# ---- constants: x\nWIDTH = 10  # why\nDEPTH = 10\n# ---- end of constants\nHEIGHT = 10\n"
    wider, deeper = edit(base, {"WIDTH": 9}), edit(base, {"DEPTH": 9, "HEIGHT": 11})
    assert reapply(deeper, base, wider) == edit(base, {"WIDTH": 9, "DEPTH": 9, "HEIGHT": 11})
    assert reapply(edit(base, {"WIDTH": 11}), base, wider) is None
    assert reapply(edit(base, {"WIDTH": 8, "DEPTH": 9}), base, wider) == edit(base, {"WIDTH": 8, "DEPTH": 9})
    assert reapply(base + "def f(:\n", base, wider) is None
    assert reapply("a = 1\n\n\nb = 3\n", "a = 1\n\n\nb = 2\n", "a = 5\n\n\nb = 2\n") == "a = 5\n\n\nb = 3\n"


@pytest.mark.parametrize("where", ["propose", "start_trial", "score", "decide", "rebase"])
def test_a_fleet_that_dies_right_after_any_transition_goes_on_without_loss_or_repeat(workspace, where, monkeypatch):
    class DiedError(Exception):
        pass

    died = Field(3, [1, 2, 0])
    edits = [{"WIDTH": 9}, {"DEPTH": 9}, {"HEIGHT": 9}, {"WIDTH": 8}, {"DEPTH": 8}, {"HEIGHT": 8}]
    with open_run(workspace) as run:
        original, calls = getattr(run.ledger, where), []

        def die_at_the_third(*args, **kwargs):
            result = original(*args, **kwargs)
            calls.append(args)
            if len(calls) == (1 if where == "rebase" else 3):
                raise DiedError
            return result

        monkeypatch.setattr(run.ledger, where, die_at_the_third)
        with pytest.raises(DiedError):
            Loop(run, Edits(*edits, ahead=True), Greedy(), died, limits=Limits(5)).go()
    with LedgerReader(workspace / "runs/t") as reader:
        known = {row.number: row.hypothesis for row in reader.experiments()}
        trials = [trial for number in known for trial in reader.trials(experiment=number)]
    started = {trial.experiment for trial in trials}
    scored = {(trial.experiment, trial.k) for trial in trials if trial.status}

    again = Field(3)
    go(workspace, Edits({"WIDTH": 7}, {"DEPTH": 7}, {"HEIGHT": 7}, {"WIDTH": 6}, {"DEPTH": 6}, ahead=True), again, 5)
    with LedgerReader(workspace / "runs/t") as reader:
        rows, withdrawn = list(reader.experiments()), set(reader.numbers_of("withdrawn"))
        # What waited may have become outdated since, which is in the ledger; nothing that was started is.
        waited = {number for number, _ in known.items() - {row.number: row.hypothesis for row in rows}.items()}
        assert waited <= withdrawn - started
        assert all(row.trials == 1 for row in rows if row.state == "decided")
        assert Repository.open(workspace).refs("t") == {row.number: row.commit for row in rows}
    # No result that is in the ledger is measured again.
    measured_again = {tuple(map(int, request.folder.name.split("-"))) for request in again.requests}
    assert not scored & measured_again


def test_the_first_wish_to_stop_finishes_every_trial_that_runs_and_starts_none(workspace):
    stop, executor = Stop(), Field(3)
    original, started = executor.release, []

    def release():
        if len(executor.requests) >= 4:
            stop.finish()
            started.append(len(executor.requests))
        original()

    executor.release = release
    ending, _ = go(workspace, Edits(*MANY), executor, 20, stop=stop)
    assert (ending.exit_code, executor.cancelled, len(executor.requests)) == (130, 0, started[0])
    assert len(story(workspace)[1]) == started[0]


def test_a_kill_ends_the_loop_at_once_while_a_model_is_waited_for(workspace):
    stop, cancelled = Stop(), threading.Event()

    class Waits(Researcher):
        name, thinks_ahead = "waits", True

        def propose(self, history):
            threading.Timer(0.1, lambda: stop.kill(143)).start()
            cancelled.wait(60)
            raise AssertionError("nobody takes this")

        def cancel(self):
            cancelled.set()
            return True

    started = time.monotonic()
    ending, _ = go(workspace, Waits(), Field(1), 3, stop=stop)
    assert (ending.exit_code, ending.state, cancelled.is_set()) == (143, "interrupted", True)
    assert time.monotonic() - started < 30


def test_a_researcher_with_nothing_to_say_ends_the_loop_when_the_last_trial_has_landed(workspace):
    with pytest.raises(LimitReachedError, match=r"had no usable proposal \d times in a row: no edit is left"):
        go(workspace, Edits({"WIDTH": 9}, {"DEPTH": 9}, ahead=True), Field(2), 9)
    rows, decisions = story(workspace)
    assert sorted(decisions) == [row[0] for row in rows] and len(rows) >= 3


def test_proposals_of_several_threads_are_all_recorded(workspace):
    class Slow(Edits):
        def propose(self, history):
            time.sleep(0.05)
            return Proposal(edit(history.incumbent.source, {"WIDTH": 20 + history.turn}), "wider", "shape")

    executor = Field(4)
    go(workspace, Slow(ahead=True), executor, 12)
    rows, decisions = story(workspace)
    assert sorted(decisions) == list(range(13))
    assert len({row[5] for row in rows}) == 13
