"""Limits on the SQL that is run on a ledger, which somebody else may have written.

A ledger is a program as much as a file: a view, a trigger, a generated column or an index on an expression runs when it
is read, and a journal is SQL. So a ledger is read over a connection that allows reading its own tables and no more, a
journal is replayed over one that allows changing their rows and nothing else, and both stop after a number of steps.
sqlite's authorizer decides it, statement by statement, from what sqlite has understood and not from the text.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

STEPS = 500_000_000
"""Steps of sqlite's machine that one statement may take: ten seconds or so. They are counted instead of seconds, so
that neither a busy machine nor a reader that takes its time over the rows ends an honest statement. Summing up a run of
100,000 trials takes some ten millions."""
STEPS_BETWEEN = 1_000_000
"""Steps between two looks at the count."""
FIELD_BYTES = 64 * 2**20
"""Bytes that one field of a row, or one statement, may have (where Python can limit it: from 3.11 on)."""
TEXT_BYTES = 16 * 2**20
"""Bytes that a train file or a program.md may have when it is unpacked."""

FUNCTIONS = frozenset(("coalesce", "count", "group_concat", "json_extract", "max", "min", "substr", "sum"))
"""Functions that the queries of the core call."""
PRAGMAS = frozenset(("application_id", "index_list", "index_xinfo", "quick_check", "table_xinfo", "user_version"))
"""Pragmas that only look."""
_LOOKS_AT = frozenset(("index_list", "index_xinfo", "quick_check", "table_xinfo"))
"""Pragmas among them whose argument names what to look at; an argument of the others would be a new value."""
_SCHEMA = frozenset(("sqlite_master", "sqlite_schema"))
_WHOLE_TABLE = re.compile(r"CREATE TABLE [\"\[]?\w+[\"\]]?\s*\(", re.IGNORECASE)
_WHOLE_INDEX = re.compile(r"CREATE (UNIQUE )?INDEX\s", re.IGNORECASE)

Authorizer = Callable[[int, "str | None", "str | None", "str | None", "str | None"], int]


class GuardedConnection(sqlite3.Connection):
    """A connection whose every statement ends after STEPS steps."""

    _steps = 0

    def guard(self, authorizer: Authorizer) -> None:
        """Ask `authorizer` about every statement from now on, and count steps."""
        self.execute("PRAGMA trusted_schema = OFF")
        if hasattr(self, "setlimit"):  # Python 3.11
            self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, FIELD_BYTES)
            self.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self.set_progress_handler(self._look, STEPS_BETWEEN)
        self.set_authorizer(authorizer)

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Run a statement, counted from zero."""
        self._steps = 0
        return super().execute(*arguments)

    def _look(self) -> int:
        self._steps += STEPS_BETWEEN
        return int(self._steps > STEPS)


def may_read(tables: Collection[str]) -> Authorizer:
    """Allow to read these tables and the list of tables, with FUNCTIONS and PRAGMAS."""
    readable = frozenset(tables) | _SCHEMA

    def authorize(action: int, one: str | None, two: str | None, _database: str | None, source: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            allowed = one in readable and source is None  # a view or a trigger is the source of what it reads
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = two is not None and two.lower() in FUNCTIONS
        elif action == sqlite3.SQLITE_PRAGMA:
            allowed = one in PRAGMAS and (two is None or one in _LOOKS_AT)
        else:
            allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return authorize


def may_change_rows(tables: Collection[str]) -> Authorizer:
    """Allow to insert, update and delete rows of these tables: no query inside, no function, no other statement."""
    own = frozenset(tables)
    actions = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_READ)

    def authorize(action: int, one: str | None, _two: str | None, database: str | None, source: str | None) -> int:
        allowed = action in actions and one in own and database == "main" and source is None
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return authorize


def fault_in_shape(connection: sqlite3.Connection, columns: Mapping[str, Collection[str]]) -> str | None:
    """Say what makes this more than a ledger's tables and indexes; None when nothing does.

    `columns` are the names that each table may have; an older ledger lacks some. Views, triggers, virtual tables,
    generated columns and indexes on expressions are none of a ledger's. sqlite_master is read first and by itself: to
    ask about a view, sqlite would have to work it out.
    """
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    for kind, name, table, sql in (tuple(row) for row in found):
        if table not in columns:
            return f"it has a {_shown(kind)} {_shown(name)}, which no ledger has"
        if kind == "table":
            sound = name == table and isinstance(sql, str) and _WHOLE_TABLE.match(sql)
        elif kind == "index":
            sound = sql is None or (isinstance(sql, str) and _WHOLE_INDEX.match(sql))
        else:
            sound = False
        if not sound:
            return f"its {_shown(kind)} {_shown(name)} is not a ledger's"
    for table in sorted({str(row[1]) for row in found if row[0] == "table"}):
        for row in connection.execute(f"PRAGMA table_xinfo({table})").fetchall():
            name, hidden = row[1], row[6]
            if name not in columns[table] or hidden:
                return f"the column {_shown(name)} of its table {table} is not a ledger's"
        for index in connection.execute(f"PRAGMA index_list({table})").fetchall():
            quoted = str(index[1]).replace('"', '""')
            on = connection.execute(f'PRAGMA index_xinfo("{quoted}")').fetchall()
            if index[4] or any(row[1] == -2 for row in on):  # partial, or on an expression
                return f"its index {_shown(index[1])} is not a ledger's"
    return None


def unpack(body: bytes) -> bytes:
    """Unpack a text of a ledger, at most TEXT_BYTES. Raises `zlib.error` when it is damaged or longer."""
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(body, TEXT_BYTES + 1)
    if len(text) > TEXT_BYTES:
        raise zlib.error(f"a text of more than {TEXT_BYTES} bytes")
    if not unpacker.eof:
        raise zlib.error("a text that is cut off")
    return text


def _shown(name: object) -> str:
    """Shorten a name that another machine chose, and escape its control characters."""
    return repr(str(name)[:60])
