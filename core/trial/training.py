"""The first half of a trial: the feeder, the train child and the clock, up to weights that nobody can change.

The feeder is a trusted process that hands out the text. The train child is not trusted. What it says of its loss and
its parameters is noted as a claim; every time is taken by the parent, when it hears of something. The weights are taken
from the child's work folder, checked and made read-only after the child has been killed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autoresearch.backends.contract import Device
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
from autoresearch.core.judge.futility import CurveWatch
from autoresearch.core.trial.child.channel import Failed, Profiled, WeightsWritten
from autoresearch.core.trial.compile_cache import Found
from autoresearch.core.trial.context import WEIGHTS, TrialContext, failure, gone
from autoresearch.core.trial.memory_file import MemoryFile
from autoresearch.core.trial.processes import (
    Child,
    Launch,
    TrialEnded,
    TrialInterrupted,
    how_it_ended,
    was_killed,
)
from autoresearch.core.trial.profile import TRACE, keep, read, with_weights
from autoresearch.core.trial.weights import (
    MEMORY_FROM_BYTES,
    FrozenWeights,
    Shapes,
    WeightsFault,
    WeightsInMemory,
    WeightsOnDisk,
    check_memory,
    check_weights,
    drop_weights,
    flops_per_token,
    memory_room,
    take_weights,
)

SLOW_START = "start-up took longer than its allowance"
"""First words of the reason for a trial whose first batch did not come in time."""
ANOTHER_KIND = "the train child computes on"
"""First words of the reason for a trial whose device was of another kind than the run's."""
FEEDER_SECONDS = 2.0
"""Seconds that the feeder may take to say how much it handed out, once the train child is gone."""


@dataclass
class Clock:
    """Moments of one trial, in monotonic seconds by the parent's clock; None for those that have not come."""

    spawned: float
    first_batch: float | None = None
    trained: float | None = None
    batches_after: int | None = None
    """The feeder's count of batches when it was first heard after `trained`."""
    distrusted: bool = False
    """True once the child has taken batches after it had said that it has trained: its word counts no more."""
    weights: float | None = None
    watch: CurveWatch = field(kw_only=True)
    """The curve of the training loss, and the rule by which the trial is ended early."""
    cpu_first: float | None = None
    """Processor seconds of the child at the first batch."""
    feed_over: bool = False
    """True once the feeder has given its last count."""
    feeder_status: int | None = None
    """Exit status of a feeder that ended before it was told to."""
    memory: MemoryFile | None = None
    """The file in memory that the child may write its weights to."""
    sealed: bool = False
    """True when that file was sealed at the moment `weights`."""


def train(
    context: TrialContext, near_end: Callable[[], None], lead_seconds: float, cache: Found | None = None
) -> FrozenWeights:
    """Train, and return the frozen weights, which the caller closes.

    `near_end` is called once, `lead_seconds` before the deadline, if training lasts as long. `cache` is copied into the
    train child's work folder. Raises `TrialEnded` for any other outcome, and `TrialInterrupted` where the feeder was
    killed.
    """
    with contextlib.ExitStack() as stack:
        room = memory_room()
        memory = stack.enter_context(MemoryFile()) if room >= MEMORY_FROM_BYTES else None
        work_fd, feeder, child = _start(context, stack, cache, memory, room)
        watch = CurveWatch(context.request.stop, context.request.budget.train_seconds)
        clock = Clock(spawned=child.started, watch=watch, memory=memory)
        try:
            try:
                announced = _wait_for_weights(context, clock, feeder, child, near_end, lead_seconds)
            finally:
                _measure(context, clock, feeder, child)
        except TrialEnded:
            # A child whose text stops coming may be the first to say that something is wrong.
            if was_killed(clock.feeder_status):
                raise _interrupted(context, clock.feeder_status or 0) from None
            raise
        # Nothing of the child runs any more (see `_measure`), so from here on the weights can only be what they are.
        try:
            shapes, frozen = _freeze(context, clock, work_fd, announced.sha256)
        except WeightsFault as fault:
            raise TrialEnded("invalid", str(fault)) from fault
        context.facts.flops_per_token = flops_per_token(shapes, context.vocab_size)
        if context.request.profile:
            context.facts.profile = with_weights(context.facts.profile, shapes)
            keep(context.facts.profile, context.record.folder, work_fd)
    context.record.event(Frozen())
    return frozen


