"""Which trials are run again, unjudged: the machine slept, slowed down, ran out of disk, or lost its device.

A trial whose scoring took too long, whose start-up was kept from its processor, or that the system killed, is run again
once, too.

Such a trial says nothing about its source.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from autoresearch.backends.contract import Device
from autoresearch.core.errors import ArError, PrerequisiteError, SourceError
from autoresearch.core.judge.futility import UNDISTURBED
from autoresearch.core.store.rows import COMPUTES_ITSELF, TrialRow, processors
from autoresearch.core.trainfile.constants import read_constants
from autoresearch.core.trial.device import probe_device
from autoresearch.core.trial.processes import KILLED
from autoresearch.core.trial.request import TrialResult
from autoresearch.core.trial.training import ANOTHER_KIND, SLOW_START

SLEEP_SECONDS = 5.0
"""Seconds of sleep from which on a trial is run again. Shorter gaps are clocks that were read late."""
SLOW_AGAIN, SLOW_FIRST = 0.6, 0.3
"""Shares of the usual tokens/s below which a trial is run once more. The first is of other trials of the same source.
The second, for a source's first trial, is of the incumbent's, and lower because a larger model is slower by right."""
FREE_RERUNS, RERUNS_PER_EXPERIMENT = 3, 0.5
"""Slow trials that a run may run again: some at its start, and some for each experiment. A machine that is always busy
would double the price of every trial."""
EXCUSES = 1
"""Trials of one file in one experiment that may be run again because they were slow, or failed as if it were the
device's fault."""
FULL_BYTES = 16 * 2**20
"""Free bytes below which a disk counts as full."""


def asleep_seconds() -> float:
    """Return a clock in seconds that moves only while the machine sleeps. Only differences mean anything."""
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux: monotonic leaves sleep out, boottime does not
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if sys.platform == "darwin":  # there the raw clock counts sleep, and Python's monotonic does not
        return time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - time.monotonic()
    return time.time() - time.monotonic()


def speeds(trials: Iterable[TrialRow]) -> list[float]:
    """Return the tokens/s of the trials that have any."""
    return [float(speed) for trial in trials if (speed := trial.result.get("tokens_per_second"))]


@dataclass(frozen=True)
class Pace:
    """The usual pace of trials that a trial is held against, without those that were slow themselves."""

    batches: tuple[float, ...] = ()
    """Batches a second of trials of files with the same shape."""
    processors: tuple[float, ...] = ()
    """Processors that training kept busy."""
    starting: tuple[float, ...] = ()
    """Processors that start-ups kept busy."""
    here: float | None = None
    """Batches a second of the best file on the slot where the trial ran, as a share of those on the others; None where
    it was not measured on both."""


def pace(alike: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]] = ()) -> Pace:
    """Return the usual pace from the results of trials of files with the same shape, and of `others`."""
    alike, others = ([one for one in some if one.get("status") == "ok"] for some in (alike, others))
    rates = [found for one in alike if (found := batches_per_second(one))]
    busy, starting = (
        [found for one in (*alike, *others) if (found := count(one))] for count in (processors, _starting_processors)
    )
    return Pace(_usual(rates), _usual(busy), _usual(starting))


def slot_pace(best: Iterable[Mapping[str, Any]], place: str | None) -> float | None:
    """Return the speed of a slot by the best file's trials there, as a share of the usual one on the other slots.

    `best` are the results of the best file's trials. None where it has no batches on this slot, or on no other one.
    """
    known = [
        (one.get("place"), rate) for one in best if one.get("status") == "ok" and (rate := batches_per_second(one))
    ]
    here, others = ([rate for at, rate in known if at and (at == place) is mine] for mine in (True, False))
    return statistics.median(here) / statistics.median(others) if place and here and others else None


