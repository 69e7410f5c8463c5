"""Which trials are run again, unjudged: the machine slept, slowed down, ran out of disk, or lost its device.

Such a trial says nothing about its source.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from autoresearch.backends.contract import Device
from autoresearch.core.errors import ArError, PrerequisiteError
from autoresearch.core.store.rows import TrialRow
from autoresearch.core.trial.device import probe_device
from autoresearch.core.trial.request import TrialResult

SLEEP_SECONDS = 5.0
"""Seconds of sleep from which on a trial is run again. Shorter gaps are clocks that were read late."""
SLOW_AGAIN, SLOW_FIRST = 0.6, 0.3
"""Shares of the usual tokens/s below which a trial is run once more. The first is of other trials of the same source.
The second, for a source's first trial, is of the incumbent's, and lower because a larger model is slower by right."""
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


def spoiled(
    result: TrialResult, *, slept: float, same: Sequence[float], incumbent: Sequence[float], repeated: bool
) -> str | None:
    """Return the reason to run a trial again, unjudged; None when its result counts.

    `slept` is in seconds. `same` are the tokens/s of earlier trials of its source, `incumbent` those of the best file.
    A trial that was `repeated` counts even when it is slow: then the source is slow, not the machine.
    """
    if slept > SLEEP_SECONDS:
        return f"the machine slept for {slept:.0f} s during the trial"
    if repeated or result.status != "ok" or not result.tokens_per_second:
        return None
    for usual, share in ((same, SLOW_AGAIN), (() if same else incumbent, SLOW_FIRST)):
        if usual and result.tokens_per_second < share * statistics.median(usual):
            return (
                f"{result.tokens_per_second:,.0f} tokens/s, where {statistics.median(usual):,.0f} are usual: "
                "the machine was hot or busy"
            )
    return None


def disk_is_full(folder: Path) -> bool:
    """Tell whether a disk has no room left for a trial's files. A disk that cannot be asked is not full."""
    try:
        return shutil.disk_usage(folder).free < FULL_BYTES
    except OSError:
        return False


DEVICE_WORDS = (
    *("cuda error", "cuda driver", "no cuda gpus are available", "hip error", "nccl", "device-side"),
    *("device lost", "gpu is lost", "command buffer execution failed", "no metal device"),
)
"""Words of errors that may be the device's fault. Running out of memory is the train file's, so it is not here."""
PAUSES_SECONDS = (5.0, 15.0, 40.0)
"""Seconds before each further look for a lost device. A driver that restarts takes about half a minute."""


class DeviceWatch:
    """Tells a train file that fails from a device that is gone."""

    def __init__(
        self,
        backend: str,
        machine: str,
        probe: Callable[[str], Device] = probe_device,
        pauses: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        """`machine` is the run's, by `Device.description`; "" accepts any. `probe` looks for a backend's device."""
        self.backend, self.machine = backend, machine
        self._probe, self._pauses = probe, pauses

    def suspect(self, result: TrialResult, *, repeated: bool, stopped: Callable[[], bool]) -> str | None:
        """Return the reason to run a failed trial again, unjudged; None when the failure is the train file's own.

        Looks for the device after every crash and timeout. Raises `PrerequisiteError` when it stays away.
        """
        if result.status not in ("crash", "timeout"):
            return None
        trouble = self._missing()
        if trouble is not None:
            for pause in self._pauses:
                if not _wait(pause, stopped):
                    break
                if self._missing() is None:
                    return f"the device was gone ({trouble}) and is back"
            raise PrerequisiteError(
                f"the device is gone: {trouble}. The trial that was running is not counted.",
                fix="bring it back (a reboot, or the driver's own tools), then give the same command again",
            )
        said = " ".join((result.reason or "").lower().split())
        if not repeated and "memory" not in said and any(words in said for words in DEVICE_WORDS):
            return f"it may have been the device's fault: {result.reason}"
        return None

    def _missing(self) -> str | None:
        """Look at the device; return what is wrong, or None."""
        try:
            found = self._probe(self.backend).description()
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
