"""A hash chain over the decisions: a row that is edited afterwards no longer fits its link.

Each decision adds a link: the SHA-256 of the link before, and of the experiment's row with the trials that it was
decided on. A trial of the best file that an idle device runs for the next experiment adds one at once: that experiment
may be withdrawn, and is then never decided. The chain shows that a ledger was edited, by hand or by a fault. It cannot
show by whom, and a person who can write the file can also make the whole chain again. Sources are covered through their
SHA-256, which is part of the row.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.core.store.guarded import unpack

Query = Callable[..., sqlite3.Cursor]
"""sqlite3's `execute`, or the ledger's, which writes to the journal too."""

SINCE_SCHEMA = 3
"""The first version of the ledger's tables that has a chain."""
DECIDED, DEMOTED, RESTARTED, REPEATED = "decided", "demoted", "restarted", "repeated"
INSERT = "INSERT INTO chain (time, experiment, kind, digest, link) VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class ChainReport:
    """Result of a walk along the chain."""

    links: int
    fault: str | None
    """The first change that was found, in words; None where everything is as it was written."""


def extend(query: Query, experiment: int, kind: str) -> None:
    """Add the link of an experiment as it stands now, inside the caller's transaction."""
    query(INSERT, (*_next(query, experiment, kind, _last_link(query)),))


def extend_repeat(query: Query, experiment: int, at: float) -> None:
    """Add the link of an experiment's trials that had ended at that time, before it is decided or even there."""
    digest = _trials_digest(query, experiment, at)
    query(INSERT, (at, experiment, REPEATED, digest, _link(_last_link(query), experiment, REPEATED, digest)))


def chain_existing(query: Query) -> None:
    """Add links to a ledger that was written before there were any, taking its present rows as they are."""
    for row in query("SELECT number FROM experiments WHERE state = 'decided' ORDER BY decided, number").fetchall():
        extend(query, row["number"], DECIDED)
    alone = (
        "SELECT experiment, max(ended) AS at FROM trials WHERE ended IS NOT NULL"
        " AND experiment NOT IN (SELECT number FROM experiments) GROUP BY 1 ORDER BY 1"
    )
    for row in query(alone).fetchall():
        extend_repeat(query, row["experiment"], row["at"])


def walk(query: Query) -> ChainReport:
    """Check every link and every decided row, in the order of the decisions, up to the first that does not fit."""
    query("BEGIN")  # one state of the file, also while a loop writes
    try:
        if not query("SELECT 1 FROM sqlite_master WHERE name = 'chain'").fetchone():
            return ChainReport(0, "it was written before ledgers were chained; the next `ar loop` on it adds the links")
        count = query("SELECT count(*) AS n FROM chain").fetchone()["n"]
        return ChainReport(int(count), next(faults(query), None))
    finally:
        query("ROLLBACK")


def faults(query: Query, *, texts: bool = True) -> Iterator[str]:
    """Yield in words what does not fit, first the links and their rows in order, inside the caller's transaction.

    Without `texts` the sources are not looked at: a copy of the rows alone has none.
    """
    last = {row["experiment"]: row["id"] for row in query("SELECT experiment, max(id) AS id FROM chain GROUP BY 1")}
    before = _start(query)
    for number, entry in enumerate(query("SELECT * FROM chain ORDER BY id"), 1):
        name = f"experiment {entry['experiment']}"
        if entry["link"] != _link(before, entry["experiment"], entry["kind"], entry["digest"]) or entry["id"] != number:
            yield f"{name}: link {number} of the chain does not follow from the one before it"
        before = entry["link"]
        # Only an experiment's last link describes its row as it is now: a demotion or a restart has changed it since
        # the earlier ones.
        if last[entry["experiment"]] == entry["id"]:
            yield from _row_faults(query, entry, name, texts)
    for row in query("SELECT number FROM experiments WHERE state = 'decided' ORDER BY decided"):
        if row["number"] not in last:
            yield f"experiment {row['number']}: it is decided, and the chain does not know of it"
    yield from _incumbent_faults(query)


def sound_links(query: Query, start: Query) -> int:
    """Count the links from the first on that follow from each other; `start` reads the run that they begin with."""
    before, count = _start(start), 0
    for entry in query("SELECT * FROM chain ORDER BY id"):
        if entry["link"] != _link(before, entry["experiment"], entry["kind"], entry["digest"]):
            break
        before, count = entry["link"], count + 1
    return count


