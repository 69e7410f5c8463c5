"""The fair scheduler of a fleet, in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from autoresearch.core.fleet import fair_scheduler
from autoresearch.core.fleet.fair_scheduler import Answer, CheckIn, FairScheduler, SlotKey, conflict

STEP_SECONDS = 1.0
TWO = [("n1", "cpu", 0), ("n2", "cpu", 0)]
GPUS = [("big", "gpu", index) for index in range(4)]
WHOLE = [("big", "cpu", 0)]


@dataclass
class Run:
    """A loop as the scheduler sees it: it uses an offer when it has a proposal, and its trials take a while."""

    tag: str
    places: list[SlotKey] = field(default_factory=lambda: list(TWO))
    priority: float = 1.0
    trial_seconds: float = 60.0
    thinks_seconds: float = 0.0
    """Seconds after a trial before there is another proposal."""
    held: dict[SlotKey, float] = field(default_factory=dict)
    """Slots in use, each with the time when its trial ends."""
    ready: float = 0.0
    trials: int = 0
    answer: Answer | None = None

    def check_in(self, asked: Iterable[SlotKey] = (), **changes: Any) -> CheckIn:
        fields: dict[str, Any] = {
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
        return CheckIn(**{**fields, **changes})  # type: ignore[typeddict-item]

    def turn(self, scheduler: FairScheduler, now: float) -> None:
        for key in [key for key, end in self.held.items() if end <= now]:
            del self.held[key]
            self.trials += 1
            self.ready = now + self.thinks_seconds
        self.answer = scheduler.check_in(self.check_in())
        wanted = [key for key, _ in self.answer["offered"]] if now >= self.ready else []
        if wanted:
            self.answer = scheduler.check_in(self.check_in(asked=wanted))
            for key in wanted:
                assert key in self.answer["held"]
                self.held[key] = now + self.trial_seconds


class World:
    """Runs, their scheduler and the time."""

    def __init__(self, *runs: Run) -> None:
        self.now, self.runs = 0.0, list(runs)
        self.scheduler = FairScheduler(lambda: self.now)
        self.idle = 0.0
        """Slot-seconds in which nothing ran."""

    def go(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        end = self.now + seconds
        while self.now < end:
            for run in self.runs:
                run.turn(self.scheduler, self.now)
            each()
            self.check()
            self.idle += STEP_SECONDS * (len(TWO) - sum(len(run.held) for run in self.runs))
            self.now += STEP_SECONDS

    def check(self) -> None:
        """No two trials are in each other's way."""
        held = [key for run in self.runs for key in run.held]
        assert not [(a, b) for i, a in enumerate(held) for b in held[:i] if conflict(a, b)]

    def used(self, run: Run) -> float:
        return next(one["device_seconds"] for one in self.scheduler.report()["runs"] if one["run"] == run.tag)


def test_a_run_alone_is_offered_every_slot_for_as_long_as_it_likes() -> None:
    scheduler, run = FairScheduler(lambda: 0.0), Run("a")
    answer = scheduler.check_in(run.check_in())
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


def test_more_runs_than_slots_take_turns() -> None:
    runs = [Run(name) for name in "abcde"]
    world = World(*runs)
    world.go(6000)
    counts = sorted(run.trials for run in runs)
    assert counts[0] > 0.9 * counts[-1]
    assert world.idle < 0.04 * 2 * world.now


def test_a_slot_does_not_wait_for_a_run_that_thinks() -> None:
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
    assert world.scheduler.pause("a", True)
    world.go(61)
    assert not a.held
    assert a.answer is not None
    assert (a.answer["paused"], a.answer["offered"]) == (True, [])
    before = world.used(a), a.trials
    world.go(3600)
    assert (world.used(a), a.trials) == before
    assert len(b.held) == 2
    world.scheduler.pause("a", False)
    then = world.used(b)
    world.go(3600)
    assert world.used(a) - before[0] == pytest.approx(world.used(b) - then, rel=0.05)
    assert not world.scheduler.pause("nobody", True)


