"""Trials that say nothing about their source: the machine slept, slowed down, or ran out of disk."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from autoresearch.core.store.rows import TrialRow
from autoresearch.core.trial.result import TrialResult

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


def spoiled(
    result: TrialResult, *, slept: float, same: Sequence[TrialRow], incumbent: Sequence[TrialRow], repeated: bool
) -> str | None:
    """Why a trial must be run again, unjudged; None when its result counts.

    `same` are earlier trials of the same source. Slowness is believed the second time (`repeated`).
    """
    if slept > SLEEP_SECONDS:
        return f"the machine slept for {slept:.0f} s during the trial"
    if repeated or result.status != "ok" or not result.tokens_per_second:
        return None
    for trials, share in ((same, SLOW_AGAIN), (() if same else incumbent, SLOW_FIRST)):
        usual = [float(speed) for trial in trials if (speed := trial.result.get("tokens_per_second"))]
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