def fits(linked: Query, rows: Query, experiment: int) -> bool:
    """Tell whether an experiment's row and trials are what its last link says; the two may be read from two ledgers."""
    entry = linked("SELECT * FROM chain WHERE experiment = ? ORDER BY id DESC LIMIT 1", (experiment,)).fetchone()
    row = rows("SELECT * FROM experiments WHERE number = ?", (experiment,)).fetchone()
    if entry is not None and entry["kind"] == REPEATED and (row is None or row["state"] != "decided"):
        return _trials_digest(rows, experiment, entry["time"]) == str(entry["digest"])
    if entry is None or row is None:
        return False
    if entry["kind"] == RESTARTED or row["state"] != "decided":
        return bool(entry["kind"] == RESTARTED and row["state"] != "decided")
    try:
        return _digest(rows, row) == entry["digest"] and text_fits(linked, row["source_sha256"])
    except (TypeError, ValueError):  # a value that is not of its column's kind
        return False


def _row_faults(query: Query, entry: Mapping[str, Any], name: str, texts: bool) -> Iterator[str]:
    row = query("SELECT * FROM experiments WHERE number = ?", (entry["experiment"],)).fetchone()
    decided = row is not None and row["state"] == "decided"
    if entry["kind"] == RESTARTED:
        if decided:
            yield f"{name}: it is decided, and the chain says that it started again"
        return
    if entry["kind"] == REPEATED:
        if decided:
            yield f"{name}: it is decided, and the chain does not know of it"
        elif _trials_digest(query, entry["experiment"], entry["time"]) != entry["digest"]:
            yield f"{name}: its trials are not what was written when the best file was measured again"
        return
    if not decided:
        yield f"{name}: the chain says that it was decided, and its row is gone or says otherwise"
    elif _digest(query, row) != entry["digest"]:
        yield f"{name}: its row or its trials are not what was written when it was {entry['kind']}"
    elif texts and not text_fits(query, row["source_sha256"]):
        yield f"{name}: its source is not the one that was tried"


def _incumbent_faults(query: Query) -> Iterator[str]:
    best = query("SELECT incumbent FROM runs").fetchone()["incumbent"]
    row = query("SELECT status FROM experiments WHERE number = ?", (best,)).fetchone() if best is not None else None
    if best is not None and (row is None or row["status"] != "keep"):
        yield f"experiment {best}: it stands as the best so far, and was not kept"


def _next(query: Query, experiment: int, kind: str, before: str) -> tuple[float, int, str, str, str]:
    row = query("SELECT * FROM experiments WHERE number = ?", (experiment,)).fetchone()
    digest = "" if kind == RESTARTED else _digest(query, row)
    return time.time(), experiment, kind, digest, _link(before, experiment, kind, digest)


def _last_link(query: Query) -> str:
    row = query("SELECT link FROM chain ORDER BY id DESC LIMIT 1").fetchone()
    return str(row["link"]) if row is not None else _start(query)


def _start(query: Query) -> str:
    """Return the value before the first link: a hash of the run's tag, configuration and base commit."""
    run = query("SELECT tag, config, base_commit FROM runs").fetchone()
    return _sha256([run["tag"], run["config"], run["base_commit"]])


def _link(before: str, experiment: int, kind: str, digest: str) -> str:
    return _sha256([before, experiment, kind, digest])


def _digest(query: Query, row: Mapping[str, Any]) -> str:
    """Hash a decided experiment and the trials that had ended by then.

    Empty columns are left out, because later versions add columns to old ledgers.
    """
    return _sha256([_filled(row), *_ended(query, row["number"], row["decided"])])


def _trials_digest(query: Query, experiment: int, at: float) -> str:
    """Hash the trials of an experiment that had ended at that time."""
    return _sha256(_ended(query, experiment, at))


def _ended(query: Query, experiment: int, at: float) -> list[dict[str, Any]]:
    ended = "SELECT * FROM trials WHERE experiment = ? AND ended <= ? ORDER BY k"
    return [_filled(trial) for trial in query(ended, (experiment, at)).fetchall()]


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in dict(row).items() if value is not None}


def text_fits(query: Query, sha256: str) -> bool:
    """Tell whether the text of that name is there and is what its name says."""
    row = query("SELECT body FROM texts WHERE sha256 = ?", (sha256,)).fetchone()
    try:
        return row is not None and hashlib.sha256(unpack(row["body"])).hexdigest() == sha256
    except (TypeError, zlib.error):
        return False


def _sha256(content: Any) -> str:
    # Bytes stand in a ledger that somebody has edited: as words they give another digest than what was there before.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
