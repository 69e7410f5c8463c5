"""The interface between ar and an experiment tracker, and which trackers there are."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PROJECT = "autoresearch"
"""The project that a tracker groups runs under, unless its own environment variable names another."""

Value = float | int | str | bool | None


def tracker_names() -> tuple[str, ...]:
    """List the trackers by the files in `adapters`, sorted. A name is the library's, its extra's and the file's."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "adapters")])))


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker is told about."""

    tag: str
    key: str
    """An identifier that stays the same when the run is resumed, and that no other run has."""
    folder: Path
    """The run's folder, where a tracker may keep files."""
    config: Mapping[str, Value]


class Tracker(Protocol):
    """Reports to one library. It lives in a process of its own; the first exception that it raises is shown once."""

    def start(self, run: TrackedRun) -> str:
        """Start the run in the tracker, or resume it. Returns where a person finds it, in words."""
        ...

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Report one decision. `step` counts decisions from 0; `numbers["decided"]` is Unix seconds."""
        ...

    def end(self, state: str, texts: Mapping[str, str]) -> None:
        """Report the end of the loop. `state` is the run's state in the ledger: "finished", "interrupted" ..."""
        ...
