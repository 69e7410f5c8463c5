"""The loop's own profiles: when they are made, what they cost, and that nothing rests on them."""

from __future__ import annotations

import time

import pytest
from loop_fixtures import Scripted, ScriptedHandle, Widths, make_workspace, open_run, width_of

from autoresearch.core.events import AwaitingProposals, Profiling, Proposing, Thinking
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.history import own_profile
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.stopping import Stop
from autoresearch.core.trial.request import ProfileResult


class Curious(Widths):
    reads_profiles = True


class Shaped(Scripted):
    """An executor whose trials have WIDTH million parameters, and whose profiles may fail."""

    def __init__(self, *, fails=False):
        super().__init__()
        self.fails, self.profiled = fails, []

    def submit(self, request, observer=None):
        if request.profile:
            self.profiled.append((width_of(request.source), request))
        handle = super().submit(request, observer)
        handle.__class__ = ShapedHandle
        handle.profile = request.profile
        return handle


class ShapedHandle(ScriptedHandle):
    def result(self, timeout=None):
        result = super().result(timeout)
        width = width_of(self.request.source)
        figures = {"params": width * 10**6, "steps": 10, "train_seconds": 2.0, "wall_seconds": 1000.0}
        if self.profile and not self.executor.fails:
            figures["profile"] = ProfileResult(seconds=1, batches=1, sections={}, operations=[], note="")
        return result.model_copy(update=figures)


def go(tmp_path, *widths, fails=False):
    executor, events = Shaped(fails=fails), []
    with open_run(make_workspace(tmp_path / "w")) as run:
        loop = Loop(run, Curious(*widths), Greedy(), executor, limits=Limits(len(widths)), observer=events.append)
        loop.go()
        notes = run.ledger.events("profile failed")
        decided = [one.experiment for one in run.attempts]
    return executor, events, notes, decided


def test_the_incumbent_is_profiled_at_first_and_when_its_shape_has_changed(tmp_path):
    # 9 is a tenth smaller than the baseline's 10, 5 is half of it, and 20 is never kept. A second profile waits until
    # it takes no more than its share of the device time.
    executor, events, _, decided = go(tmp_path, 9, 20, 5, 21, 22)
    assert [width for width, _ in executor.profiled] == [10, 5]
    assert [event.experiment for event in events if isinstance(event, Profiling)] == [0, 3]
    assert decided == [0, 1, 2, 3, 4, 5]
    with open_run(tmp_path / "w") as run:
        assert own_profile(run.folder, 3).startswith("Measured by the loop in experiment 3's file.")


def test_a_profile_is_short_unscored_and_no_trial_of_the_run(tmp_path):
    executor, _, _, _ = go(tmp_path, 9)
    request = executor.profiled[0][1]
    assert not request.score and request.budget.train_seconds == 2.0  # the most is a trial's own time
    assert request.folder.parts[-2:] == ("profiles", "0")
    with open_run(tmp_path / "w") as run:
        assert len(run.ledger.ended_trials()) == 2


def test_a_profile_that_fails_is_noted_and_not_tried_again(tmp_path):
    executor, _, notes, decided = go(tmp_path, 9, 20, fails=True)
    assert len(executor.profiled) == 1 and len(notes) == 1 and decided == [0, 1, 2]


@pytest.mark.parametrize("slowest", [(0.2, 1), (0.9, 2), (1.7, 3), (50.0, 3)])
def test_slow_researchers_have_more_proposals_ahead(slowest):
    from autoresearch.core.run.proposers import Proposers
    from autoresearch.core.run.stopping import Stop

    seconds, ahead = slowest
    proposers = Proposers(Widths(1), Stop(), lambda: None)
    assert (proposers.ahead_by(1.0), proposers.at_once(1.0)) == (1, 1)
    proposers._seconds.extend([seconds, seconds])
    assert proposers.ahead_by(1.0) == ahead
    assert proposers.at_once(1.0) == min(3, max(1, -int(-seconds // 1)))


class Slow(Widths):
    """A researcher that is still at work when the loop should end, and then proposes."""

    thinks_ahead = True

    def propose(self, history):
        if len(history.attempts) > 1:
            time.sleep(0.5)
        return super().propose(history)


def test_a_loop_that_waits_for_a_proposal_says_so_and_for_how_long(tmp_path):
    events, stop = [], Stop()

    def observe(event):
        events.append(event)
        if isinstance(event, Thinking | Proposing) and len(run.attempts) > 1:
            stop.finish()

    with open_run(make_workspace(tmp_path / "w")) as run:
        Loop(run, Slow(9, 8, 7), Greedy(), Scripted(), stop=stop, observer=observe).go()
    said = [event for event in events if isinstance(event, AwaitingProposals)]
    assert [(one.count, one.seconds) for one in said] == [(1, 60.0)]


def test_a_profile_that_the_loops_end_cut_off_is_made_by_the_next_one(tmp_path):
    with open_run(make_workspace(tmp_path / "w")) as run:
        cut_off = run.folder / "profiles" / "0"
        cut_off.mkdir(parents=True)
        (cut_off / "events.jsonl").write_text("")
        executor = Shaped()
        Loop(run, Curious(9), Greedy(), executor, limits=Limits(1)).go()
    assert [width for width, _ in executor.profiled] == [10] and not (cut_off / "events.jsonl").exists()
