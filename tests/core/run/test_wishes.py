"""A person's wish for a running loop: pause, resume, and stop after the trial under way."""

from __future__ import annotations

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.events import Decided, Paused, Resumed
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop, SystemClock
from autoresearch.core.store.wishes import WishFile


class Patient(SystemClock):
    """A clock that takes a pause back at the third wait in it."""

    def __init__(self, run, seen):
        self.run, self.seen, self.waits = run, seen, 0

    def wait(self, news, seconds):
        wishes = WishFile(self.run.folder)
        self.waits += wishes.read() == "pause"
        if self.waits == 3 and not self.seen:
            self.seen.append([row.number for row in self.run.ledger.experiments() if row.state == "decided"])
            wishes.clear()
        super().wait(news, seconds)


def looped(run, wish, clock=None):
    """Run three experiments, with a wish put when the first is decided; gives the ending and what was told."""
    told = []

    def observe(event):
        told.append(event)
        if isinstance(event, Decided) and event.experiment == 1:
            WishFile(run.folder).put(wish)

    loop = Loop(run, Widths(9, 12, 8), Greedy(), Scripted(), limits=Limits(3), observer=observe, clock=clock)
    return loop.go(), told


def test_a_paused_loop_begins_nothing_until_it_is_resumed(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        seen = []
        ending, told = looped(run, "pause", Patient(run, seen))
        assert ending.state == "finished"
        assert seen == [[0, 1]]
        kinds = [type(event) for event in told if isinstance(event, Paused | Resumed)]
        assert kinds == [Paused, Resumed]


def test_a_stop_ends_the_loop_as_the_first_interrupt_does_and_only_once(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        ending, _ = looped(run, "stop")
        assert (ending.state, ending.exit_code) == ("interrupted", 130)
        assert WishFile(run.folder).read() is None
        assert len([row for row in run.ledger.experiments() if row.state == "decided"]) < 4


def test_whoever_starts_the_loop_wants_it_to_run(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        WishFile(run.folder).put("pause")
        assert Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go().state == "finished"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"wish": "rm"}', '{"wish": ["pause"]}', "[" * 900, "x" * 2000])
def test_a_file_that_holds_something_else_is_no_wish(tmp_path, text):
    (tmp_path / "wish.json").write_text(text)
    assert WishFile(tmp_path).read() is None
