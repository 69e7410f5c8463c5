"""No waiting for the disk: a test kills processes and never the machine, so what the kernel holds is safe.

A run flushes every step to the disk twice, in its journal and in its ledger, and git flushes every commit.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any

from autoresearch.core.store import git, schema

if TYPE_CHECKING:
    import pytest

_fsync, _connect, _git_environment = os.fsync, schema.connect, git.git_environment


def without_disk_waits() -> None:
    """Make this process, the ones that it forks, and the git commands that it runs flush nothing to the disk."""
    os.fsync = _flush_nothing
    schema.connect = _connect_unsynchronized
    git.git_environment = lambda: {**_git_environment(), "GIT_TEST_FSYNC": "0"}
    os.environ["GIT_TEST_FSYNC"] = "0"


def with_disk_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring the flushing back for one test, which is about it."""
    monkeypatch.setattr(os, "fsync", _fsync)
    monkeypatch.setattr(schema, "connect", _connect)


def _flush_nothing(descriptor: Any) -> None:
    pass


def _connect_unsynchronized(*arguments: Any, **options: Any) -> sqlite3.Connection:
    connection = _connect(*arguments, **options)
    if options.get("write"):
        connection.execute("PRAGMA synchronous = OFF")
    return connection
