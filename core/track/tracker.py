"""What an adapter to a tracker offers. One adapter a file, named like its library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

NAMES = ("trackio", "wandb", "mlflow", "tensorboard")
"""The libraries, and the modules here."""
PROJECT = "autoresearch"
"""Where a tracker groups runs, unless its own variable says otherwise."""

Value = float | int | str | bool | None


@dataclass(frozen=True)
class TrackedRun:
    """The run that is told of."""

    tag: str
    key: str
    """The same for every invocation that goes on with the run, and no other run's."""
    folder: Path
    """For what the tracker keeps with the run."""
    config: Mapping[str, Value]


class Tracker(Protocol):
    """Tells one library. Lives in a process of its own; what it raises is said to the person once."""

    def start(self, run: TrackedRun) -> str:
        """Begin, or go on with, the run. Returns where to look, in words."""
        ...

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """One decision; `step` counts them from 0."""
        ...

    def end(self, state: str, texts: Mapping[str, str]) -> None:
        """The loop ends; `state` is the run's."""
        ...
