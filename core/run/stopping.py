"""When a loop ends: its limits, and what a person asks for while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from autoresearch.core.store.rows import RunState


@dataclass(frozen=True)
class Limits:
    """When to end. None is never."""

    experiments: int | None = None
    """Decided experiments in the run, those of earlier invocations included and the baseline not."""
    hours: float | None = None
    """Of this invocation."""


@dataclass(frozen=True)
class Ending:
    """Why the loop ended."""

    state: RunState
    reason: str
    exit_code: int


class Stop:
    """What a person asked for while the loop runs. Its two methods are safe to call from a signal handler."""

    def __init__(self) -> None:
        self.wish: Literal["go on", "finish", "kill"] = "go on"
        self.exit_code = 0
        self._proposing = False

    def finish(self, exit_code: int = 130) -> None:
        """Finish the trials that run, then stop."""
        if self.wish == "go on":
            self.wish, self.exit_code = "finish", exit_code

    def kill(self, exit_code: int) -> None:
        """Stop now; trials that run are killed, and run again when the run goes on."""
        self.wish, self.exit_code = "kill", exit_code
        if self._proposing:
            raise KeyboardInterrupt

    @contextmanager
    def proposing(self) -> Iterator[None]:
        """A researcher is at work in this thread: `kill` may interrupt it, for it may wait on a network for minutes."""
        self._proposing = True
        try:
            yield
        finally:
            self._proposing = False