def test_a_drained_node_finishes_what_runs_and_is_offered_to_nobody() -> None:
    a, b = Run("a"), Run("b")
    world = World(a, b)
    world.go(90)
    world.scheduler.drain("n2", True)
    running = {key for run in world.runs for key in run.held}
    assert ("n2", "cpu", 0) in running
    world.go(61)

    def untouched() -> None:
        assert all(key[0] == "n1" for run in world.runs for key in run.held)

    world.go(1200, untouched)
    assert a.answer is not None
    assert a.answer["drained"] == ["n2"]
    assert a.trials == pytest.approx(b.trials, abs=2)
    world.scheduler.drain("n2", False)
    world.go(60)
    assert len(a.held) + len(b.held) == 2


def test_a_dead_loops_slots_are_free_after_a_long_silence_and_at_once_when_it_is_started_again() -> None:
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
    again.scheduler = world.scheduler = FairScheduler(lambda: again.now)
    again.scheduler.check_in(a.check_in(asked=TWO))
    a.held = {}
    answer = again.scheduler.check_in(a.check_in(session="2"))
    assert [key for key, _ in answer["offered"]] == TWO


def test_a_loop_that_ends_frees_its_slots_and_an_earlier_one_cannot_end_a_later_one() -> None:
    scheduler, a = FairScheduler(lambda: 0.0), Run("a")
    scheduler.check_in(a.check_in(asked=TWO, session="2"))
    scheduler.leave("a", "1")
    assert [run["tag"] for run in scheduler.report()["runs"]] == ["a"]
    scheduler.leave("a", "2")
    scheduler.leave("a", "2")
    assert scheduler.report()["runs"] == []
    assert [key for key, _ in scheduler.check_in(Run("b").check_in())["offered"]] == TWO


def test_a_repeated_call_changes_nothing() -> None:
    scheduler, a, b = FairScheduler(lambda: 0.0), Run("a"), Run("b")
    asked = a.check_in(asked=TWO)
    assert scheduler.check_in(asked)["held"] == scheduler.check_in(asked)["held"] == TWO
    assert scheduler.check_in(b.check_in(asked=TWO))["held"] == []
    given = a.check_in(held=TWO[:1])
    assert scheduler.check_in(given)["held"] == scheduler.check_in(given)["held"] == TWO[:1]
    for _ in range(2):
        scheduler.pause("a", True)
        scheduler.drain("n1", True)
    assert scheduler.report()["drained"] == ["n1"]


def test_an_offer_that_is_over_is_honoured_for_a_moment() -> None:
    world = World()
    scheduler, a, b = world.scheduler, Run("a"), Run("b")
    scheduler.check_in(a.check_in())
    scheduler.pause("a", True)
    assert scheduler.check_in(a.check_in())["offered"] == []
    assert scheduler.check_in(b.check_in())["offered"] == []
    assert scheduler.check_in(a.check_in(asked=TWO[:1]))["held"] == TWO[:1]
    world.now += fair_scheduler.GRACE_SECONDS
    assert [key for key, _ in scheduler.check_in(b.check_in())["offered"]] == TWO[1:]
    assert scheduler.check_in(a.check_in(asked=TWO))["held"] == TWO[:1]


def test_a_trial_on_the_processor_takes_the_whole_node_and_gets_it_in_the_end() -> None:
    gpus, whole = Run("gpus", GPUS), Run("whole", WHOLE)
    world = World(gpus)
    scheduler = world.scheduler
    gpus.held = {key: 20.0 * key[2] for key in GPUS}  # they never end all at once
    scheduler.check_in(gpus.check_in())
    world.runs.append(whole)
    world.go(7200)
    assert world.used(whole) / world.used(gpus) == pytest.approx(1.0, rel=0.15)
    assert whole.trials == pytest.approx(gpus.trials / len(GPUS), rel=0.15)


def test_a_scheduler_that_replaces_a_lost_one_hears_what_runs_before_it_offers_anything() -> None:
    world = World()
    scheduler = FairScheduler(lambda: world.now, replaces_lost=True)
    a, b = Run("a"), Run("b")
    assert scheduler.check_in(a.check_in())["offered"] == []
    told = scheduler.check_in(b.check_in(held=TWO[:1], paused=True, drained=["n9"]))
    assert (told["held"], told["paused"], told["drained"]) == (TWO[:1], True, ["n9"])
    world.now += fair_scheduler.QUIET_SECONDS
    assert [key for key, _ in scheduler.check_in(a.check_in())["offered"]] == TWO[1:]
