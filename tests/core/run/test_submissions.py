"""Train files from outside: each becomes one experiment, once, whatever crashes and whatever is in the inbox."""

from __future__ import annotations

import json
import os
import re

import pytest
from loop_fixtures import TRAIN, Scripted, Widths, make_workspace, open_run

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.submissions import Outside, Submissions
from autoresearch.core.store.inbox import Inbox, Submission, new_identity
from autoresearch.core.store.reader import LedgerReader


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


def source_of(width):
    return re.sub(r"WIDTH = \d+", f"WIDTH = {width}", TRAIN).replace('"none"', '"demo"')


def written(**changed):
    """A submission's file with another value in one field."""
    sound = {"source": "x = 1", "hypothesis": "", "category": "", "predicted_delta": None, "parent": 0}
    return json.dumps({**sound, **changed}).encode()


def hand_in(workspace, width, **more):
    submission = Submission(new_identity(), source_of(width), f"width {width}", "shape", -0.1, 0)
    Inbox(workspace / "runs/t").put(submission)
    return submission.identity


def go(workspace, identity=None, researcher=None, limits=None):
    with open_run(workspace) as run:
        executor = Scripted()
        limits = limits or Limits(submission=identity)
        ending = Loop(run, researcher or Outside(), Greedy(), executor, limits=limits).go()
    return ending, executor


def test_a_submission_is_an_experiment_and_its_verdict_ends_the_loop(workspace):
    identity = hand_in(workspace, 7)
    ending, executor = go(workspace, identity)
    assert (ending.state, ending.exit_code) == ("finished", 0)
    assert len(executor.requests) == 2  # the baseline and the file
    with LedgerReader(workspace / "runs/t") as reader:
        row = reader.experiment(1)
        assert (row.status, row.hypothesis, row.category, row.predicted_delta) == ("keep", "width 7", "shape", -0.1)
        assert (row.researcher, row.usd, row.parameters) == ("submit", None, {"submission": identity})
        assert reader.submission(identity).experiment == 1 and reader.settled(identity)
        assert reader.verify().fault is None
    assert Inbox(workspace / "runs/t").waiting() == []


def test_a_loop_with_a_researcher_of_its_own_takes_submissions_too(workspace):
    class AndOneFromOutside(Widths):
        def propose(self, history):
            if len(history.attempts) == 1:
                hand_in(workspace, 6)
            return super().propose(history)

    ending, _ = go(workspace, researcher=AndOneFromOutside(9, 12, 5), limits=Limits(3))
    assert ending.state == "finished"
    with LedgerReader(workspace / "runs/t") as reader:
        assert [row.researcher for row in reader.experiments()] == ["", "widths", "submit", "widths"]


def test_a_crash_before_the_file_is_deleted_repeats_nothing(workspace):
    identity = hand_in(workspace, 7)
    inbox = Inbox(workspace / "runs/t")
    content = inbox.read(identity)
    go(workspace, identity)
    inbox.put(content)
    go(workspace, identity)
    assert inbox.waiting() == []
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.next_number() == 2


def test_a_source_that_was_tried_is_answered_with_the_experiment_that_tried_it(workspace):
    go(workspace, hand_in(workspace, 7))
    again, baseline = hand_in(workspace, 7), hand_in(workspace, 10)
    go(workspace, again)
    go(workspace, baseline)
    with LedgerReader(workspace / "runs/t") as reader:
        assert (reader.submission(again).outcome, reader.submission(again).experiment) == ("repeated", 1)
        assert (reader.submission(baseline).outcome, reader.submission(baseline).experiment) == ("repeated", 0)
        assert reader.next_number() == 2 and reader.totals().failed_proposals == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[1, 2]",
        b"[" * 100_000,
        b"\xff\xfe",
        written(source=1),
        written(predicted_delta="x"),
        written(predicted_delta=10**400),
        written(predicted_delta=float("nan")),
        written(parent=-1),
        written(parent=10**30),
        written(source="\ud800"),
        written(more=1),
    ],
)
def test_a_file_that_is_no_submission_is_refused_and_gone(workspace, content):
    inbox = Inbox(workspace / "runs/t")
    inbox.folder.mkdir(parents=True)
    bad = new_identity()
    (inbox.folder / f"{bad}.json").write_bytes(content)
    go(workspace, hand_in(workspace, 7))
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.submission(bad).outcome == "failed" and "no submission" in reader.submission(bad).reason
        assert reader.next_number() == 2
    assert inbox.waiting() == []


def test_what_is_no_plain_file_does_not_stop_a_loop(workspace):
    inbox = Inbox(workspace / "runs/t")
    inbox.folder.mkdir(parents=True)
    os.mkfifo(inbox.folder / f"{new_identity()}.json")
    (inbox.folder / f"{new_identity()}.json").symlink_to("/dev/zero")
    (inbox.folder / f"{new_identity()}.json").mkdir()
    (inbox.folder / "notes.txt").write_text("mine")
    identity = hand_in(workspace, 7)
    go(workspace, identity)
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.settled(identity) and reader.next_number() == 2


def test_a_submission_that_no_longer_fits_is_withdrawn_and_says_so(workspace):
    identity = hand_in(workspace, 7)
    with open_run(workspace) as run:
        Loop(run, Outside(), Greedy(), Scripted(), limits=Limits(0)).go()
        assert list(Submissions(run).take()) == []
        run.withdraw(run.ledger.experiment(1), "it does not fit")
        found = run.ledger.submission(identity)
        assert (found.outcome, found.experiment, found.reason) == ("withdrawn", None, "it does not fit")
        assert run.ledger.settled(identity)


def test_a_repeated_submission_shares_the_end_of_the_one_that_came_first(workspace):
    first = hand_in(workspace, 7)
    with open_run(workspace) as run:
        Loop(run, Outside(), Greedy(), Scripted(), limits=Limits(0)).go()
        assert list(Submissions(run).take()) == []
        second = hand_in(workspace, 7)
        assert [refusal.kind for refusal in Submissions(run).take()] == ["repeated"]
        run.withdraw(run.ledger.experiment(1), "it does not fit")
        for identity in (first, second):
            assert run.ledger.settled(identity)
            assert run.ledger.submission(identity).outcome == "withdrawn"
        # Another experiment has the number now, and is nothing to them.
        run.propose(Proposal(source_of(5), "five", "shape"), "")
        run.withdraw(run.ledger.experiment(1), "nor does this")
        assert run.ledger.submission(second).reason == "it does not fit"


def test_a_submission_may_name_a_number_that_was_withdrawn(workspace):
    with open_run(workspace) as run:
        Loop(run, Outside(), Greedy(), Scripted(), limits=Limits(0)).go()
        gap, _ = (run.propose(Proposal(source_of(width), "", "shape"), "") for width in (5, 6))
        run.withdraw(gap, "it does not fit")
        Inbox(run.folder).put(Submission(new_identity(), source_of(7), "seven", "shape", None, gap.number))
        assert list(Submissions(run).take()) == []
        assert run.ledger.experiment(3).parent == 0


def test_without_a_baseline_a_submission_waits(workspace):
    identity = hand_in(workspace, 7)
    with open_run(workspace) as run:
        assert Inbox(run.folder).waiting() == [identity]
        assert not run.ledger.settled(identity)
