"""The first half of a trial: the feeder, the train child and the clock, up to weights that nobody can change."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.errors import DataError, TrialError
from autoresearch.core.events import (
    BadRequest,
    DataFault,
    DeviceFound,
    FeedEnded,
    FeedProgress,
    FirstBatch,
    Frozen,
    Log,
    Message,
    Startup,
    Trained,
)
from autoresearch.core.trial.child.channel import Failed, Profiled, WeightsWritten
from autoresearch.core.trial.compile_cache import Found
from autoresearch.core.trial.context import WEIGHTS, Setting, failure, gone
from autoresearch.core.trial.processes import Child, Launch, TrialEnded
from autoresearch.core.trial.profile import TRACE, keep, read
from autoresearch.core.trial.weights import WeightsFault, check_weights, drop_weights, flops_per_token, take_weights

FEEDER_SECONDS = 2.0
"""How long the feeder may take to say how much it handed out, once the train child is gone."""


@dataclass
class Clock:
    """Monotonic seconds, all by the parent's clock."""

    spawned: float
    first_batch: float | None = None
    trained: float | None = None
    weights: float | None = None
    feed_over: bool = False
    """Whether the feeder has said its last count."""


def train(
    setting: Setting, near_end: Callable[[], None], lead_seconds: float, cache: Found | None = None
) -> tuple[Path, str]:
    """Train, and return the frozen weights file and its SHA-256. Raises `TrialEnded` for any other outcome.

    `near_end` is called once, `lead_seconds` before the deadline, if training lasts as long. `cache` is copied for the
    train child alone.
    """
    with contextlib.ExitStack() as stack:
        work_fd, feeder, child = _start(setting, stack, cache)
        clock = Clock(spawned=child.started)
        try:
            announced = _wait_for_weights(setting, clock, feeder, child, near_end, lead_seconds)
        finally:
            _measure(setting, clock, feeder, child)
        destination = setting.record.folder / WEIGHTS
        drop_weights(destination)
        try:
            take_weights(work_fd, WEIGHTS, destination)
            limit = setting.request.weights_limit_mb * 2**20
            shapes = check_weights(destination, sha256=announced.sha256, limit_bytes=limit)
            setting.facts.flops_per_token = flops_per_token(shapes, setting.vocab_size)
        except WeightsFault as fault:
            raise TrialEnded("invalid", str(fault)) from fault
        destination.chmod(0o444)
        if setting.request.profile:
            keep(setting.facts.profile, setting.record.folder, work_fd)
    setting.facts.weights_sha256 = announced.sha256
    setting.record.event(Frozen())
    return destination, announced.sha256


def _start(setting: Setting, stack: contextlib.ExitStack, cache: Found | None) -> tuple[int, Child, Child]:
    """The work folder's descriptor, the feeder and the train child, joined by a socket that nobody else holds."""
    request = setting.request
    with contextlib.ExitStack() as ours:
        near, far = socket.socketpair()
        ours.callback(near.close)
        ours.callback(far.close)
        trace = setting.inside("train", TRACE) if request.profile else None
        job = {"budget_seconds": request.budget.train_seconds, "feed_fd": far.fileno(), "trace": trace}
        launch = setting.launch("train", job, (far.fileno(),))
        if cache is not None:
            cache.copy_to(launch.work)
        work_fd = os.open(launch.work, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, work_fd)
        child = setting.watch.start(launch)
        feeder = setting.watch.start(_feeder(setting, near.fileno()))
    return work_fd, feeder, child


def _feeder(setting: Setting, socket_fd: int) -> Launch:
    request = setting.request
    argv = [sys.executable, "-m", "autoresearch.core.data.feed"]
    argv += ["--prepared", str(setting.prepared.folder.absolute()), "--vocab", str(setting.vocab_size)]
    argv += ["--seed", str(request.seed), "--budget", str(request.budget.train_seconds)]
    argv += ["--socket-fd", str(socket_fd), "--events-fd", "{events}"]
    return Launch("feed", argv, setting.record.work_folder("feed"), descriptors=(socket_fd,))


def _wait_for_weights(
    setting: Setting, clock: Clock, feeder: Child, child: Child, near_end: Callable[[], None], lead_seconds: float
) -> WeightsWritten:
    """Return the message that announces the weights. Raises `TrialEnded` when it does not come in time."""
    budget = setting.request.budget
    warned, early = False, budget.train_seconds - lead_seconds
    while True:
        limit = clock.spawned + budget.startup_seconds
        if clock.first_batch is not None:
            limit = clock.first_batch + budget.hard_seconds
        if announced := _hear(setting, clock, feeder, child, limit):
            return announced
        now = time.monotonic()
        if not warned and clock.first_batch is not None and now >= clock.first_batch + early:
            warned = True
            near_end()
        if now > limit:
            raise TrialEnded("timeout", _too_slow(setting, clock, now))
        if child.returncode() is not None:
            if announced := _hear(setting, clock, feeder, child, now):  # its last words
                return announced
            raise gone(child)
        if feeder.returncode() not in (None, 0):
            _hear(setting, clock, feeder, child, now)
            raise TrialError("the feeder stopped before the trial's end.", fix=f"see {setting.record.log_path}.")


