"""The loop's time. A simulation passes its own, so that hours of trials take seconds."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A clock that the loop reads and waits by."""

    def monotonic(self) -> float:
        """Return seconds since a fixed moment; never goes back."""
        ...

    def wait(self, news: threading.Event, seconds: float) -> None:
        """Return when `news` is set, after `seconds` at the latest. Called only when the loop has nothing to do."""
        ...


class SystemClock:
    """This machine's time."""

    def monotonic(self) -> float:
        """Return the time of `time.monotonic`."""
        return time.monotonic()

    def wait(self, news: threading.Event, seconds: float) -> None:
        """Wait for `news`."""
        news.wait(seconds)
