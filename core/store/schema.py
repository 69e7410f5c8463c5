"""The ledger's tables, its versions, and opening its file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection
from pathlib import Path

from autoresearch.core.errors import LedgerError, system_words
from autoresearch.core.store import chain
from autoresearch.core.store.guarded import GuardedConnection, fault_in_shape, may_read

SCHEMA_VERSION = 4
"""Version of the tables; `_migrate` brings older ledgers to it."""
LONGEST_PATH = 500
"""Longest path of a ledger in bytes: SQLite's own limit is 512, for the files beside the ledger as well."""
APPLICATION_ID = 0x61724C67  # "arLg": tells the ledger from any other sqlite file

_TABLES: dict[str, tuple[dict[str, type], str | tuple[str, ...]]] = {
    "runs": (
        {
            "tag": str,
            "state": str,
            "ended": str,
            "created": float,
            "config": str,
            "base_commit": str,
            "incumbent": int,
            "pid": int,
            "host": str,
            "heartbeat": float,
            "journal": int,
        },
        "tag",
    ),
    # Sources and versions of program.md are stored once, by their SHA-256, as zlib-compressed UTF-8.
    "texts": ({"sha256": str, "body": bytes, "first_used": float}, "sha256"),
    "experiments": (
        {
            "number": int,
            "state": str,
            "parent": int,
            "commit_id": str,
            "source_sha256": str,
            "fingerprint": str,
            "hypothesis": str,
            "category": str,
            "researcher": str,
            "predicted_delta": float,
            "parameters": str,
            "created": float,
            "decided": float,
            "status": str,
            "reason": str,
            "val_bpb": float,
            "estimate": float,
            "delta": float,
            "trials": int,
            "peak_memory_mb": float,
            "metrics": str,
            "usd": float,
            "judged": str,
            "origin": str,
        },
        "number",
    ),
    "trials": (
        {
            "experiment": int,
            "k": int,
            "role": str,
            "subject": int,
            "seed": int,
            "starts": int,
            "folder": str,
            "started": float,
            "ended": float,
            "status": str,
            "val_bpb": float,
            "result": str,
        },
        ("experiment", "k"),
    ),
    # One row per call of a researcher, whatever came of it.
    "proposals": (
        {
            "id": int,
            "time": float,
            "experiment": int,
            "outcome": str,
            "error": str,
            "researcher": str,
            "model": str,
            "tokens_in": int,
            "tokens_out": int,
            "usd": float,
            "program_sha256": str,
        },
        "id",
    ),
    "events": ({"id": int, "time": float, "kind": str, "experiment": int, "payload": str}, "id"),
    # One row per decision (see `chain`).
    "chain": ({"id": int, "time": float, "experiment": int, "kind": str, "digest": str, "link": str}, "id"),
}

TABLES = tuple(_TABLES)
_INDEXES = (
    ("experiments", ("state",)),
    ("experiments", ("status", "number")),
    ("experiments", ("fingerprint",)),
    ("experiments", ("trials",)),
    ("trials", ("subject", "status")),
    ("proposals", ("experiment",)),
    ("chain", ("experiment",)),
)


COLUMNS = {name: tuple(columns) for name, (columns, _) in _TABLES.items()}
COLUMN_TYPES = {name: columns for name, (columns, _) in _TABLES.items()}
"""The type of each column's values: int, float, str or bytes."""
KEYS = {name: (key,) if isinstance(key, str) else key for name, (_, key) in _TABLES.items()}
"""The columns that tell a table's rows apart."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Make every table and index, inside the caller's transaction."""
    _create(connection, TABLES)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _create(connection: sqlite3.Connection, tables: Collection[str]) -> None:
    from sqlite_utils import Database

    database = Database(connection)
    for name in tables:
        columns, key = _TABLES[name]
        database[name].create(columns, pk=key)
    for name, indexed in _INDEXES:
        if name in tables:
            database[name].create_index(indexed)


def connect(path: Path, *, write: bool, shared: bool = False) -> sqlite3.Connection:
    """Open a ledger file; a `shared` connection may be used by any thread, one at a time.

    A connection that does not write can read a ledger's tables and nothing else, whoever made the file (see `guarded`).
    It reads an older ledger as a copy in memory that has this version's columns.
    Raises `LedgerError` when it is missing, is no ledger, holds more than a ledger's tables, or is too new for this
    version.
    """
    connection: GuardedConnection | None = None
    if not path.is_file() and not write:
        raise LedgerError(f"there is no ledger at {path}.", fix="name a run that exists (`ar status` lists them)")
    try:
        mode = "rwc" if write else "ro"
        # In a folder that is not this user's to write, sqlite cannot make the files that it keeps beside a ledger.
        # Where they are missing nobody writes the ledger, so that it can be read as it is.
        if not write and not os.access(path.parent, os.W_OK) and not _has_log(path):
            mode += "&immutable=1"
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=30,
            check_same_thread=not shared,
            factory=GuardedConnection,
        )
        connection.row_factory = sqlite3.Row
        connection.guard(may_read(TABLES))
        _check(connection, path, write=write)
        if write:
            # Only now is it known to be nothing but tables, whose changes start nothing else.
            connection.set_authorizer(None)
            connection.set_progress_handler(None, 0)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection)
        elif connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
            older, connection = connection, _migrated_copy(connection, shared=shared)
            older.close()
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise unreadable(path, error) from error
        raise
    return connection