def _freeze(context: TrialContext, clock: Clock, work_fd: int, sha256: str) -> tuple[Shapes, FrozenWeights]:
    """Take what the child has written, whose announced hash is `sha256`; return its tensors' shapes and the weights.

    Raises `WeightsFault`, or `TrialEnded` where they came too late.
    """
    limit, memory = context.request.weights_limit_mb * 2**20, clock.memory
    destination = context.record.folder / WEIGHTS
    drop_weights(destination)
    # The file first, then its time: how long writing may take depends on its real size, and not on a claim.
    if memory is not None and memory.size:
        # Not hashed by the child, so the seal must have been there when the clock read the moment of the weights.
        if not clock.sealed:
            raise WeightsFault("the weights were announced before they were sealed")
        _check_time(context, clock, memory.size)
        return check_memory(memory, limit_bytes=limit), WeightsInMemory(memory.shared())
    take_weights(work_fd, WEIGHTS, destination)
    _check_time(context, clock, destination.lstat().st_size)
    shapes = check_weights(destination, sha256=sha256, limit_bytes=limit)
    destination.chmod(0o444)
    return shapes, WeightsOnDisk(destination, sha256)


def _start(
    context: TrialContext, stack: contextlib.ExitStack, cache: Found | None, memory: MemoryFile | None, room: int
) -> tuple[int, Child, Child]:
    """Start the feeder and the train child, joined by a socket that nobody else holds.

    The child may write weights of `room` bytes into `memory`. Returns a descriptor of the work folder, the feeder and
    the child.
    """
    request = context.request
    with contextlib.ExitStack() as ours:
        # Both ends are closed here once the two processes hold them: a process that is gone then shows at the other.
        near, far = socket.socketpair()
        ours.callback(near.close)
        ours.callback(far.close)
        trace = context.inside("train", TRACE) if request.profile else None
        job: dict[str, Any] = {"budget_seconds": request.budget.train_seconds, "feed_fd": far.fileno(), "trace": trace}
        job |= {"memory_fd": memory.fd if memory else None, "memory_from": MEMORY_FROM_BYTES, "memory_room": room}
        launch = context.launch("train", job, (far.fileno(), *([memory.fd] if memory else [])))
        if cache is not None:
            cache.copy_to(launch.work)
        # Opened before the child runs: whatever it does with links and names later, this is its real work folder.
        work_fd = os.open(launch.work, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, work_fd)
        child = context.processes.start(launch)
        feeder = context.processes.start(_feeder(context, near.fileno()))
    return work_fd, feeder, child


def _feeder(context: TrialContext, socket_fd: int) -> Launch:
    request = context.request
    argv = [sys.executable, "-m", "autoresearch.core.data.feed"]
    argv += ["--prepared", str(context.prepared.folder.absolute()), "--vocab", str(context.vocab_size)]
    argv += ["--seed", str(request.seed), "--budget", str(request.budget.train_seconds)]
    argv += ["--socket-fd", str(socket_fd), "--events-fd", "{events}"]
    return Launch("feed", argv, context.record.work_folder("feed"), descriptors=(socket_fd,))


def _wait_for_weights(
    context: TrialContext, clock: Clock, feeder: Child, child: Child, near_end: Callable[[], None], lead_seconds: float
) -> WeightsWritten:
    """Return the message that announces the weights. Raises `TrialEnded` when it does not come in time."""
    budget = context.request.budget
    warned, early = False, budget.train_seconds - lead_seconds
    while True:
        # Two clocks one after the other: the start-up's until the first real batch, then the budget's. A file cannot
        # train in the first, because no batch of text is there yet.
        limit = clock.spawned + budget.startup_seconds
        if clock.first_batch is not None:
            limit = clock.first_batch + budget.hard_seconds
        if announced := _hear(context, clock, feeder, child, limit):
            return announced
        _check_prospects(context, clock, child)
        now = time.monotonic()
        if not warned and clock.first_batch is not None and now >= clock.first_batch + early:
            warned = True
            near_end()
        if now > limit:  # asked after hearing, so that weights which came in time are taken
            if clock.first_batch is None:
                context.facts.startup_seconds = now - clock.spawned
                context.facts.startup_cpu_seconds = child.cpu_seconds()
            raise TrialEnded("timeout", _too_slow(context, clock, now))
        if child.returncode() is not None:
            # A process may end right after its last message; what is still in the pipe counts.
            if announced := _hear(context, clock, feeder, child, now):  # what it said just before it ended
                return announced
            raise gone(child)
        if (status := feeder.returncode()) not in (None, 0):
            _hear(context, clock, feeder, child, now)
            if was_killed(status):
                raise _interrupted(context, status or 0)
            raise TrialError("the feeder stopped before the trial's end.", fix=f"see {context.record.log_path}.")


