"""Long simulations in pieces: each result is appended to a file, and a later call goes on with what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

Key = tuple[str | int | float, ...]
"""What tells one piece from the others."""


class Pieces:
    """The pieces of one simulation that are computed, in a file of one JSON line each."""

    def __init__(self, path: Path) -> None:
        """Read what is there already; a line that was cut off is left out."""
        self._path, self._found = path, dict[Key, Any]()
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):
                key, value = json.loads(line)
                self._found[tuple(key)] = value

    def __getitem__(self, key: Key) -> Any:
        return self._found[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._found

    def compute(
        self, keys: Iterable[Key], one: Callable[[Key], Any], seconds: float, *, cores: int | None = None
    ) -> bool:
        """Compute the missing ones of these; return whether all are there.

        `seconds` is the time after which no further piece is begun; `cores` are all that this process may use by
        default, and with 1 the pieces are computed in this process.
        """
        end, missing = time.monotonic() + seconds, [key for key in keys if key not in self]
        if cores is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._path.open("a+", encoding="utf-8"))
            each = map if cores == 1 else stack.enter_context(ProcessPoolExecutor(cores)).map
            file.seek(0)
            # A line that was cut off stays one of its own: it is no JSON, and is passed over.
            if (text := file.read()) and not text.endswith("\n"):
                file.write("\n")
            for some in _groups(missing, cores):
                if time.monotonic() > end:
                    return False
                for key, value in zip(some, each(one, some), strict=True):
                    file.write(json.dumps([key, value]) + "\n")
                    file.flush()
                    self._found[key] = value
        return True


def _groups(keys: Sequence[Key], size: int) -> Iterable[Sequence[Key]]:
    return (keys[at : at + size] for at in range(0, len(keys), size))