def _has_log(path: Path) -> bool:
    """Tell whether transactions lie beside a ledger: it is being written, or its last writer has died."""
    log = path.with_name(f"{path.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def unreadable(path: Path, error: Exception) -> LedgerError:
    """Return the error for a ledger that sqlite, or the system, cannot read or write."""
    said = str(error)
    if isinstance(error, OSError) or "disk is full" in said or "readonly database" in said:
        return LedgerError(
            f"{getattr(error, 'filename', None) or path} cannot be read or written: {system_words(error)}.",
            fix="check the disk's free space and permissions, then give the same command again",
        )
    if "unable to open" in said and len(os.fsencode(path.absolute())) > LONGEST_PATH:
        return LedgerError(
            f"{path} cannot be opened: its path has {len(os.fsencode(path.absolute()))} bytes, and SQLite takes "
            f"{LONGEST_PATH} at most.",
            fix="move the workspace to a folder with a shorter path",
        )
    return LedgerError(
        f"{path} cannot be used as a ledger: {said}.",
        fix=(
            "check the disk's free space and permissions, and the shell's `ulimit -f`; if the file is damaged, "
            "`ar loop --tag` with its name restores it from its journal. The experiments' sources are in git: `git "
            "for-each-ref refs/autoresearch`"
        ),
    )


def _check(connection: sqlite3.Connection, path: Path, *, write: bool) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and objects == 0 and write:
        return  # a new file, or one whose creation never finished
    if path.stat().st_size == 0:
        raise unreadable(path, ValueError("it is empty"))
    if version == objects == application == 0:  # a loop has just made it, or died as it did
        raise LedgerError(
            f"{path} has no run in it yet.",
            fix="wait for the loop that begins it; where none does, `ar loop` with its tag",
        )
    if application != APPLICATION_ID or version == 0:
        raise LedgerError(f"{path} is not a ledger of ar.", fix="move it away, or choose another --tag")
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} was written by a newer ar (schema {version}, this one reads {SCHEMA_VERSION}).", fix="update ar"
        )
    fault = fault_in_shape(connection, COLUMNS)
    if fault is not None:
        raise LedgerError(
            f"{path} holds more than a ledger of ar: {fault}.",
            fix="do not use it: somebody has added to it what would run when it is read",
        )


def _migrated_copy(older: GuardedConnection, *, shared: bool) -> GuardedConnection:
    """Copy an older ledger, checked already, into memory and bring the copy to this schema: its file may be read-only.

    Only a loop of the older version could still write that file; this version's brings it to the schema first.
    """
    copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=not shared, factory=GuardedConnection)
    try:
        older.backup(copy)
        copy.row_factory = sqlite3.Row
        (version,) = copy.execute("PRAGMA user_version").fetchone()
        _migrate(copy)
        if version < chain.SINCE_SCHEMA:  # a chain that is made on reading says nothing of what was written
            copy.execute("DROP TABLE chain")
        copy.execute(f"PRAGMA user_version = {version}")
        copy.guard(may_read(TABLES))
    except BaseException:
        copy.close()
        raise
    return copy


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring an older ledger to this schema, in one transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version in (0, SCHEMA_VERSION):
        return
    connection.execute("BEGIN IMMEDIATE")
    if version < 2:  # before judges left their numbers and transitions went to a journal
        connection.execute("ALTER TABLE experiments ADD COLUMN judged TEXT")
        connection.execute("ALTER TABLE runs ADD COLUMN journal INTEGER")
    if version < 3:  # before decisions were chained
        _create(connection, ("chain",))
        if connection.execute("SELECT 1 FROM runs").fetchone():
            chain.chain_existing(connection.execute)
        # A step that the journal lacks: the next writer then writes the journal anew, with the links.
        connection.execute("UPDATE runs SET journal = coalesce(journal, 0) + 1")
    if version < 4:  # before runs tried what others had found
        connection.execute("ALTER TABLE experiments ADD COLUMN origin TEXT")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
