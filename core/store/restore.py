"""Restoring a damaged ledger from its journal, and from what is left of itself where the journal is damaged too."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from autoresearch.core.errors import LedgerError
from autoresearch.core.store import chain, schema
from autoresearch.core.store.guarded import GuardedConnection, may_change_rows
from autoresearch.core.store.journal import JOURNAL_NAME, Write, last_line, whole_lines
from autoresearch.core.store.reader import LEDGER_NAME

MOST_PROBED = 1_000_000
"""Row numbers of one table that are asked for one by one where a page in the middle of it cannot be read."""


def damage(folder: Path) -> str | None:
    """Return what is wrong with a run's ledger.

    None when it is sound, when it is newer than this version, or when nothing can be restored. A ledger whose pages are
    sound may hold a row that is not: the chain of its decisions is walked as well.
    """
    path, journal = folder / LEDGER_NAME, folder / JOURNAL_NAME
    line = last_line(journal)
    if line is None and (not journal.is_file() or _has_content(journal)):
        return _damaged_page(path)
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
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        # All columns: a ledger of an older schema has no `journal` yet, and to name it would be an error of its own.
        rows = connection.execute("SELECT * FROM runs").fetchall()
        known = int(dict(rows[0]).get("journal") or 0) if rows else 0
        chained = rows and version >= chain.SINCE_SCHEMA
        fault = chain.walk(connection.execute).fault if chained and line is not None else None
    except (sqlite3.Error, TypeError, ValueError) as error:  # a value that is not of its column's kind, too
        return str(error)
    finally:
        connection.close()
    # One line more than the ledger has is a transaction that a crash broke off; more are transactions that it lost.
    lost = 0 if line is None else line.number - known
    return f"it has lost its last {lost} steps" if lost > 1 else fault


def _damaged_page(path: Path) -> str | None:
    """Return the fault in the pages of a ledger without a journal; None where it is sound or cannot be read at all."""
    if not path.is_file():
        return None
    try:
        with closing(schema.connect(path, write=False)) as connection:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            connection.execute("SELECT * FROM runs").fetchone()
    except (LedgerError, sqlite3.Error):
        return None
    return None if answer == "ok" else str(answer)


def _has_content(path: Path) -> bool:
    """Tell whether a journal has lost something: one that was never written to is there, and empty."""
    return not path.is_file() or path.stat().st_size > 0


def mend(folder: Path, say: Callable[[str], None]) -> bool:
    """Restore the ledger if it is damaged, and keep the damaged file beside it. Return whether it was.

    A run that is being written is left alone. Raises `LedgerError` when it cannot be written, or when its journal
    asks for something that no step of a run does.
    """
    from filelock import FileLock, Timeout

    if damage(folder) is None:
        return False
    try:
        with FileLock(folder / "writer.lock", timeout=0):
            # The writer's lock is what makes this safe: no loop can open the ledger between the look and the
            # replacement.
            trouble = damage(folder)  # again, for a writer may have been at work
            if trouble is None:
                return False
            done = _restore(folder)
            aside = _set_aside(folder)
            if done is not None:
                # The last step, and atomic. A crash before it leaves no ledger, which the next start finds to be
                # missing and restores again.
                _fresh(folder).replace(folder / LEDGER_NAME)
    except Timeout:
        return False  # its writer will report the damage
    except (OSError, sqlite3.Error) as error:
        raise schema.unreadable(folder / LEDGER_NAME, error) from error
    kept = f"; the damaged file is {aside.name}" if aside is not None else ""
    # Without a line no step was ever finished, and the run starts anew.
    what = str(done) if done is not None else "it held nothing yet"
    say(f"the ledger of {folder.name} was damaged ({trouble.rstrip('.')}); {what}{kept}")
    return True


@dataclass(frozen=True)
class Restored:
    """The outcome of restoring a ledger."""

    step: int
    missing: int = 0
    """Steps that neither the journal nor the damaged ledger has."""
    both: bool = False
    """True when the damaged ledger's rows were needed, because the journal is damaged too."""
    doubtful: Sequence[int] = ()
    """Experiments that are gone, or are not as they were decided, in both."""

    def __str__(self) -> str:
        """Say it in the middle of a sentence."""
        if not self.both:
            return f"it is restored from its journal, to step {self.step}"
        lost = [f"{self.missing} steps"] if self.missing else []
        if self.doubtful:
            numbers = ", ".join(map(str, self.doubtful[:10])) + (" and more" if len(self.doubtful) > 10 else "")
            lost.append(f"experiments {numbers} as they were decided (their sources are in git)")
        what = f"lost in both: {' and '.join(lost)}" if lost else "nothing decided is lost"
        return f"its journal is damaged too, and it is restored from what both have: {what}"


