"""Ctrl-C while the loop runs: first finish the trial, then kill it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from autoresearch.core.loop import Stop

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


@contextmanager
def listen(stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Turn signals into wishes inside the block. Must be entered in the main thread."""

    def tell(message: str) -> None:
        # A handler that comes in the middle of a write to stderr may not write there; the wish counts all the same.
        with suppress(RuntimeError):
            say(message)

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if stop.wish == "go on":
            tell("stopping after the current trial; press Ctrl-C again to kill it (it is run again when you go on)")
            stop.finish(EXIT_INTERRUPTED)
        else:
            tell("killing the current trial")
            stop.kill(EXIT_INTERRUPTED)

    def terminated(_number: int, _frame: FrameType | None) -> None:
        stop.kill(EXIT_TERMINATED)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, interrupted),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminated),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
