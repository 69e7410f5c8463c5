"""The loop lives by the clock that it is given."""

from __future__ import annotations

from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop


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