def _interrupted(context: TrialContext, status: int) -> TrialInterrupted:
    fix = f"see {context.record.log_path}, then give the same command again"
    return TrialInterrupted(f"the feeder {how_it_ended(status)}.", fix=fix)


def _hear(context: TrialContext, clock: Clock, feeder: Child, child: Child, limit: float) -> WeightsWritten | None:
    """Take in what has been said; return the message that announces the weights, if it is there."""
    messages = context.processes.step(limit)
    started = clock.first_batch is None
    for source, message in messages:  # the feeder's first: the child's may end the trial
        if source is feeder:
            _hear_feeder(context, clock, message)
    if started and clock.first_batch is not None:
        clock.cpu_first = child.cpu_seconds()
    for source, message in messages:
        if source is child and (announced := _hear_child(context, clock, message)):
            return announced
    return None


def _hear_feeder(context: TrialContext, clock: Clock, message: Message) -> None:
    match message:
        case FirstBatch():
            clock.first_batch = message.monotonic
            _distrust(clock)
            context.record.event(FirstBatch())
        case FeedProgress() | FeedEnded():
            context.facts.tokens, context.facts.batches = message.tokens, message.batches
            if clock.trained is not None and isinstance(message, FeedProgress):
                # A file that takes more batches has not trained, whatever was said: it would seem fast, and could no
                # longer be ended early.
                if clock.batches_after is not None and (message.batches or 0) > clock.batches_after:
                    _distrust(clock)
                else:
                    clock.batches_after = message.batches
            context.record.event(message)
            clock.feed_over = clock.feed_over or isinstance(message, FeedEnded)
        case DataFault():
            raise DataError(message.message)
        case BadRequest():
            context.record.event(message)


def _distrust(clock: Clock) -> None:
    """Forget that the child has said that it has trained, if it has: it was handed a batch after that."""
    if clock.trained is not None:
        clock.trained = clock.batches_after = None
        clock.distrusted = True


def _hear_child(context: TrialContext, clock: Clock, message: Message) -> WeightsWritten | None:
    """Note what the train child says; return its message if that announces the weights.

    Nothing of it is believed about time: each moment is when the parent hears of it.
    """
    facts = context.facts
    match message:
        case DeviceFound():
            # The first was sent before the train file was read; a later one may be forged.
            first, facts.device = facts.device is None, facts.device or message.device
            context.record.event(message)
            if first:
                check_kind(context.request.device_kind, message.device)
        case Startup():
            context.record.event(message)
        case Log():
            # What an adopted script prints is a line now and then: its batches say more.
            if context.request.upstream is None and (step := _count(message.step)) is not None:
                facts.steps = step
            if clock.first_batch is not None and clock.trained is None:
                clock.watch.note(_progress(context, clock), message.loss)
            context.record.event(message)
        case Trained():
            # Said again and again, it would keep a file from being ended early.
            if not clock.distrusted:
                clock.trained = clock.trained or time.monotonic()
            context.record.event(message)
        case Profiled() if context.request.profile:
            facts.profile = read(message)
        case WeightsWritten():
            clock.weights = time.monotonic()
            clock.sealed = clock.memory is not None and clock.memory.sealed
            facts.params, facts.peak_memory_mb = _count(message.params), _amount(message.peak_memory_mb)
            facts.claimed_flops_per_token = _amount(message.flops_per_token)
            facts.claimed_bpb = _finite(message.claimed_bpb)
            return message
        case Failed():
            raise failure(message)
    return None


def check_kind(expected: str | None, found: Device) -> None:
    """Raise `TrialEnded` where a child computes on another kind of device than its parent expects.

    A GPU that the sandbox hides, or a driver that went away, would otherwise show as nothing but a slow trial.
    """
    if expected is not None and found.kind != expected:
        raise TrialEnded(
            "crash",
            f"{ANOTHER_KIND} {found.kind} ({found.name}) and not on {expected}, as the run does: "
            "the device is gone or hidden from the sandbox; `ar doctor` says more",
        )


def _progress(context: TrialContext, clock: Clock) -> float:
    """Return the share of the budget that is used up, by the parent's clock: the child's own word is not asked."""
    return (
        0.0
        if clock.first_batch is None
        else (time.monotonic() - clock.first_batch) / context.request.budget.train_seconds
    )


