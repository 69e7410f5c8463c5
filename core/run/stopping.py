"""Limits of a loop, the reason for its end, and the wish of a person to stop it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from autoresearch.core.store.rows import RunState


@dataclass(frozen=True)
class Limits:
    """Limits of one loop. None is no limit."""

    experiments: int | None = None
    """Decided experiments in the run, earlier invocations included, without the baseline."""
    hours: float | None = None
    """Hours of this invocation."""
    submission: str | None = None
    """Submission whose verdict ends this invocation."""


@dataclass(frozen=True)
class Ending:
    """State, reason and exit code with which a loop ended."""

    state: RunState
    reason: str
    exit_code: int


class Stop:
    """Carries a person's wish to stop from a signal handler to the loop. Both methods are safe to call from one."""

    def __init__(self) -> None:
        self.wish: Literal["go on", "finish", "kill"] = "go on"
        self.exit_code = 0
        self._proposing = False

    def finish(self, exit_code: int = 130) -> None:
        """Finish the trials that run, then stop."""
        if self.wish == "go on":
            self.wish, self.exit_code = "finish", exit_code

    def kill(self, exit_code: int) -> None:
        """Stop now. Trials that run are killed, and run again when the run is resumed."""
        self.wish, self.exit_code = "kill", exit_code
        # The main thread may wait minutes for a network inside a researcher. Only an exception gets it out of there.
        if self._proposing:
            raise KeyboardInterrupt

    @contextmanager
    def proposing(self) -> Iterator[None]:
        """Mark a block in which a researcher works in this thread: `kill` may interrupt it."""
        self._proposing = True
        try:
            yield
        finally:
            self._proposing = False
