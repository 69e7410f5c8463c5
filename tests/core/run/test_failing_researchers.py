"""Researchers whose program fails: when the loop gives up, and when it goes on."""

from __future__ import annotations

import re

import pytest
from loop_fixtures import Scripted, make_workspace, open_run

from autoresearch.core.errors import BrokenResearcherError, LimitReachedError, UnusableProposalError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.reader import LedgerReader


class Failing(Researcher):
    """Raises these errors one after another, proposes a width where there is none, and then fails for good."""

    name = "failing"

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def propose(self, history):
        self.calls += 1
        error = self.errors.pop(0) if self.errors else BrokenResearcherError("it does not start.")
        if error is not None:
            error.record = f"log {self.calls}"
            raise error
        source = re.sub(r"WIDTH = \d+", f"WIDTH = {90 + self.calls}", history.incumbent.source)
        return Proposal(source, "wider", "shape", researcher=self.name)


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


def give_up(workspace, researcher):
    with open_run(workspace) as run, pytest.raises(LimitReachedError) as caught:
        Loop(run, researcher, Greedy(), Scripted(), limits=Limits(50)).go()
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.incumbent() is not None  # the baseline was measured in any case
    return str(caught.value)


def test_a_command_that_fails_three_times_in_the_same_words_ends_the_loop_and_says_where_to_look(workspace):
    researcher = Failing()
    said = give_up(workspace, researcher)
    assert researcher.calls == 3 and "3 times in a row: it does not start. (its output: log 3)" in said


def test_ideas_that_fail_in_different_ways_get_more_tries_than_a_command(workspace):
    researcher = Failing(*(UnusableProposalError(f"flaw {number}.") for number in range(20)))
    give_up(workspace, researcher)
    assert researcher.calls == 10


def test_ideas_that_fail_three_times_in_the_same_words_end_the_loop(workspace):
    researcher = Failing(*(UnusableProposalError("it changes nothing.") for _ in range(20)))
    give_up(workspace, researcher)
    assert researcher.calls == 3


def test_a_proposal_in_between_starts_the_count_again(workspace):
    same = [BrokenResearcherError("busy.") for _ in range(4)]
    researcher = Failing(*same[:2], None, *same[2:], None)
    give_up(workspace, researcher)
    assert researcher.calls == 6 + 3


class Panicking(Researcher):
    """Thinks in a thread, and fails like a library in Rust: with what is no Exception."""

    name, thinks_ahead = "panicking", True

    def propose(self, history):
        raise type("PanicException", (BaseException,), {})("called unwrap on an Err value")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_panic_in_a_researchers_thread_is_a_failed_proposal_and_not_waited_for(workspace):
    said = give_up(workspace, Panicking())
    assert "3 times in a row: PanicException: called unwrap on an Err value" in said
