"""A run's texts, read when they are asked for: all sources of a long run are more than should lie in memory."""

from __future__ import annotations

import sqlite3
import threading
from functools import lru_cache
from pathlib import Path

from autoresearch.core.store import schema
from autoresearch.core.store.reader import LEDGER_NAME, text_of

KEPT = 64
"""Texts that are kept: the same few are asked for again and again."""


class Texts:
    """Reads train files by their SHA-256, in any thread, over a connection of its own, opened when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER_NAME
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self.read = lru_cache(maxsize=KEPT)(self._from_file)

    def close(self) -> None:
        """Let go of the file; who still asks opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _from_file(self, sha256: str) -> str:
        with self._lock:
            if self._connection is None:
                self._connection = schema.connect(self._path, write=False, shared=True)
            return text_of(self._connection, self._path, sha256)
