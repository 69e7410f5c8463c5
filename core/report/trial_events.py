"""What a trial's events.jsonl says, while it is written and afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

HUGE = 1e100
"""A train file may log any number, and there are integers that no float can hold."""
READ_BYTES = 4 * 2**20
"""At most this much at once: the file is written by whoever runs the train file, and may be long."""


class EventFollower:
    """Gives the events that were added to a file since the last look. A line that is not whole yet waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset, self._rest = 0, b""

    def new(self) -> Iterator[dict[str, Any]]:
        """The new events. A missing file has none; what is no JSON object is skipped."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(READ_BYTES)
        except OSError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = _parsed(line)
            if event is not None:
                yield event


def read_events(path: Path) -> list[dict[str, Any]]:
    """Every whole event of a file, as far as one look reaches."""
    return list(EventFollower(path).new())


def device_event(path: Path) -> dict[str, Any]:
    """What the trial's process said of its device; empty when it said nothing."""
    return next((event for event in EventFollower(path).new() if event.get("event") == "device"), {})


def loss_curve(path: Path) -> list[tuple[float, float]]:
    """Share of the budget (0..1) and loss of every logged step. What the train file logged is taken as numbers only."""
    curve: list[tuple[float, float]] = []
    for event in EventFollower(path).new():
        if event.get("event") == "log":
            at, loss = event.get("progress"), event.get("loss")
            if is_number(at) and is_number(loss):
                curve.append((at, loss))
    return curve


def is_number(value: Any) -> TypeGuard[float]:
    """Whether the value is a number that can be drawn: finite, and neither true nor false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < HUGE


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
