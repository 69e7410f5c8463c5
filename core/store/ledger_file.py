"""The ledger's file in the hands of its one writer: the run's lock, the journal, transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoresearch.core.errors import LedgerError
from autoresearch.core.store import schema
from autoresearch.core.store.journal import JOURNAL_NAME, Journal, Write, last_line, write_snapshot
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader


class LedgerFile(LedgerReader):
    """The one writer of a run. Holds the run's lock until `close`."""

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock, Timeout

        self.folder = folder
        self.path = folder / LEDGER_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / "writer.lock", timeout=0)
            self._lock.acquire()
        except Timeout:
            raise _locked(folder) from None
        except OSError as error:
            raise schema.unreadable(self.path, error) from error
        try:
            if not self.path.exists():
                # First, so that a ledger that a crash leaves half made is told from one that has lost its journal.
                (folder / JOURNAL_NAME).touch()
            self._connection = schema.connect(self.path, write=True)
            self._open_journal()
        except OSError as error:
            self._lock.release()
            raise schema.unreadable(self.path, error) from error
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let go of the file and of the lock."""
        super().close()
        self._journal.close()
        self._lock.release()

    def _open_journal(self) -> None:
        """Bring the journal in line with the ledger, which `mend` has found sound. Raises `OSError`."""
        path, known = self.folder / JOURNAL_NAME, self._step() if self.created else 0
        line = last_line(path)
        if line is not None and line.number == known + 1:
            # Written, and never committed: the step was not acted on, and will be taken again.
            os.truncate(path, line.start)
            line = last_line(path)
        if (line.number if line is not None else 0) != known:
            write_snapshot(path, known, self._everything())
        self._journal = Journal(path)

    def _step(self) -> int:
        """How many transitions the ledger has."""
        return int(self._rows("SELECT coalesce(max(journal), 0) AS n FROM runs")[0]["n"])

    def _everything(self) -> list[Write]:
        """Every row as the statement that makes it."""
        found: list[Write] = []
        for table in schema.TABLES:
            for row in self._rows(f"SELECT * FROM {table}"):
                marks = ", ".join("?" for _ in row)
                found.append((f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values())))
        return found

    @property
    def created(self) -> bool:
        """Whether there is a run in the file yet."""
        return bool(self._rows("SELECT 1 FROM sqlite_master WHERE name = 'runs'"))

    @contextmanager
    def _transaction(self, *, journal: bool = True) -> Iterator[Any]:
        """All or nothing, in the journal and in the ledger, on disk when the block is left."""
        execute = self._connection.execute
        writes: list[Write] = []

        def write(sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
            if not sql.startswith("SELECT"):
                writes.append((sql, values))
            return execute(sql, values)

        try:
            execute("BEGIN IMMEDIATE")
            before = self._journal.last
            try:
                yield write
                if journal:
                    execute("UPDATE runs SET journal = ?", (before + 1,))
                    self._journal.append(before + 1, writes)
                execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    execute("ROLLBACK")
                if self._journal.last != before:
                    self._journal.drop(before)
                raise
        except (OSError, sqlite3.Error) as error:
            raise schema.unreadable(self.path, error) from error


def _locked(folder: Path) -> LedgerError:
    who = "another process"
    try:
        with LedgerReader(folder) as reader:
            run = reader.run()
            if run.pid is not None:
                who = f"process {run.pid} on {run.host}"
    except LedgerError:
        pass  # it has not written its name yet
    return LedgerError(
        f"the run {folder.name!r} is being written by {who}.",
        fix="wait for it, stop it with Ctrl-C, or start another run with --tag",
    )
