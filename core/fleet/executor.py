"""Where a trial runs, as a protocol: one device at home, or a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from autoresearch.core.errors import TrialError
from autoresearch.core.trial.request import TrialRequest, TrialResult

Observer = Callable[[Mapping[str, Any]], None]
"""Is told what happens while it happens: {"event": "spawned" | "log" | ..., ...}. Must be cheap, must not raise."""


class TrialLost(TrialError):  # noqa: N818 - named as what happened, like TrialCancelled
    """The machine went away during a trial: it says nothing about the train file, and is run again."""


class Handle(Protocol):
    """A trial in flight."""

    def done(self) -> bool:
        """Whether there is a result."""
        ...

    def result(self, timeout: float | None = None) -> TrialResult:
        """Wait for the result. Raises `TimeoutError` after `timeout` seconds, `TrialError` if it never started.

        Raises `TrialLost` when its machine went away.
        """
        ...

    def on_done(self, call: Callable[[], None]) -> None:
        """Call back, from any thread, once `done` holds; at once where it does already."""
        ...

    def cancel(self) -> None:
        """Kill every process of the trial; returns when none is left."""
        ...


class Executor(Protocol):
    """Runs trials. Implementations must give every trial a device of its own."""

    def capacity(self) -> int:
        """How many trials run at once."""
        ...

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> Handle:
        """Start a trial, or queue it."""
        ...

    def close(self) -> None:
        """Cancel what is in flight and let go of the devices."""
        ...