def _usual(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(one for one in values if one >= SLOW_AGAIN * max(values))


def batches_per_second(result: Mapping[str, Any]) -> float | None:
    """Return the batches a second; None where they are not known.

    The feeder has counted them: a file that says how many steps it made could call its own bad trial slow, and have it
    run again. Results of earlier versions only have the file's count of steps.
    """
    batches, seconds = result.get("batches") or result.get("steps"), result.get("train_seconds")
    return batches / seconds if batches and seconds else None


def same_shape(one: str, other: str) -> bool:
    """Tell whether two train files take equally long steps, by their constants: all but fractions must be equal.

    A file whose code is slower by right is only run once more for it.
    """
    try:
        sizes = [
            {name: value for name, value in read_constants(source).items() if not isinstance(value, float)}
            for source in (one, other)
        ]
    except SourceError:
        return False
    return bool(sizes[0]) and sizes[0] == sizes[1]


def spoiled(
    result: TrialResult,
    *,
    slept: float,
    same: Sequence[float],
    incumbent: Sequence[float],
    repeated: bool,
    usual: Pace = Pace(),
) -> str | None:
    """Return the reason to run a trial again, unjudged; None when its result counts.

    `slept` is in seconds. `same` are the tokens/s of earlier trials of its source, `incumbent` those of the best file,
    `usual` the pace of trials that compare. A trial that was `repeated` counts even when it is slow.
    """
    if slept > SLEEP_SECONDS:
        return f"the machine slept for {slept:.0f} s during the trial"
    if repeated:
        return None
    if result.status == "timeout" and result.eval_seconds is not None:
        # Each batch has the time that it should take by the speed of the training. A machine that became busy after the
        # training takes longer; a file whose `logits` does takes as long again.
        return f"{result.reason}: the machine may have been busy"
    if result.status == "crash" and KILLED in (result.reason or ""):
        # A file that takes more than its own share ends in other words. The system kills for what all programs take
        # together, other trials on this machine included.
        return f"{result.reason}: other work may have taken it"
    if (words := slow_start(result, usual)) is not None:
        return words
    return slow(result, same=same, incumbent=incumbent, usual=usual)


def slow(
    result: TrialResult, *, same: Sequence[float] = (), incumbent: Sequence[float] = (), usual: Pace = Pace()
) -> str | None:
    """Return in words how the machine made a trial slower than others; None when it did not, or the trial has failed.

    A file that is slow by itself, as `slower_file` tells, is none of the machine's doing.
    """
    if result.status not in ("ok", "stopped"):
        return None
    if result.tokens_per_second and same and result.tokens_per_second < SLOW_AGAIN * statistics.median(same):
        return f"{_speed(result.tokens_per_second, same)}: the machine was hot or busy"
    lag = _lag(result, same, incumbent, usual)
    if lag is not None and not _undisturbed(result, usual):
        if usual.here is not None and usual.here < UNDISTURBED:
            return f"{lag}: {result.place} is slow, the best file gets {usual.here:.0%} of its usual batches there"
        return f"{lag}: the machine was hot or busy"
    busy, rate = processors(_facts(result)), batches_per_second(_facts(result))
    fewer = rate and usual.batches and rate < UNDISTURBED * statistics.median(usual.batches)
    # Both together are the machine's doing. A few processors less alone may be the file's: a smaller model has less to
    # share out.
    least = UNDISTURBED if fewer and _computes_itself(result) else SLOW_AGAIN
    if busy and usual.processors and busy < least * statistics.median(usual.processors):
        return (
            f"its training got {busy:.2f} processors, where {statistics.median(usual.processors):.2f} are usual: "
            "the machine was busy"
        )
    return None


def slow_start(result: TrialResult, usual: Pace = Pace()) -> str | None:
    """Return in words how the machine kept a start-up that took too long from its processor; None where it did not.

    A start-up computes on one processor at least, unless other trials of the run show that it waits for other things.
    """
    if result.status != "timeout" or not (result.reason or "").startswith(SLOW_START):
        return None
    busy = _starting_processors(result.model_dump(include={"startup_seconds", "startup_cpu_seconds"}))
    expected = statistics.median(usual.starting) if usual.starting else 1.0
    if busy is None or busy >= SLOW_AGAIN * expected:
        return None
    return (
        f"{result.reason}: it got {busy:.2f} processors, where {expected:.2f} are usual: the machine may have been busy"
    )


def _starting_processors(result: Mapping[str, Any]) -> float | None:
    """Return the number of processors that a start-up kept busy on average; None where it is not known."""
    used, seconds = result.get("startup_cpu_seconds"), result.get("startup_seconds")
    return used / seconds if used is not None and seconds else None


def slower_file(
    result: TrialResult, *, same: Sequence[float] = (), incumbent: Sequence[float] = (), usual: Pace = Pace()
) -> str | None:
    """Return in words how a file is slower than the best one by itself; None where it is not, or nobody can tell.

    On a processor, a trial that got the usual share of it was not disturbed, so that its steps are slow by design. On
    other devices processor time does not tell; there the best file's steps on the same slot do.
    """
    if result.status not in ("ok", "stopped"):
        return None
    lag = _lag(result, same, incumbent, usual)
    if not lag or not _undisturbed(result, usual):
        return None
    why = "with the usual processor time" if _computes_itself(result) else f"and the best file is not on {result.place}"
    return f"{lag}, {why}: the file is slower"


def _lag(result: TrialResult, same: Sequence[float], incumbent: Sequence[float], usual: Pace) -> str | None:
    """Return in words how a trial was slower than those of other sources; None where it was not."""
    speed, rate = result.tokens_per_second, batches_per_second(_facts(result))
    if speed and incumbent and not same and speed < SLOW_FIRST * statistics.median(incumbent):
        return _speed(speed, incumbent)
    if rate and usual.batches and rate < SLOW_AGAIN * statistics.median(usual.batches):
        median = statistics.median(usual.batches)
        return f"{rate:.3g} batches a second, where {median:.3g} are usual for files of this shape"
    return None


def _undisturbed(result: TrialResult, usual: Pace) -> bool:
    busy = processors(_facts(result))
    if not _computes_itself(result):
        return usual.here is not None and usual.here >= UNDISTURBED
    if not busy or not usual.processors:
        return False
    return busy >= UNDISTURBED * statistics.median(usual.processors)


def _computes_itself(result: TrialResult) -> bool:
    return result.device_kind in COMPUTES_ITSELF


def _speed(speed: float, others: Sequence[float]) -> str:
    return f"{speed:,.0f} tokens/s, where {statistics.median(others):,.0f} are usual"


def _facts(result: TrialResult) -> dict[str, Any]:
    return result.model_dump(include={"batches", "steps", "train_seconds", "cpu_seconds"})


def disk_is_full(folder: Path) -> bool:
    """Tell whether a disk has no room left for a trial's files. A disk that cannot be asked is not full."""
    try:
        return shutil.disk_usage(folder).free < FULL_BYTES
    except OSError:
        return False


DEVICE_WORDS = (
    *("cuda error", "cuda driver", "no cuda gpus are available", "hip error", "nccl", "device-side"),
    *(
        "device lost",
        "gpu is lost",
        ANOTHER_KIND,
        "command buffer execution failed",
        "no metal device",
    ),
)
"""Words of errors that may be the device's fault. Running out of memory is the train file's, so it is not here."""
PAUSES_SECONDS = (5.0, 15.0, 40.0)
"""Seconds before each further look for a lost device. A driver that restarts takes about half a minute."""


class SlotDevices(Protocol):
    """The devices of this machine that trials run on, each known by a result's `place`."""

    def device_of(self, place: str | None) -> tuple[tuple[str, str], ...]:
        """Return the variables that choose the device of that place; none where there is no choice."""
        ...

    def give_up(self, place: str | None) -> bool:
        """Start no further trial at that place, if it has a device of its own and others are left.

        Return whether it gets none.
        """
        ...


class DeviceWatch:
    """Tells a train file that fails from a device that is gone."""

    def __init__(
        self,
        backend: str,
        machine: str,
        probe: Callable[[str, Sequence[tuple[str, str]]], Device] = probe_device,
        pauses: Sequence[float] = PAUSES_SECONDS,
        devices: SlotDevices | None = None,
    ) -> None:
        """`machine` is the run's, by `Device.description`; "" accepts any. `probe` looks for a backend's device.

        `devices` says which one a trial ran on; without, it is the first.
        """
        self.backend, self.machine = backend, machine
        self._probe, self._pauses, self._devices = probe, pauses, devices

    def lost(self, result: TrialResult, *, stopped: Callable[[], bool]) -> str | None:
        """Return how a failed trial lost its device, which is back or given up by now; None when it is there.

        Looks for the trial's device after every crash and timeout. Raises `PrerequisiteError` when it stays away and
        there is no other.
        """
        if result.status not in ("crash", "timeout"):
            return None
        environment = () if self._devices is None else self._devices.device_of(result.place)
        trouble = self._missing(environment)
        if trouble is None:
            return None
        for pause in self._pauses:
            if not _wait(pause, stopped):
                break
            if self._missing(environment) is None:
                return f"the device was gone ({trouble}) and is back"
        if self._devices is not None and self._devices.give_up(result.place):
            return f"{result.place} is gone ({trouble}), and gets no further trial"
        raise PrerequisiteError(
            f"the device is gone: {trouble}. The trial that was running is not counted.",
            fix="bring it back (a reboot, or the driver's own tools), then give the same command again",
        )

    def suspect(self, result: TrialResult, *, repeated: bool) -> str | None:
        """Return the reason to run a failed trial again, unjudged, for what it says; None where it says nothing so."""
        if result.status not in ("crash", "timeout"):
            return None
        said = " ".join((result.reason or "").lower().split())
        # A device that is the processor itself has no driver whose fault it could be; one may stand in for a lost one.
        device = result.device_kind not in COMPUTES_ITSELF or said.startswith(ANOTHER_KIND)
        if not repeated and device and "memory" not in said and any(words in said for words in DEVICE_WORDS):
            return f"it may have been the device's fault: {result.reason}"
        return None

    def _missing(self, environment: Sequence[tuple[str, str]]) -> str | None:
        """Look at the device that these variables choose; return what is wrong, or None."""
        try:
            found = self._probe(self.backend, environment).description()
        except ArError as error:
            return error.message.rstrip(".")
        return f"found {found} in place of {self.machine}" if self.machine and found != self.machine else None


def _wait(seconds: float, stopped: Callable[[], bool]) -> bool:
    """Wait; return False at once when a person wants to stop."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if stopped():
            return False
        time.sleep(min(0.2, seconds))
    return True


def machine_moved(last: TrialRow | None, machine: str) -> str | None:
    """Return a notice for a run whose last trial ran on another machine; None otherwise."""
    there = last.result.get("machine") if last is not None else None
    if not there or not machine or there == machine:
        return None
    return (
        f"this run's last trial ran on {there}, and this is {machine}: scores do not compare, so the baseline and the "
        "best file are measured again here before anything is judged"
    )
