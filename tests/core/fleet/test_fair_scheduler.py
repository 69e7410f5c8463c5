"""Who may use which place of a fleet, in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from autoresearch.core.fleet import fair_scheduler
from autoresearch.core.fleet.fair_scheduler import Answer, Key, Sharing, Word, conflict

STEP_SECONDS = 1.0
TWO = [("n1", "cpu", 0), ("n2", "cpu", 0)]
GPUS = [("big", "gpu", index) for index in range(4)]
WHOLE = [("big", "cpu", 0)]


@dataclass
class Run:
    """A loop as the sharing sees it: it uses an offer when it has a proposal, and its trials take a while."""

    tag: str
    places: list[Key] = field(default_factory=lambda: list(TWO))
    priority: float = 1.0
    trial_seconds: float = 60.0
    thinks_seconds: float = 0.0
    """After a trial, before there is something to run again."""
    held: dict[Key, float] = field(default_factory=dict)
    """When the trial there ends."""
    ready: float = 0.0
    trials: int = 0
    answer: Answer | None = None

    def word(self, asked: Iterable[Key] = (), **changes: Any) -> Word:
        said: dict[str, Any] = {
            "run": self.tag,
            "session": "1",
            "tag": self.tag,
            "host": "h",
            "folder": "/runs",
            "priority": self.priority,
            "machine": "A CPU",
            "fits": self.places,
            "held": list(self.held),
            "asked": list(asked),
            "paused": False,
            "drained": [],
        }
        return Word(**{**said, **changes})  # type: ignore[typeddict-item]

    def turn(self, share: Sharing, now: float) -> None:
        for key in [key for key, end in self.held.items() if end <= now]:
            del self.held[key]
            self.trials += 1
            self.ready = now + self.thinks_seconds
        self.answer = share.sync(self.word())
        wanted = [key for key, _ in self.answer["offered"]] if now >= self.ready else []
        if wanted:
            self.answer = share.sync(self.word(asked=wanted))
            for key in wanted:
                assert key in self.answer["held"]
                self.held[key] = now + self.trial_seconds


class World:
    """Runs, their sharing and the time."""

    def __init__(self, *runs: Run) -> None:
        self.now, self.runs = 0.0, list(runs)
        self.share = Sharing(lambda: self.now)
        self.idle = 0.0
        """Seconds of places on which nothing ran."""

    def go(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        end = self.now + seconds
        while self.now < end:
            for run in self.runs:
                run.turn(self.share, self.now)
            each()
            self.check()
            self.idle += STEP_SECONDS * (len(TWO) - sum(len(run.held) for run in self.runs))
            self.now += STEP_SECONDS

    def check(self) -> None:
        """No two trials are in each other's way."""
        held = [key for run in self.runs for key in run.held]
        assert not [(a, b) for i, a in enumerate(held) for b in held[:i] if conflict(a, b)]

    def used(self, run: Run) -> float:
        return next(one["device_seconds"] for one in self.share.report()["runs"] if one["run"] == run.tag)


def test_who_is_alone_has_everything_at_once_and_for_as_long_as_it_likes() -> None:
    share, run = Sharing(lambda: 0.0), Run("a")
    answer = share.sync(run.word())
    assert [key for key, _ in answer["offered"]] == TWO
    thinker = Run("b", thinks_seconds=1e9, ready=1e9)
    world = World(thinker)
    world.go(300)
    assert thinker.answer is not None
    assert [key for key, _ in thinker.answer["offered"]] == TWO


def test_two_runs_have_half_each_whatever_their_trials_take() -> None:
    a, b = Run("a", trial_seconds=60), Run("b", trial_seconds=150)
    world = World(a, b)
    world.go(6000)
    assert world.used(a) / world.used(b) == pytest.approx(1.0, rel=0.05)
    assert world.idle < 0.04 * 2 * world.now


def test_a_run_with_three_times_the_priority_has_three_times_as_much() -> None:
    a, b = Run("a", priority=3.0), Run("b")
    world = World(a, b)
    world.go(6000)
    assert world.used(a) / world.used(b) == pytest.approx(3.0, rel=0.05)


def test_more_runs_than_places_take_turns() -> None:
    runs = [Run(name) for name in "abcde"]
    world = World(*runs)
    world.go(6000)
    counts = sorted(run.trials for run in runs)
    assert counts[0] > 0.9 * counts[-1]
    assert world.idle < 0.04 * 2 * world.now


def test_a_place_does_not_wait_for_a_run_that_thinks() -> None:
    slow, quick = Run("slow", ready=3600.0), Run("quick")
    world = World(slow, quick)
    world.go(3600)
    assert quick.trials > 100
    assert world.idle < 0.04 * 2 * world.now  # with trials of a minute
    before = quick.trials
    world.go(3600)
    # It has its turn as soon as it has something to run, and no more than half for having waited.
    assert slow.trials == pytest.approx(quick.trials - before, abs=3)


def test_a_run_that_comes_later_has_no_claim_on_what_was_before() -> None:
    a, b = Run("a"), Run("b")
    world = World(a)
    world.go(3600)
    world.runs.append(b)
    world.go(3600)
    assert world.used(b) == pytest.approx(world.used(a) - 2 * 3600, rel=0.05)