def _check_prospects(context: TrialContext, clock: Clock, child: Child) -> None:
    """Raise `TrialEnded` when the request's rule ends the trial early. A file that has trained is left to finish."""
    if clock.first_batch is None or clock.trained is not None:
        return

    def busy() -> float | None:
        used, seconds = _processor_seconds(clock, child), time.monotonic() - (clock.first_batch or 0.0)
        return None if used is None or seconds <= 0.0 else used / seconds

    stop = clock.watch.look(_progress(context, clock), context.facts.tokens or 0, busy)
    if stop is not None:
        context.facts.stop = stop
        raise TrialEnded("stopped", stop.reason)


def _check_time(context: TrialContext, clock: Clock, weights_bytes: int) -> None:
    """Raise `TrialEnded` when the weights came later than the last step and writing so many bytes explain.

    A step is as long as the batches were on average, by the feeder's count and the parent's clock.
    """
    budget = context.request.budget
    if clock.first_batch is None or clock.weights is None:
        return
    # The feeder stops at the deadline, so this limits what can be done without new text: train on what was kept.
    late = clock.weights - clock.first_batch - budget.train_seconds
    allowed = budget.grace_seconds(weights_bytes, budget.train_seconds / max(1, context.facts.batches or 1))
    if clock.trained is not None and clock.weights - clock.trained > allowed:
        # Writing does not take so long: the file went on with something, and must not seem as much faster.
        context.facts.train_seconds = clock.weights - clock.first_batch
    if late > allowed:
        raise TrialEnded(
            "invalid",
            f"overtime: the weights came {late:.1f} s after the budget of {budget.train_seconds:g} s; "
            f"{allowed:.1f} s are allowed",
        )


def _too_slow(context: TrialContext, clock: Clock, now: float) -> str:
    budget = context.request.budget
    if clock.first_batch is None:
        return f"{SLOW_START} of {budget.startup_seconds:g} s (import, build and compile, until the first real batch)"
    end = "return from train" if context.request.upstream is None else "stop training when its batches were over"
    doing = "write its weights" if clock.trained is not None else end
    return (
        f"the train child did not {doing}: killed {now - clock.first_batch:.1f} s "
        f"after the first batch, with a budget of {budget.train_seconds:g} s"
    )


def _processor_seconds(clock: Clock, child: Child) -> float | None:
    """Return the processor time since the first batch; None where it cannot be told."""
    if clock.cpu_first is None or (used := child.cpu_seconds()) is None:
        return None
    return max(0.0, used - clock.cpu_first)


def _measure(context: TrialContext, clock: Clock, feeder: Child, child: Child) -> None:
    """Kill the child, let the feeder give its last count, and note the times."""
    facts = context.facts
    facts.curve = clock.watch.curve
    # Once more while it still exists: a child that was quick may never have been looked at.
    child.measure_memory_mb()
    facts.cpu_seconds = _processor_seconds(clock, child)
    stopped = time.monotonic()
    context.processes.end(child)
    facts.peak_host_memory_mb = child.peak_rss_mb or None
    if facts.peak_memory_mb is None:
        facts.peak_memory_mb = facts.peak_host_memory_mb
    # With the child's end of the socket closed the feeder ends by itself, after one more count.
    deadline = time.monotonic() + FEEDER_SECONDS
    with contextlib.suppress(TrialError, DataError, TrialEnded):
        while not clock.feed_over and feeder.returncode() is None and time.monotonic() < deadline:
            for source, message in context.processes.step(deadline):
                if source is feeder:
                    _hear_feeder(context, clock, message)
    clock.feeder_status = feeder.returncode()
    for message in context.processes.end(feeder):
        if isinstance(message, FirstBatch | FeedProgress | FeedEnded):
            _hear_feeder(context, clock, message)
    if clock.first_batch is not None:
        facts.startup_seconds = clock.first_batch - clock.spawned
        facts.startup_cpu_seconds = clock.cpu_first
        if clock.trained is not None:
            facts.train_seconds = clock.trained - clock.first_batch
        elif clock.weights is not None:
            facts.train_seconds = clock.weights - clock.first_batch
        elif facts.stop is not None:  # its speed is of use: a stopped trial on a busy machine is run again
            facts.train_seconds = stopped - clock.first_batch
    elif clock.trained is not None:  # `train` asked for no batch
        facts.startup_seconds = clock.trained - clock.spawned


def _count(value: float | None) -> int | None:
    """Return a claimed count if a database can hold it, else None."""
    return value if isinstance(value, int) and 0 <= value < 2**63 else None


def _finite(value: float | None) -> float | None:
    """Return a claimed number if it is finite, else None."""
    return float(value) if value is not None and abs(value) < float("inf") else None


def _amount(value: float | None) -> float | None:
    """Return a claimed amount if it is a positive finite number, else None."""
    return float(value) if value is not None and 0 < value < float("inf") else None
