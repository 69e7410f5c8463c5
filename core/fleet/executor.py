"""The protocol of an executor, which runs trials on this machine's devices or on a fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autoresearch.core.errors import TrialError
from autoresearch.core.events import Observer
from autoresearch.core.trial.request import TrialRequest, TrialResult


class TrialLost(TrialError):  # noqa: N818 - named as what happened, like TrialCancelled
    """The machine was lost during a trial. This says nothing about the train file, so the trial is run again."""


class TrialMisplaced(TrialLost):
    """The trial ended on a device that is not the run's. The train file had no part in that."""


class Handle(Protocol):
    """A trial that was submitted."""

    def done(self) -> bool:
        """Return whether there is a result, or a reason why there is none."""
        ...

    def result(self, timeout: float | None = None) -> TrialResult:
        """Wait for the result.

        Raises `TimeoutError` after `timeout` seconds, `TrialError` if the trial never started, and `TrialLost` when its
        machine was lost.
        """
        ...

    def on_done(self, call: Callable[[], None]) -> None:
        """Call `call` from any thread once `done` returns true; at once if it does already."""
        ...

    def cancel(self) -> None:
        """Kill every process of the trial. Returns when none is left."""
        ...


class Executor(Protocol):
    """Runs trials, each on a slot of its own."""

    def capacity(self) -> int:
        """Count the trials that can run at once."""
        ...

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> Handle:
        """Start a trial, or queue it until a slot is free."""
        ...

    def close(self) -> None:
        """Cancel the running trials and release the devices."""
        ...
