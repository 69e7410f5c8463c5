"""Reading a run's ledger, at any time, also while a loop writes it."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from autoresearch.core.errors import LedgerError
from autoresearch.core.store import schema
from autoresearch.core.store.chain import ChainReport, faults, walk
from autoresearch.core.store.guarded import unpack
from autoresearch.core.store.inbox import SUBMISSION
from autoresearch.core.store.rows import (
    ExperimentRow,
    RunRow,
    SubmissionRow,
    Totals,
    TrialRow,
    experiment_row,
    payload_of,
    run_row,
    submission_row,
    trial_row,
)

LEDGER_NAME = "ledger.sqlite"
_UNDECIDED = "state IN ('proposed', 'running', 'trained', 'scored')"
"""SQL condition. Written this way, the index on states finds the few undecided rows of a long run."""


Row = TypeVar("Row")


def _payload(row: Mapping[str, Any]) -> dict[str, Any]:
    return payload_of(row["kind"], row["payload"])


def _experiment_of(row: Mapping[str, Any]) -> int:
    return int(row["experiment"])


def _demotion(row: Mapping[str, Any]) -> tuple[float, int, int]:
    return float(row["time"]), int(row["experiment"]), int(_payload(row).get("successor", 0))


def _place(row: Mapping[str, Any]) -> str:
    """Name a row in words."""
    if "kind" in row and "id" in row:
        return f"event {row['id']} ({row['kind']})"
    if "k" in row:
        return f"trial {row['k']} of experiment {row['experiment']}"
    return f"experiment {row['number']}" if "number" in row else "the run"


class LedgerReader:
    """Reads a ledger as typed rows. Safe while a loop writes. Every method raises `LedgerError` on a damaged file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LEDGER_NAME
        self._connection = schema.connect(self.path, write=False)

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def run(self) -> RunRow:
        """Return the run itself."""
        rows = self._rows("SELECT * FROM runs")
        if not rows:
            raise LedgerError(f"{self.path} has no run in it.", fix="move its folder away, or choose another --tag")
        return self._understood(run_row, rows[0])

    def experiment(self, number: int) -> ExperimentRow:
        """Return one experiment. Raises `LedgerError` when there is none of that number."""
        rows = self._rows("SELECT * FROM experiments WHERE number = ?", (number,))
        if not rows:
            raise LedgerError(f"{self.path} has no experiment {number}.")
        return self._understood(experiment_row, rows[0])

    def experiments(self) -> Iterator[ExperimentRow]:
        """Yield every experiment in order, the baseline first, one at a time from the file."""
        for row in self._stream("SELECT * FROM experiments ORDER BY number"):
            yield self._understood(experiment_row, row)

    def last(self, count: int) -> list[ExperimentRow]:
        """Return the last `count` experiments, oldest first."""
        rows = self._rows("SELECT * FROM experiments ORDER BY number DESC LIMIT ?", (count,))
        return [self._understood(experiment_row, row) for row in reversed(rows)]

    def in_flight(self) -> ExperimentRow | None:
        """Return the first undecided experiment, if there is one; those that have begun come first."""
        sql = f"SELECT * FROM experiments WHERE {_UNDECIDED} ORDER BY state = 'proposed', number LIMIT 1"
        rows = self._rows(sql)
        return self._understood(experiment_row, rows[0]) if rows else None

    def undecided(self) -> list[ExperimentRow]:
        """Return every undecided experiment, in order: several when trials run side by side."""
        rows = self._rows(f"SELECT * FROM experiments WHERE {_UNDECIDED} ORDER BY number")
        return [self._understood(experiment_row, row) for row in rows]

    def of_researcher(self, name: str) -> list[ExperimentRow]:
        """Return every experiment that this researcher proposed, in order."""
        rows = self._rows("SELECT * FROM experiments WHERE researcher = ? ORDER BY number", (name,))
        return [self._understood(experiment_row, row) for row in rows]

    def decisions(self) -> list[int]:
        """Return the numbers of the decided experiments, in the order of the decisions."""
        rows = self._rows("SELECT number FROM experiments WHERE state = 'decided' ORDER BY decided, number")
        return [int(row["number"]) for row in rows]

    def keeps(self) -> list[ExperimentRow]:
        """Return every kept experiment in order, the baseline first."""
        rows = self._rows("SELECT * FROM experiments WHERE status = 'keep' ORDER BY number")
        return [self._understood(experiment_row, row) for row in rows]

    def incumbent(self) -> ExperimentRow | None:
        """Return the best experiment so far."""
        number = self.run().incumbent
        return None if number is None else self.experiment(number)

    def lineage(self, number: int) -> list[ExperimentRow]:
        """Return the changes that an experiment's source consists of, the oldest first; none for the baseline.

        Each is an edit of the one before. Not every kept change is among them: one that was kept while another trial
        ran may have lost its place to that one, which was made without it.
        """
        found: dict[int, ExperimentRow] = {}
        while number and number not in found:
            found[number] = self.experiment(number)
            number = found[number].parent
        return list(reversed(found.values()))

    def trials(self, *, experiment: int | None = None, subject: int | None = None) -> list[TrialRow]:
        """Return the trials that an `experiment` asked for, or every trial of the source of experiment `subject`."""
        column, value = ("subject", subject) if experiment is None else ("experiment", experiment)
        rows = self._rows(f"SELECT * FROM trials WHERE {column} = ? ORDER BY experiment, k", (value,))
        return [self._understood(trial_row, row) for row in rows]

    def first_trial(self, number: int) -> TrialRow | None:
        """Return the first ended trial of an experiment's own source that it asked for itself; None without one.

        An experiment may begin with a trial of the incumbent. Trials of a baseline before its restart do not count.
        """
        created = self.experiment(number).created
        mine = (one for one in self.trials(experiment=number) if one.subject == number and one.status is not None)
        return next((one for one in mine if one.started >= created), None)

    def every_trial(self) -> list[TrialRow]:
        """Return every trial of the run, by experiment."""
        return [self._understood(trial_row, row) for row in self._rows("SELECT * FROM trials ORDER BY experiment, k")]

    def trials_of_keeps(self) -> list[TrialRow]:
        """Return every trial of the sources of kept experiments."""
        sql = (
            "SELECT * FROM trials WHERE subject IN (SELECT number FROM experiments WHERE status = 'keep')"
            " ORDER BY experiment, k"
        )
        return [self._understood(trial_row, row) for row in self._rows(sql)]

    def ended_trials(self) -> list[TrialRow]:
        """Return every ended trial of the run, without those of a baseline before it was restarted.

        A trial of the incumbent that an idle device ran is older than the experiment that it belongs to.
        """
        sql = (
            "SELECT trials.* FROM trials JOIN experiments ON experiments.number = 0"
            " WHERE trials.status IS NOT NULL AND (trials.experiment > 0 OR trials.started >= experiments.created)"
            " ORDER BY trials.experiment, trials.k"
        )
        return [self._understood(trial_row, row) for row in self._rows(sql)]

    def last_trial(self) -> TrialRow | None:
        """Return the trial that ended last: with several devices, trials do not end in the order of their starts."""
        rows = self._rows("SELECT * FROM trials WHERE status IS NOT NULL ORDER BY ended DESC LIMIT 1")
        return self._understood(trial_row, rows[0]) if rows else None

    def keep_before(self, number: int) -> ExperimentRow | None:
        """Return the experiment that was kept last before that decided one, the baseline included.

        Trials run side by side, so decisions come in another order than numbers.
        """
        sql = (
            "SELECT * FROM experiments WHERE status = 'keep' AND decided < (SELECT decided FROM experiments"
            " WHERE number = ?) ORDER BY decided DESC, number DESC LIMIT 1"
        )
        rows = self._rows(sql, (number,))
        return self._understood(experiment_row, rows[0]) if rows else None

    def remeasured(self, first: int, before: int) -> bool:
        """Tell whether one of the experiments from `first` up to `before` has asked for a trial of a decided file.

        Trials that an idle device ran before the experiment was there do not count.
        """
        sql = (
            "SELECT 1 FROM trials JOIN experiments AS mine ON mine.number = trials.experiment"
            " JOIN experiments AS file ON file.number = trials.subject"
            " WHERE trials.experiment >= ? AND trials.experiment < ? AND trials.role = 'incumbent'"
            " AND trials.started >= mine.created AND file.decided <= trials.started LIMIT 1"
        )
        return bool(self._rows(sql, (first, before)))

    def scored(self, latest: int) -> list[ExperimentRow]:
        """Return the `latest` experiments that were kept or discarded, in the order of their decisions."""
        sql = (
            "SELECT * FROM experiments WHERE number > 0 AND state = 'decided' AND status IN ('keep', 'discard')"
            " ORDER BY decided DESC, number DESC LIMIT ?"
        )
        return [self._understood(experiment_row, row) for row in reversed(self._rows(sql, (latest,)))]

    def repeats(self, latest: int = 2000) -> list[list[TrialRow]]:
        """Return the trials of every source with more than two, by source, among the `latest` experiments' sources."""
        sql = (
            "SELECT * FROM trials WHERE subject IN (SELECT subject FROM trials WHERE subject > ?"
            " AND status IS NOT NULL GROUP BY subject HAVING count(*) > 2) ORDER BY subject, started"
        )
        groups: dict[int, list[TrialRow]] = {}
        for row in self._rows(sql, (self.next_number() - latest,)):
            trial = self._understood(trial_row, row)
            groups.setdefault(trial.subject, []).append(trial)
        return list(groups.values())

    def raced_facts(self, machine: str = "", latest: int = 2000) -> list[Mapping[str, Any]]:
        """Return the judge's facts of every decided experiment with several trials, among the `latest`, in order.

        `machine` leaves out those whose own trials ran on another one.
        """
        ran_on = (
            "SELECT json_extract(result, '$.machine') FROM trials WHERE experiment = number AND subject = number"
            " AND status IS NOT NULL ORDER BY k DESC LIMIT 1"
        )
        sql = (
            f"SELECT *, ({ran_on}) AS machine FROM experiments"
            " WHERE number > ? AND trials > 1 AND state = 'decided' ORDER BY decided, number"
        )
        found = []
        for row in self._rows(sql, (max(0, self.next_number() - latest),)):
            there = row.pop("machine")
            if not machine or not there or there == machine:
                found.append(self._understood(experiment_row, row).judged)
        return found

    def last_facts(self) -> Mapping[str, Any]:
        """Return the facts of the judge's last decision."""
        sql = (
            "SELECT * FROM experiments WHERE number = (SELECT number FROM experiments WHERE state = 'decided' AND"
            " (number = 0 OR number > (SELECT max(number) FROM experiments) - 1000) ORDER BY decided DESC LIMIT 1)"
        )
        rows = self._rows(sql)
        return self._understood(experiment_row, rows[0]).judged if rows else {}

    def noise_facts(self) -> Mapping[str, Any]:
        """Return the facts of the judge's last decision that states the noise; verdicts on ended trials do not."""
        sql = (
            "SELECT * FROM experiments WHERE number = (SELECT number FROM experiments WHERE state = 'decided'"
            " AND json_extract(judged, '$.sigma') IS NOT NULL ORDER BY decided DESC LIMIT 1)"
        )
        rows = self._rows(sql)
        return self._understood(experiment_row, rows[0]).judged if rows else self.last_facts()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the payload of every event of that kind, oldest first."""
        rows = self._rows("SELECT id, kind, payload FROM events WHERE kind = ? ORDER BY id", (kind,))
        return [self._understood(_payload, row) for row in rows]

    def numbers_of(self, kind: str) -> list[int]:
        """Return the experiments that events of that kind are about, oldest first."""
        rows = self._rows("SELECT id, kind, experiment FROM events WHERE kind = ? ORDER BY id", (kind,))
        return [self._understood(_experiment_of, row) for row in rows if row["experiment"] is not None]

    def noted(self, kind: str) -> list[tuple[int, dict[str, Any]]]:
        """Return experiment and payload of every event of that kind that is about one, oldest first."""
        rows = self._rows("SELECT id, kind, experiment, payload FROM events WHERE kind = ? ORDER BY id", (kind,))
        about = (row for row in rows if row["experiment"] is not None)
        return [(self._understood(_experiment_of, row), self._understood(_payload, row)) for row in about]

    def demotions(self) -> list[tuple[float, int, int]]:
        """Return time, experiment and successor of every demotion, oldest first."""
        rows = self._rows("SELECT id, kind, time, experiment, payload FROM events WHERE kind = 'demoted' ORDER BY id")
        return [self._understood(_demotion, row) for row in rows if row["experiment"] is not None]

    def submission(self, identity: str) -> SubmissionRow | None:
        """Return what became of a submission, the latest; None while no loop has taken it up."""
        sql = "SELECT * FROM events WHERE kind = ? AND json_extract(payload, '$.id') = ? ORDER BY id DESC LIMIT 1"
        rows = self._rows(sql, (SUBMISSION, identity))
        return self._understood(submission_row, rows[0]) if rows else None

    def submissions(self) -> list[str]:
        """Return every submission that a loop has taken up, the earliest first."""
        return list(dict.fromkeys(str(one["id"]) for one in self.events(SUBMISSION)))

    def settled(self, identity: str) -> bool:
        """Tell whether a submission has its verdict, or never will have one."""
        found = self.submission(identity)
        if found is None:
            return False
        if found.experiment is None:
            return True
        return self.experiment(found.experiment).state == "decided"

    def with_origin(self) -> list[ExperimentRow]:
        """Return every experiment that tries an offered change, in order. Older ledgers lack the column."""
        rows = self._rows("SELECT * FROM experiments WHERE origin IS NOT NULL ORDER BY number")
        return [self._understood(experiment_row, row) for row in rows]

    def has_commit(self, commit: str) -> bool:
        """Tell whether an experiment of this run has that commit."""
        return bool(self._rows("SELECT 1 FROM experiments WHERE commit_id = ? LIMIT 1", (commit,)))

    def verify(self) -> ChainReport:
        """Check that the decisions are as they were written (see `chain`). Takes seconds for 100,000 experiments."""
        try:
            return walk(self._connection.execute)
        except sqlite3.Error as error:
            raise schema.unreadable(self.path, error) from error

    def chain_faults(self) -> list[str]:
        """Return everything that does not fit the chain, without a look at the sources."""
        try:
            return list(faults(self._connection.execute, texts=False))
        except sqlite3.Error as error:
            raise schema.unreadable(self.path, error) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state of the ledger in the block, also while a loop writes it."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def table(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table as the ledger holds them. Raises `KeyError` for no table of a ledger."""
        return self._stream(f"SELECT {', '.join(schema.COLUMNS[name])} FROM {name} ORDER BY rowid")

    def next_number(self) -> int:
        """Return the number of the next experiment."""
        return int(self._rows("SELECT coalesce(max(number), -1) + 1 AS n FROM experiments")[0]["n"])

    def has_experiment(self, number: int) -> bool:
        """Tell whether there is an experiment of that number. One that was withdrawn leaves a gap among the others."""
        return bool(self._rows("SELECT 1 FROM experiments WHERE number = ?", (number,)))

    def withdrawn(self) -> dict[int, str]:
        """Map every number that a withdrawn proposal has left without an experiment to the reason, in order.

        The last number of a run is not among them: the next proposal gets it again.
        """
        sql = (
            "SELECT id, kind, experiment, payload FROM events WHERE kind = 'withdrawn'"
            " AND experiment NOT IN (SELECT number FROM experiments)"
            " AND experiment < (SELECT max(number) FROM experiments) ORDER BY experiment, id"
        )
        found = ((self._understood(_experiment_of, row), self._understood(_payload, row)) for row in self._rows(sql))
        return {number: told.get("reason") or "it did not fit" for number, told in found}

    def tried_as(self, fingerprint: str) -> int | None:
        """Return the experiment that tried this source before, up to formatting and comments."""
        rows = self._rows("SELECT number FROM experiments WHERE fingerprint = ? LIMIT 1", (fingerprint,))
        return int(rows[0]["number"]) if rows else None

    def times_tried(self, fingerprint: str) -> int:
        """Count the experiments with a source of this fingerprint."""
        return int(self._rows("SELECT count(*) AS n FROM experiments WHERE fingerprint = ?", (fingerprint,))[0]["n"])

    def text(self, sha256: str) -> str:
        """Return a train file or a program.md by its SHA-256."""
        return text_of(self._connection, self.path, sha256)

    def source(self, number: int) -> str:
        """Return an experiment's train file. Raises `LedgerError` when there is none of that number."""
        return self.text(self.experiment(number).source_sha256)

    def totals(self) -> Totals:
        """Return sums over the run."""
        by_status = {
            str(row["status"]): int(row["n"])
            for row in self._rows(
                "SELECT status, count(*) AS n FROM experiments WHERE status IS NOT NULL AND number > 0 GROUP BY status"
            )
        }
        spent = self._rows(
            "SELECT coalesce(sum(tokens_in), 0) AS ti, coalesce(sum(tokens_out), 0) AS tou,"
            " coalesce(sum(usd), 0.0) AS usd, coalesce(sum(usd IS NULL), 0) AS unknown,"
            " coalesce(sum(outcome != 'accepted'), 0) AS failed FROM proposals"
        )[0]
        usd = None if spent["unknown"] else float(spent["usd"])
        return Totals(sum(by_status.values()), by_status, spent["ti"], spent["tou"], usd, spent["failed"])

    def _understood(self, make: Callable[[Mapping[str, Any]], Row], row: Mapping[str, Any]) -> Row:
        """Make a row's object. Raises `LedgerError` where a column holds something else than it is for."""
        try:
            return make(row)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            what = str(error) if isinstance(error, ValueError) else type(error).__name__
            raise LedgerError(
                f"{self.path} holds a row that cannot be understood: {_place(row)}, {what}.",
                fix=f"`ar loop --tag {self.folder.name}` restores it where the run's journal is whole; `ar status "
                "--verify` says which row is not as it was written",
            ) from error

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        return list(self._stream(sql, values))

    def _stream(self, sql: str, values: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
        try:
            # Row by row, so that a caller can read 100,000 experiments without holding them all.
            for row in self._connection.execute(sql, values):
                yield dict(row)
        except sqlite3.Error as error:
            raise schema.unreadable(self.path, error) from error


def text_of(connection: sqlite3.Connection, path: Path, sha256: str) -> str:
    """Read a text by its SHA-256 through an open connection. Raises `LedgerError` when it is missing or damaged."""
    try:
        row = connection.execute("SELECT body FROM texts WHERE sha256 = ?", (sha256,)).fetchone()
        return unpack(row["body"]).decode("utf-8", errors="surrogatepass")
    except (TypeError, zlib.error, UnicodeDecodeError, sqlite3.Error) as error:
        raise schema.unreadable(path, error) from error


CACHED_TEXTS = 64
"""Texts held in memory: the same few are read again and again."""


class Texts:
    """Reads train files by their SHA-256, in any thread, over a connection of its own that opens on first use.

    All sources of a long run would fill the memory.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER_NAME
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self.read = lru_cache(maxsize=CACHED_TEXTS)(self._from_file)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _from_file(self, sha256: str) -> str:
        with self._lock:
            if self._connection is None:
                self._connection = schema.connect(self._path, write=False, shared=True)
            return text_of(self._connection, self._path, sha256)
