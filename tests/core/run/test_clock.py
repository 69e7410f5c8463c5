"""The loop lives by the clock that it is given."""

from __future__ import annotations

import itertools
import time

from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.replay import decide_again
from autoresearch.core.store.headline import headline_of


class FastClock:
    """Half an hour passes whenever the loop waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, news, seconds: float) -> None:
        self.now += 1800.0


def test_hours_are_over_when_the_clock_says_so(tmp_path):
    with open_run(make_workspace(tmp_path)) as run:
        clock = FastClock()
        ending = Loop(run, Widths(*range(9, 0, -1)), Greedy(), Scripted(), limits=Limits(hours=3), clock=clock).go()
        decided = len(run.attempts)
    assert (ending.state, ending.reason) == ("finished", "3 hours are over")
    assert 3 * 3600 <= clock.now <= 4 * 3600
    assert 1 <= decided <= 8


def test_hours_that_end_before_the_baseline_is_decided_leave_work_undone(tmp_path):
    with open_run(make_workspace(tmp_path)) as run:
        ending = Loop(run, Widths(), Greedy(), Scripted(), limits=Limits(hours=0), clock=FastClock()).go()
        tag = run.tag
    assert (ending.state, ending.exit_code) == ("interrupted", 4)
    assert ending.reason == f"0 hours are over before the baseline was decided; `ar loop --tag {tag}` goes on with it"


def test_a_machine_whose_clock_is_set_back_repeats_no_trial_and_decides_the_same(tmp_path, monkeypatch):
    began, asked = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: began - 60.0 * next(asked))

    def no_more_than_four(_request):
        assert len(executor.requests) <= 4

    executor = Scripted(during=no_more_than_four)
    workspace = make_workspace(tmp_path)
    for count in (1, 3):  # the second session opens a ledger whose times lie ahead of the clock
        with open_run(workspace) as run:
            Loop(run, Widths(9, 12, 8), Greedy(), executor, limits=Limits(count)).go()
            rows = list(run.ledger.experiments())
            replays = [decide_again(run.ledger, row) for row in rows]
            headline = headline_of(run.ledger)
    assert [row.status for row in rows] == ["keep", "keep", "discard", "keep"]
    assert len(executor.requests) == 4
    assert [one.decision is not None and not one.differences for one in replays] == [True] * 4
    assert (headline.best.value, headline.best.trials) == (0.8, 1)
