"""TensorBoard: writes event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorboard.summary import Writer

from autoresearch.core.track.tracker import TrackedRun


class TensorboardTracker:
    """Writes numbers only. TensorBoard has no place for a decision's texts."""

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, run: TrackedRun) -> str:
        """Begin a new event file. TensorBoard shows all files of a folder as one run."""
        folder = run.folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(str(folder))
        return f"tensorboard --logdir {folder.parent.parent}"

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Write one point of every curve."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step, wall_time=numbers["decided"])
        self._writer.flush()

    def end(self, state: str, texts: Mapping[str, str]) -> None:
        """Close the event file."""
        self._writer.close()


TRACKER = TensorboardTracker