def _restore(folder: Path) -> Restored | None:
    """Write the whole ledger beside the damaged one. None when there was no step to make it from."""
    journal = folder / JOURNAL_NAME
    lines = [(number, writes) for number, writes, _ in whole_lines(journal)] if journal.is_file() else []
    fresh = _fresh(folder)
    fresh.unlink(missing_ok=True)
    if not lines and not _has_content(journal):
        return None
    with closing(sqlite3.connect(fresh, isolation_level=None, factory=GuardedConnection)) as made:
        made.row_factory = sqlite3.Row
        made.execute("PRAGMA synchronous = FULL")
        made.execute("BEGIN IMMEDIATE")
        schema.create_tables(made)
        refused = _replay(made, lines, journal)
        gaps = {number for (before, _), (after, _) in pairwise(lines) for number in range(before + 1, after)}
        gaps.update(refused)
        step = lines[-1][0] if lines else 0
        # A journal without gaps can still be somebody's edit, so the chain is walked as well. What passes needs nothing
        # of the damaged ledger, which is then left alone.
        whole = lines and not gaps and _run_rows(made) == 1 and next(chain.faults(made.execute), None) is None
        done = Restored(step) if whole else _merge(made, folder / LEDGER_NAME, step, gaps)
        made.execute("UPDATE runs SET journal = ?", (done.step,))
        made.execute("COMMIT")
    return done


def _replay(connection: GuardedConnection, lines: Sequence[tuple[int, list[Write]]], journal: Path) -> list[int]:
    """Carry out every line and return the numbers of those that do not fit. Raises `LedgerError` at a hostile one."""
    refused = []
    # A journal is SQL that lies in a file: the guard lets it change rows of the ledger's own tables and nothing else,
    # however it is written.
    connection.guard(may_change_rows(schema.TABLES))
    try:
        for number, writes in lines:
            for sql, values in writes:
                try:
                    connection.execute(sql, values)
                except sqlite3.IntegrityError:  # a row that is there already: lines before this one are missing
                    refused.append(number)
                except (sqlite3.Error, sqlite3.Warning, TypeError, ValueError, OverflowError) as error:
                    raise LedgerError(
                        f"line {number} of {journal} is not a step of a run ({error}); nothing of it was restored.",
                        fix="do not use this run: its journal was not written by ar",
                    ) from error
    finally:
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)
    return sorted(set(refused))


def _merge(made: sqlite3.Connection, damaged: Path, step: int, gaps: set[int]) -> Restored:
    """Fill in what the damaged ledger still has, row by row; the chain says which of two rows is the one decided."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as left:
        left.row_factory = sqlite3.Row
        schema.create_tables(left)
        _salvage(damaged, left)
        runs = left.execute("SELECT * FROM runs").fetchall()
        last = int(runs[0]["journal"] or 0) if len(runs) == 1 and isinstance(runs[0]["journal"], int) else 0
        # A ledger that went on after the journal's last gap has the newer rows, wherever it has any.
        newer = last > max(gaps, default=0) and last >= step
        ours = made.execute("SELECT tag, config, base_commit FROM runs").fetchone()
        if ours is None or (newer and runs and tuple(ours) == tuple(runs[0][name] for name in ours.keys())):  # noqa: SIM118
            made.execute("DELETE FROM runs")
            _take(left, made, "runs", replace=True)
        if made.execute("SELECT 1 FROM runs").fetchone() is None:
            raise sqlite3.DatabaseError("neither it nor its journal says what the run was started with")
        _take(left, made, "texts", replace=False)
        for table in ("events", "proposals"):
            _join(left, made, table, newer=newer)
        if chain.sound_links(left.execute, made.execute) > chain.sound_links(made.execute, made.execute):
            made.execute("DELETE FROM chain")
            _take(left, made, "chain", replace=True)
        before = {number: _fits(made, made, number) for number in _numbers(made)}
        for number in sorted(set(_numbers(left)) | set(before)):
            absent = number not in before
            if absent or (not before[number] and (newer or _fits(made, left, number))):
                for table, column in (("experiments", "number"), ("trials", "experiment")):
                    _take(left, made, table, replace=True, where=f"{column} = {int(number)}")
    doubtful = [number for number in _linked(made) if not _fits(made, made, number)]
    if next(chain.faults(made.execute), None) is not None:
        _settle(made)
    missing = len([number for number in gaps if number > last or not newer])
    # One step more than the journal has, so that whoever opens it writes the journal anew.
    return Restored(max(step, last) + 1, missing, both=True, doubtful=doubtful)


def _settle(made: sqlite3.Connection) -> None:
    """Take what is left as it is: an incumbent that was kept, and a new chain over every decided row."""
    last = "SELECT max(decided), number FROM experiments WHERE status = 'keep'"
    kept = made.execute(last).fetchone()["number"]
    fits = "SELECT 1 FROM experiments WHERE status = 'keep' AND number = (SELECT incumbent FROM runs)"
    if made.execute(fits).fetchone() is None:
        made.execute("UPDATE runs SET incumbent = ?", (kept,))
    made.execute("DELETE FROM chain")
    chain.chain_existing(made.execute)


def _join(left: sqlite3.Connection, made: sqlite3.Connection, table: str, *, newer: bool) -> None:
    """Join the rows of two ledgers in the order of their times. After a gap, their numbers say nothing any more."""
    names = [name for name in schema.COLUMNS[table] if name != "id"]
    lasting = [at for at, name in enumerate(names) if table == "events" or name == "time"]
    # Row numbers may differ between the two, so rows count as the same when what lasts of them is. Of two that differ
    # the second wins: the journal's, unless the damaged ledger went on after it.
    rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for source in (made, left) if newer else (left, made):
        for row in source.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY id"):
            rows[tuple(row[at] for at in lasting)] = tuple(row)
    made.execute(f"DELETE FROM {table}")
    marks = ", ".join("?" for _ in names)
    for row in sorted(rows.values(), key=lambda row: row[0] if isinstance(row[0], float) else 0.0):
        made.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", row)


def _salvage(damaged: Path, into: sqlite3.Connection) -> None:
    """Copy every row that can still be read out of a damaged ledger; nothing when it holds more than a ledger's."""
    try:
        source = schema.connect(damaged, write=False)
    except (LedgerError, OSError):
        return
    with closing(source):
        for table in schema.TABLES:
            for row in _readable(source, table):
                names = [name for name in row.keys() if name in schema.COLUMNS[table]]  # noqa: SIM118
                marks = ", ".join("?" for _ in names)
                try:
                    into.execute(
                        f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})",
                        [row[name] for name in names],
                    )
                except sqlite3.Error:  # a value that its column cannot take
                    continue


