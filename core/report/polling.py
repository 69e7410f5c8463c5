"""Runs looked at for all pages at once: in one thread and at most so often, however many pages follow them."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autoresearch.core.errors import ArError
from autoresearch.core.report import api
from autoresearch.core.report.encoding import encode
from autoresearch.core.report.follow import RunFollower
from autoresearch.core.report.document.gather import yardsticks_of
from autoresearch.core.report.lookup import RunLookup

LOOK_SECONDS = 0.5


class Polling:
    """The states of runs, as JSON."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "polling")
        self._runs: dict[Path, tuple[RunFollower, dict[str, float]]] = {}
        self._last: dict[Path, tuple[float, str]] = {}

    async def state(self, folder: Path) -> str:
        """The run's state, at most LOOK_SECONDS old. What is wrong with its ledger is a state, too."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, folder)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    def _look(self, folder: Path) -> str:
        at, text = self._last.get(folder, (-LOOK_SECONDS, ""))
        if time.monotonic() - at < LOOK_SECONDS:
            return text
        try:
            if folder not in self._runs:
                reader = RunLookup(folder)
                self._runs[folder] = RunFollower(reader), yardsticks_of(reader.run())
            follower, yardsticks = self._runs[folder]
            text = encode(api.state(follower.look(), yardsticks))
        except (ArError, OSError) as error:
            self._runs.pop(folder, None)  # the next look opens it again
            text = encode({"tag": folder.name, "error": str(error)})
        self._last[folder] = time.monotonic(), text
        return text