def test_a_paused_run_finishes_what_runs_and_has_no_claim_when_it_is_resumed() -> None:
    a, b = Run("a"), Run("b")
    world = World(a, b)
    world.go(600)
    assert world.share.pause("a", True)
    world.go(61)
    assert not a.held
    assert a.answer is not None
    assert (a.answer["paused"], a.answer["offered"]) == (True, [])
    before = world.used(a), a.trials
    world.go(3600)
    assert (world.used(a), a.trials) == before
    assert len(b.held) == 2
    world.share.pause("a", False)
    then = world.used(b)
    world.go(3600)
    assert world.used(a) - before[0] == pytest.approx(world.used(b) - then, rel=0.05)
    assert not world.share.pause("nobody", True)


def test_a_drained_node_finishes_what_runs_and_is_offered_to_nobody() -> None:
    a, b = Run("a"), Run("b")
    world = World(a, b)
    world.go(90)
    world.share.drain("n2", True)
    running = {key for run in world.runs for key in run.held}
    assert ("n2", "cpu", 0) in running
    world.go(61)

    def untouched() -> None:
        assert all(key[0] == "n1" for run in world.runs for key in run.held)

    world.go(1200, untouched)
    assert a.answer is not None
    assert a.answer["drained"] == ["n2"]
    assert a.trials == pytest.approx(b.trials, abs=2)
    world.share.drain("n2", False)
    world.go(60)
    assert len(a.held) + len(b.held) == 2


def test_what_a_dead_loop_held_is_free_when_it_is_silent_for_long_and_at_once_when_it_is_started_again() -> None:
    a, b = Run("a"), Run("b", ready=1e9)
    world = World(a)
    world.go(10)
    world.runs = [b]
    world.go(fair_scheduler.SILENT_SECONDS - 1)
    assert b.answer is not None
    assert (b.answer["offered"], [other["tag"] for other in b.answer["others"]]) == ([], ["a"])
    world.go(3)
    assert ([key for key, _ in b.answer["offered"]], b.answer["others"]) == (TWO, [])
    again = World(a)
    again.share = world.share = Sharing(lambda: again.now)
    again.share.sync(a.word(asked=TWO))
    a.held = {}
    answer = again.share.sync(a.word(session="2"))
    assert [key for key, _ in answer["offered"]] == TWO


def test_a_loop_that_ends_leaves_its_places_and_an_earlier_one_cannot_end_a_later_one() -> None:
    share, a = Sharing(lambda: 0.0), Run("a")
    share.sync(a.word(asked=TWO, session="2"))
    share.leave("a", "1")
    assert [run["tag"] for run in share.report()["runs"]] == ["a"]
    share.leave("a", "2")
    share.leave("a", "2")
    assert share.report()["runs"] == []
    assert [key for key, _ in share.sync(Run("b").word())["offered"]] == TWO


def test_said_twice_is_as_good_as_said_once() -> None:
    share, a, b = Sharing(lambda: 0.0), Run("a"), Run("b")
    asked = a.word(asked=TWO)
    assert share.sync(asked)["held"] == share.sync(asked)["held"] == TWO
    assert share.sync(b.word(asked=TWO))["held"] == []
    given = a.word(held=TWO[:1])
    assert share.sync(given)["held"] == share.sync(given)["held"] == TWO[:1]
    for _ in range(2):
        share.pause("a", True)
        share.drain("n1", True)
    assert share.report()["drained"] == ["n1"]


def test_an_offer_that_is_over_is_honoured_for_a_moment() -> None:
    world = World()
    share, a, b = world.share, Run("a"), Run("b")
    share.sync(a.word())
    share.pause("a", True)
    assert share.sync(a.word())["offered"] == []
    assert share.sync(b.word())["offered"] == []
    assert share.sync(a.word(asked=TWO[:1]))["held"] == TWO[:1]
    world.now += fair_scheduler.GRACE_SECONDS
    assert [key for key, _ in share.sync(b.word())["offered"]] == TWO[1:]
    assert share.sync(a.word(asked=TWO))["held"] == TWO[:1]


def test_a_trial_on_the_processor_takes_the_whole_node_and_gets_it_in_the_end() -> None:
    gpus, whole = Run("gpus", GPUS), Run("whole", WHOLE)
    world = World(gpus)
    share = world.share
    gpus.held = {key: 20.0 * key[2] for key in GPUS}  # they never end all at once
    share.sync(gpus.word())
    world.runs.append(whole)
    world.go(7200)
    assert world.used(whole) / world.used(gpus) == pytest.approx(1.0, rel=0.15)
    assert whole.trials == pytest.approx(gpus.trials / len(GPUS), rel=0.15)


def test_a_sharing_that_was_made_anew_hears_what_runs_before_it_offers_anything() -> None:
    world = World()
    share = Sharing(lambda: world.now, again=True)
    a, b = Run("a"), Run("b")
    assert share.sync(a.word())["offered"] == []
    told = share.sync(b.word(held=TWO[:1], paused=True, drained=["n9"]))
    assert (told["held"], told["paused"], told["drained"]) == (TWO[:1], True, ["n9"])
    world.now += fair_scheduler.QUIET_SECONDS
    assert [key for key, _ in share.sync(a.word())["offered"]] == TWO[1:]
