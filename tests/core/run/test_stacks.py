"""Changes that looked better in their first trial, put together and judged as one candidate."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
from loop_fixtures import CONFIG, open_run
from side_by_side import Edits, Field, edit, numbers, two_constants

from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.judge.stack import shares_in
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.merge import add_edit
from autoresearch.core.run.replay import decide_again
from autoresearch.core.run.stacks import Stacks
from autoresearch.core.stack_parts import STACKER, kept_parts, members_of
from autoresearch.core.store.git import Repository
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.restore import mend
from autoresearch.core.trial.request import TrialResult

THREE = ({"WIDTH": 8}, {"DEPTH": 8}, {"HEIGHT": 8})
RACING = replace(CONFIG, judge="racing", preset="h100")
WORSE = tuple({"WIDTH": width} for width in range(20, 60))


@pytest.fixture
def workspace(tmp_path):
    return two_constants(tmp_path / "w")


class Noisy(Field):
    """Devices whose trials differ a little from seed to seed, and where a source may fail."""

    fails: tuple[dict[str, int], ...] = ()

    def submit(self, request, observer=None):
        handle = super().submit(request, observer)
        plain = handle.result

        def result(timeout=None):
            found = plain(timeout)
            if numbers(request.source) in self.fails:
                return TrialResult(status="crash", reason="too much", seed=request.seed, backend="null", preset="demo")
            return found.model_copy(update={"val_bpb": found.val_bpb + request.seed % 7 * 1e-4})

        handle.result = result
        return handle


def go(workspace, executor, *changes, n, stacks="on"):
    with open_run(workspace, config=RACING) as run:
        judge = Racing(JudgeOptions(preset="h100", stacks=stacks))
        return Loop(run, Edits(*changes), judge, executor, limits=Limits(n)).go()


def story(workspace):
    with LedgerReader(workspace / "runs/t") as reader:
        return list(reader.experiments()), reader.incumbent(), numbers(reader.text(reader.incumbent().source_sha256))


def test_what_a_round_found_is_kept_as_one_experiment_with_the_share_of_each_part(workspace):
    go(workspace, Noisy(3), *THREE, *WORSE, n=8)
    rows, _, kept = story(workspace)
    first = next(row for row in rows if row.researcher == STACKER)
    assert kept == {"WIDTH": 8, "DEPTH": 8, "HEIGHT": 8}
    assert len(members_of(first)) >= 2 and first.status == "keep"
    for number in members_of(first):
        part = rows[number]
        assert (part.status, part.judged["stack"]) == ("discard", first.number)
        assert f"kept as part of experiment {first.number}" in part.reason
        assert number in kept_parts(rows)
        assert part.judged["share"] == pytest.approx(-0.2, abs=0.05) and part.trials == 1
    assert sum(one["share"] for one in first.judged["parts"]) == pytest.approx(first.change, abs=0.01)


def test_every_decision_follows_from_the_recorded_trials(workspace):
    go(workspace, Noisy(3, [1, 0, 2, 0, 1]), *THREE, *WORSE, n=10)
    with LedgerReader(workspace / "runs/t") as reader:
        for row in reader.experiments():
            again = decide_again(reader, row)
            assert again.instead or (again.decision is not None and not again.differences), (row.number, again)


def test_without_stacks_and_with_one_device_there_are_none(workspace, tmp_path):
    go(workspace, Noisy(3), *THREE, *WORSE, n=6, stacks="off")
    go(other := two_constants(tmp_path / "one"), Noisy(1), *THREE, *WORSE, n=4)
    for folder in (workspace, other):
        assert not [row for row in story(folder)[0] if row.researcher == STACKER or "stack" in row.judged]


def test_a_stack_that_crashes_is_taken_apart_and_its_parts_are_not_lost(workspace):
    executor = Noisy(2)
    executor.fails = ({"WIDTH": 8, "DEPTH": 8, "HEIGHT": 10},)
    go(workspace, executor, *THREE[:2], *WORSE, n=9)
    rows, _, kept = story(workspace)
    stack = next(row for row in rows if row.researcher == STACKER)
    assert stack.status == "crash" and kept in (
        {"WIDTH": 8, "DEPTH": 10, "HEIGHT": 10},
        {"WIDTH": 10, "DEPTH": 8, "HEIGHT": 10},
    )
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.events("stack taken apart")[0]["groups"] == [[1], [2]]


def test_proposals_are_made_on_a_stack_that_is_being_measured(workspace):
    go(workspace, Noisy(3), *THREE, *WORSE, n=9)
    rows, *_ = story(workspace)
    stack = next(row for row in rows if row.researcher == STACKER)
    assert any(row.parent == stack.number for row in rows)


@pytest.mark.parametrize(
    ("where", "at"), [("propose", 1), ("start_trial", 2), ("score", 1), ("score", 6), ("decide", 1), ("note", 1)]
)
def test_a_loop_killed_with_a_stack_under_way_loses_nothing_and_repeats_nothing(workspace, where, at):
    def run_and_die():
        executor = Noisy(3)
        executor.fails = fails
        with open_run(workspace, config=RACING) as run:
            original, calls = getattr(run.ledger, where), []

            def step(*args, **kwargs):
                result = original(*args, **kwargs)
                calls.extend([0] * any(row.researcher == STACKER for row in run.ledger.experiments()))
                if len(calls) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            setattr(run.ledger, where, step)
            Loop(run, Edits(*THREE, *WORSE), Racing(JudgeOptions(preset="h100")), executor, limits=Limits(9)).go()

    # A stack is discarded, and its parts noted, only where it fails.
    fails = ({"WIDTH": 8, "DEPTH": 8, "HEIGHT": 10}, {"WIDTH": 8, "DEPTH": 8, "HEIGHT": 8}) if where == "note" else ()
    process = multiprocessing.get_context("fork").Process(target=run_and_die)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with LedgerReader(workspace / "runs/t") as reader:
        before = {row.number: row for row in reader.experiments()}
        scored = {(t.experiment, t.k) for number in before for t in reader.trials(experiment=number) if t.status}
    # A damaged ledger comes back from its journal, stacks and parts included.
    (workspace / "runs/t/ledger.sqlite").write_bytes(b"gone")
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (workspace / "runs/t" / name).unlink(missing_ok=True)
    assert mend(workspace / "runs/t", lambda _text: None)
    again = Noisy(3)
    again.fails = fails
    go(workspace, again, *WORSE[20:], n=9)
    rows, _, kept = story(workspace)
    assert all(before[row.number].hypothesis == row.hypothesis for row in rows if row.number in before)
    assert not scored & {tuple(map(int, request.folder.name.split("-"))) for request in again.requests}
    assert Repository.open(workspace).refs("t") == {row.number: row.commit for row in rows}
    stacked = [number for row in rows if row.status == "keep" for number in members_of(row)]
    assert len(stacked) == len(set(stacked)) or where == "note"
    if where != "note":
        assert kept == {"WIDTH": 8, "DEPTH": 8, "HEIGHT": 8}


def test_a_constant_that_a_stronger_change_has_moved_keeps_its_value():
    base = "# ---- constants: x\nWIDTH = 10\nDEPTH = 10\n# ---- end of constants\n"
    stronger, weaker = base.replace("WIDTH = 10", "WIDTH = 6"), base.replace("WIDTH = 10", "WIDTH = 8")
    assert add_edit(weaker, base, stronger, {"WIDTH"}) == stronger
    both = weaker.replace("DEPTH = 10", "DEPTH = 9.50")
    assert add_edit(both, base, stronger, {"WIDTH"}) == stronger.replace("DEPTH = 10", "DEPTH = 9.50")
    assert add_edit(base.replace("WIDTH = 10", "WIDTH = 12"), base, stronger, {"WIDTH"}) is None


def test_a_loop_that_dies_before_a_stacks_verdict_gives_its_parts_their_shares(workspace):
    class DiedError(Exception):
        pass

    with open_run(workspace, config=RACING) as run:
        original = run.ledger.decide

        def decide(number, *args):
            if members_of(run.ledger.experiment(number)):
                raise DiedError
            original(number, *args)

        run.ledger.decide = decide
        with pytest.raises(DiedError):
            judge = Racing(JudgeOptions(preset="h100"))
            Loop(run, Edits(*THREE, *WORSE), judge, Noisy(3), limits=Limits(9)).go()
    go(workspace, Noisy(3), *WORSE[20:], n=9)
    rows, *_ = story(workspace)
    stack = next(row for row in rows if row.researcher == STACKER)
    assert stack.status == "keep"
    assert {share.experiment for share in shares_in(stack.judged)} == set(members_of(stack))
    assert all(f"kept as part of experiment {stack.number}" in rows[n].reason for n in members_of(stack))


def test_a_part_that_was_measured_on_another_machine_can_be_decided(workspace):
    go(workspace, Noisy(1), n=0)
    there = {"machine": "A", "val_bpb": 2.5, "status": "ok", "seed": 9, "backend": "null", "preset": "h100"}
    with open_run(workspace, config=replace(RACING, machine="A")) as run:
        row = run.propose(Proposal(edit(run.ledger.source(0), {"WIDTH": 5}), "w", "shape"), "program")
        trial, _ = run.start_trial(row, RunTrial("candidate", 9))
        run.ledger.score(row.number, trial.k, TrialResult.model_validate(there))
    with open_run(workspace, config=replace(RACING, machine="B")) as run:
        decided = run.decide(run.ledger.experiment(row.number), Decision("discard", None, None, "a part"))
    assert (decided.status, decided.val_bpb) == ("discard", 2.5)


def test_a_part_of_two_stacks_is_dropped_by_the_one_that_says_so(workspace):
    """The other one, made later, has crashed and knows no shares."""
    with open_run(workspace, config=RACING) as run:
        ledger = run.ledger

        def measured(number, status="ok"):
            result = {"seed": 7, "backend": "null", "preset": "demo", "val_bpb": 3.0 if status == "ok" else None}
            trial = ledger.start_trial(number, RunTrial("candidate", 7), subject=number)
            ledger.score(number, trial.k, TrialResult(status=status, **result))

        def decided(number, status, **facts):
            ledger.decide(number, Decision(status, None, None, "a test", facts), ledger.trials(experiment=number)[0])

        measured(0)
        decided(0, "keep", wealth=0.75, sigma=0.01, dof=3.0)
        for at, members in enumerate(("", "", "1 2", "1 2")):
            parameters = {"stack": members} if members else {}
            source = edit(ledger.source(0), {"WIDTH": 20 + at})
            who = STACKER if members else "edits"
            run.propose(Proposal(source, f"change {at}", "shape", researcher=who, parameters=parameters), "p")
        for number in (1, 2, 3):
            measured(number)
        measured(4, "crash")
        stacks = Stacks(run, Racing(JudgeOptions(preset="h100")), lambda: 2)
        ledger.note("stack taken apart", 4, {"groups": [[1], [2]], "dropped": []})
        decided(4, "crash", wealth=0.5)
        ledger.note("stack taken apart", 3, {"groups": [[2]], "dropped": [1]})
        assert not list(stacks.settled())  # a crash came before the verdict of 3
        share = {"experiment": 1, "share": 0.01, "error": 0.02, "better": 0.3}
        decided(3, "discard", wealth=0.5, parts=[share], measured=0.01)
        ((row, decision),) = stacks.settled()
        assert (row.number, decision.status, decision.delta, decision.facts["stack"]) == (1, "discard", 0.01, 3)
