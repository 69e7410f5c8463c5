"""A child's way of telling its parent what happens."""

from __future__ import annotations

import json
import os
import traceback
from typing import Any

MESSAGE_LIMIT = 2000
"""Characters of an exception's message: some print whole tensors."""


class Channel:
    """The way out for events."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, event: str, **fields: Any) -> None:
        """Write one event. A parent that is gone is no error: the guard ends this process."""
        try:
            os.write(self._fd, json.dumps({"event": event, **fields}).encode() + b"\n")
        except BrokenPipeError:
            pass


class Stage:
    """What the child is doing, for the sentence that explains a failure."""

    def __init__(self) -> None:
        self.name = "start-up"


def describe(error: BaseException, path: str) -> dict[str, Any]:
    """An exception as an event: its type and words, the last line of the train file it passed, out of memory or not."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    message = str(error).strip()
    out_of_memory = isinstance(error, MemoryError) or "out of memory" in message.lower()
    return {
        "type": type(error).__name__,
        "message": message[:MESSAGE_LIMIT],
        "line": frames[-1].lineno if frames else None,
        "out_of_memory": out_of_memory,
    }