def _readable(source: sqlite3.Connection, table: str) -> Iterator[sqlite3.Row]:
    """Yield a table's rows from its beginning, from its end, and one by one in between, past what cannot be read."""
    first, last = 0, None
    try:
        for row in source.execute(f"SELECT rowid AS at, * FROM {table} ORDER BY rowid"):
            first = row["at"]
            yield row
        return
    except sqlite3.Error:
        pass
    try:
        for row in source.execute(f"SELECT rowid AS at, * FROM {table} ORDER BY rowid DESC"):
            last = row["at"]
            yield row
    except sqlite3.Error:
        pass
    # A broken page splits the table: rows before it came from the front, rows behind it from the back, and those on
    # other pages between can still be asked for one by one.
    end = last if last is not None else first + 10_000
    for at in range(first + 1, min(end, first + MOST_PROBED)):
        try:
            yield from source.execute(f"SELECT rowid AS at, * FROM {table} WHERE rowid = ?", (at,)).fetchall()
        except sqlite3.Error:
            continue


def _take(left: sqlite3.Connection, made: sqlite3.Connection, table: str, *, replace: bool, where: str = "1") -> None:
    """Copy rows from one ledger to the other; those that are there already stay unless `replace`."""
    names = schema.COLUMNS[table]
    verb = "REPLACE" if replace else "IGNORE"
    marks = ", ".join("?" for _ in names)
    for row in left.execute(f"SELECT {', '.join(names)} FROM {table} WHERE {where}"):
        made.execute(f"INSERT OR {verb} INTO {table} ({', '.join(names)}) VALUES ({marks})", tuple(row))


def _numbers(connection: sqlite3.Connection) -> list[int]:
    """Return every number that has an experiment, or trials for one that was never decided."""
    numbers = "SELECT number FROM experiments UNION SELECT experiment FROM trials"
    return [row["number"] for row in connection.execute(numbers)]


def _linked(connection: sqlite3.Connection) -> list[int]:
    """Return every experiment that the chain names."""
    return [row["experiment"] for row in connection.execute("SELECT DISTINCT experiment FROM chain ORDER BY 1")]


def _fits(linked: sqlite3.Connection, rows: sqlite3.Connection, number: int) -> bool:
    return chain.fits(linked.execute, rows.execute, number)


def _run_rows(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) AS n FROM runs").fetchone()["n"])


def _fresh(folder: Path) -> Path:
    """Return the path of the new ledger until it is whole: a crash in between leaves nothing half done."""
    return folder / f".{LEDGER_NAME}.restored"


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
