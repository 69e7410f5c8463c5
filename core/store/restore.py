"""Restoring a damaged ledger from its journal."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from autoresearch.core.errors import LedgerError
from autoresearch.core.store import schema
from autoresearch.core.store.journal import JOURNAL_NAME, Write, last_line, read_lines
from autoresearch.core.store.reader import LEDGER_NAME


def damage(folder: Path) -> str | None:
    """Return what is wrong with a run's ledger.

    None when it is sound, when it is newer than this version, or when there is no journal to restore it from.
    """
    path, journal = folder / LEDGER_NAME, folder / JOURNAL_NAME
    line = last_line(journal)
    if line is None and not (journal.is_file() and journal.stat().st_size == 0):
        return None
    if not path.is_file():
        return None if line is None else "it is missing"
    if path.stat().st_size == 0:  # made, and then there was no room to write
        return "it is empty"
    try:
        connection = schema.connect(path, write=False)
    except LedgerError as error:
        return None if "newer ar" in error.message else error.message
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            return str(answer)
        rows = connection.execute("SELECT * FROM runs").fetchall()
        known = int(dict(rows[0]).get("journal") or 0) if rows else 0
    except sqlite3.Error as error:
        return str(error)
    finally:
        connection.close()
    # One line more than the ledger has is a transaction that a crash broke off; more are transactions that it lost.
    lost = 0 if line is None else line.number - known
    return f"it has lost its last {lost} steps" if lost > 1 else None


def mend(folder: Path, say: Callable[[str], None]) -> bool:
    """Restore the ledger if it is damaged, and keep the damaged file beside it. Return whether it was.

    A run that is being written is left alone. Raises `LedgerError` when the ledger cannot be written.
    """
    from filelock import FileLock, Timeout

    if damage(folder) is None:
        return False
    try:
        with FileLock(folder / "writer.lock", timeout=0):
            trouble = damage(folder)  # again: a writer may have been at work until now
            if trouble is None:
                return False
            lines = [(number, writes) for number, writes, _ in read_lines(folder / JOURNAL_NAME)]
            aside = _set_aside(folder)
            if lines:
                _rebuild(folder / LEDGER_NAME, lines)
    except Timeout:
        return False  # its writer will report the damage
    except (OSError, sqlite3.Error) as error:
        raise schema.unreadable(folder / LEDGER_NAME, error) from error
    kept = f"; the damaged file is {aside.name}" if aside is not None else ""
    # Without a line no step was ever finished, and the run starts anew.
    done = f"it is restored from its journal, to step {lines[-1][0]}" if lines else "it held nothing yet"
    say(f"the ledger of {folder.name} was damaged ({trouble}); {done}{kept}")
    return True


def _set_aside(folder: Path) -> Path | None:
    """Move the ledger and the files that sqlite keeps beside it out of the way."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("-wal", "-shm"):
        beside = folder / f"{LEDGER_NAME}{suffix}"
        if beside.exists():
            beside.replace(folder / f"damaged-{stamp}.sqlite{suffix}")
    ledger = folder / LEDGER_NAME
    if ledger.exists() and ledger.stat().st_size == 0:
        ledger.unlink()
    return ledger.replace(folder / f"damaged-{stamp}.sqlite") if ledger.exists() else None


def _rebuild(path: Path, lines: list[tuple[int, list[Write]]]) -> None:
    """Write a whole ledger beside `path`, then put it there: a crash in between leaves nothing half done."""
    fresh = path.with_name(f".{path.name}.restored")
    fresh.unlink(missing_ok=True)
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        schema.create_tables(connection)
        for number, writes in lines:
            for sql, values in writes:
                connection.execute(sql, values)
            connection.execute("UPDATE runs SET journal = ?", (number,))
        connection.execute("COMMIT")
    finally:
        connection.close()
    fresh.replace(path)
