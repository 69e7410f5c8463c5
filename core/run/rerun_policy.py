"""Trials that say nothing about their source: the machine slept, slowed down, ran out of disk, or lost its device."""

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
"""A gap this long is a machine that slept, not a clock that was read late."""
SLOW_AGAIN, SLOW_FIRST = 0.6, 0.3
"""Share of the usual tokens/s below which a trial is run once more: of the same source's trials, and, because a larger
model is slower by right, of the incumbent's for a source's first."""
FULL_BYTES = 16 * 2**20


def asleep_seconds() -> float:
    """A clock that moves only while the machine sleeps, whatever happens to the time of day. Differences count."""
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux: monotonic leaves sleep out, boottime does not
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if sys.platform == "darwin":  # there the raw clock counts sleep, and Python's monotonic does not
        return time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - time.monotonic()
    return time.time() - time.monotonic()


def speeds(trials: Iterable[TrialRow]) -> list[float]:
    """Tokens/s of those that have any."""
    return [float(speed) for trial in trials if (speed := trial.result.get("tokens_per_second"))]


def spoiled(
    result: TrialResult, *, slept: float, same: Sequence[float], incumbent: Sequence[float], repeated: bool
) -> str | None:
    """Why a trial must be run again, unjudged; None when its result counts.

    `same` are the tokens/s of earlier trials of its source, `incumbent` those of the best. Slowness is believed the
    second time (`repeated`).
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
    """Whether there is no room left for a trial's files."""
    try:
        return shutil.disk_usage(folder).free < FULL_BYTES
    except OSError:
        return False


DEVICE_WORDS = (
    *("cuda error", "cuda driver", "no cuda gpus are available", "hip error", "nccl", "device-side"),
    *("device lost", "gpu is lost", "command buffer execution failed", "no metal device"),
)
"""Of failures that may be the device's fault, not the train file's. Running out of memory is the train file's."""
PAUSES_SECONDS = (5.0, 15.0, 40.0)
"""Before each further look for a device that is gone: a driver that restarts takes about half a minute."""


class DeviceWatch:
    """Tells a train file that fails from a device that is gone."""

    def __init__(
        self,
        backend: str,
        machine: str,
        probe: Callable[[str], Device] = probe_device,
        pauses: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        """`machine` is what the run uses, as `Device.words` says it."""
        self.backend, self.machine = backend, machine
        self._probe, self._pauses = probe, pauses

    def suspect(self, result: TrialResult, *, repeated: bool, stopped: Callable[[], bool]) -> str | None:
        """Why a failed trial must be run again, unjudged; None when the failure is its own.

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
        """What a look at the device finds wrong."""
        try:
            found = self._probe(self.backend).words()
        except ArError as error:
            return error.message.rstrip(".")
        return f"found {found} in place of {self.machine}" if self.machine and found != self.machine else None


def _wait(seconds: float, stopped: Callable[[], bool]) -> bool:
    """Whether it could be waited out: a person may want to stop."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if stopped():
            return False
        time.sleep(min(0.2, seconds))
    return True


def machine_moved(last: TrialRow | None, machine: str) -> str | None:
    """What to tell when a run goes on elsewhere than its last trial; None when it does not."""
    there = last.result.get("machine") if last is not None else None
    if not there or not machine or there == machine:
        return None
    return (
        f"this run's last trial ran on {there}, and this is {machine}: scores do not compare, so the baseline and the "
        "best are measured again here before anything is judged"
    )