def _hear(setting: Setting, clock: Clock, feeder: Child, child: Child, limit: float) -> WeightsWritten | None:
    """Take in what has been said; return the message that announces the weights, if it is there and in time."""
    messages = setting.watch.step(limit)
    for source, message in messages:  # the feeder's first: the child's may end the trial
        if source is feeder:
            _hear_feeder(setting, clock, message)
    for source, message in messages:
        if source is child and (announced := _hear_child(setting, clock, message)):
            _check_time(setting, clock)
            return announced
    return None


def _hear_feeder(setting: Setting, clock: Clock, message: Message) -> None:
    match message:
        case FirstBatch():
            clock.first_batch = message.monotonic
            setting.record.event(FirstBatch())
        case FeedProgress() | FeedEnded():
            setting.facts.tokens, setting.facts.batches = message.tokens, message.batches
            setting.record.event(message)
            clock.feed_over = clock.feed_over or isinstance(message, FeedEnded)
        case DataFault():
            raise DataError(message.message)
        case BadRequest():
            setting.record.event(message)


def _hear_child(setting: Setting, clock: Clock, message: Message) -> WeightsWritten | None:
    """Note what the train child says; return its message if that announces the weights.

    Nothing of it is believed about time: each moment is when the parent hears of it.
    """
    facts = setting.facts
    match message:
        case DeviceFound():
            # The first was sent before the train file was read; a later one may be forged.
            facts.device = facts.device or message.device
            setting.record.event(message)
        case Startup():
            setting.record.event(message)
        case Log():
            facts.steps = facts.steps if (step := _count(message.step)) is None else step
            setting.record.event(message)
        case Trained():
            clock.trained = clock.trained or time.monotonic()
            setting.record.event(message)
        case Profiled() if setting.request.profile:
            facts.profile = read(message)
        case WeightsWritten():
            clock.weights = time.monotonic()
            facts.params, facts.peak_memory_mb = _count(message.params), _amount(message.peak_memory_mb)
            facts.claimed_flops_per_token = _amount(message.flops_per_token)
            return message
        case Failed():
            raise failure(message)
    return None


def _check_time(setting: Setting, clock: Clock) -> None:
    budget = setting.request.budget
    if clock.first_batch is None or clock.weights is None:
        return
    late = clock.weights - clock.first_batch - budget.train_seconds
    if late > budget.grace_seconds:
        raise TrialEnded(
            "invalid",
            f"overtime: the weights came {late:.1f} s after the budget of {budget.train_seconds:g} s; "
            f"{budget.grace_seconds:.1f} s are allowed",
        )


def _too_slow(setting: Setting, clock: Clock, now: float) -> str:
    budget = setting.request.budget
    if clock.first_batch is None:
        return (
            f"start-up took longer than its allowance of {budget.startup_seconds:g} s "
            "(import, build and compile, until the first real batch)"
        )
    doing = "write its weights" if clock.trained is not None else "return from train"
    return (
        f"the train child did not {doing}: killed {now - clock.first_batch:.1f} s "
        f"after the first batch, with a budget of {budget.train_seconds:g} s"
    )


def _measure(setting: Setting, clock: Clock, feeder: Child, child: Child) -> None:
    """Kill the child, let the feeder say its last count, and note the times."""
    facts = setting.facts
    child.measure_rss_mb()
    setting.watch.end(child)
    facts.peak_host_memory_mb = child.peak_rss_mb or None
    if facts.peak_memory_mb is None:
        facts.peak_memory_mb = facts.peak_host_memory_mb
    deadline = time.monotonic() + FEEDER_SECONDS
    with contextlib.suppress(TrialError, DataError, TrialEnded):
        while not clock.feed_over and feeder.returncode() is None and time.monotonic() < deadline:
            for source, message in setting.watch.step(deadline):
                if source is feeder:
                    _hear_feeder(setting, clock, message)
    for message in setting.watch.end(feeder):
        if isinstance(message, FirstBatch | FeedProgress | FeedEnded):
            _hear_feeder(setting, clock, message)
    if clock.first_batch is not None:
        facts.startup_seconds = clock.first_batch - clock.spawned
        if clock.trained is not None:
            facts.train_seconds = clock.trained - clock.first_batch
    elif clock.trained is not None:
        facts.startup_seconds = clock.trained - clock.spawned


def _count(value: float | None) -> int | None:
    """A claimed count, if a database can hold it."""
    return value if isinstance(value, int) and 0 <= value < 2**63 else None


def _amount(value: float | None) -> float | None:
    """A claimed amount, if it is one."""
    return float(value) if value is not None and 0 < value < float("inf") else None
