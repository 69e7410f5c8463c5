"""Writing a run's ledger: every transition is one transaction, on disk before anything acts on it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoresearch.core.errors import LedgerError, LockedError
from autoresearch.core.judge.decision import Decision, Demotion, RunTrial
from autoresearch.core.proposal import Cost, Proposal
from autoresearch.core.store import chain, schema
from autoresearch.core.store.guarded import TEXT_BYTES
from autoresearch.core.store.inbox import SUBMISSION
from autoresearch.core.store.journal import JOURNAL_NAME, Journal, Write, last_line, write_snapshot
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.store.rows import SHORT_TRIAL, ExperimentRow, RunState, TrialRow
from autoresearch.core.trial.request import TrialResult


class Ledger(LedgerReader):
    """The one writer of a run: every transition is a method. Holds the run's lock until `close`."""

    def __init__(self, folder: Path) -> None:
        """Lock the run and open or make its file. Raises `LedgerError` when another process writes it."""
        from filelock import FileLock, Timeout

        self.folder = folder
        self.path = folder / LEDGER_NAME
        self._open_rows: tuple[ExperimentRow, ...] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / "writer.lock", timeout=0)
            self._lock.acquire()
        except Timeout:
            raise _locked(folder) from None
        except OSError as error:
            raise schema.unreadable(self.path, error) from error
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            try:
                if not self.path.exists():
                    # The journal comes first. So a ledger that a crash left half made is told from one without a
                    # journal.
                    (folder / JOURNAL_NAME).touch()
                self._connection = schema.connect(self.path, write=True)
                opened.callback(self._connection.close)
                self._open_journal()
                opened.callback(self._journal.close)
                self._latest = self._last_time() if self.created else 0.0
            except OSError as error:
                raise schema.unreadable(self.path, error) from error
            self._opened = opened.pop_all()

    def __enter__(self) -> Ledger:
        return self

    def close(self) -> None:
        """Close the file and release the lock."""
        self._opened.close()

    def undecided(self) -> list[ExperimentRow]:
        """Return every undecided experiment, in order, from memory where nothing was written since the last call.

        Nobody else writes while this process holds the run's lock, and the loop asks many times for each step.
        """
        if self._open_rows is None:
            self._open_rows = tuple(super().undecided())
        return list(self._open_rows)

    @property
    def created(self) -> bool:
        """True once there is a run in the file."""
        return bool(self._rows("SELECT 1 FROM sqlite_master WHERE name = 'runs'"))

    def now(self) -> float:
        """Return the time in seconds since the epoch, and one later than every time before where the clock went back.

        Times say which trials are an experiment's and what was decided before it. With a clock that is set back, a
        trial would seem older than its experiment, be left out of the evidence, and be asked for again.
        """
        self._latest = max(time.time(), self._latest + 1e-6)
        return self._latest

    def _last_time(self) -> float:
        """Return the latest time that gives an order, 0 without one."""
        latest = 0.0
        for table, column in _ORDERING:
            fits = f"typeof({column}) = 'real' AND {column} < {_LATEST}"
            latest = max(latest, self._rows(f"SELECT max({column}) AS at FROM {table} WHERE {fits}")[0]["at"] or 0.0)
        return latest

    def create(self, tag: str, config: Mapping[str, Any], base_commit: str) -> None:
        """Make the tables and the run, in one transaction."""
        with self._transaction() as write:
            schema.create_tables(self._connection)
            write(
                "INSERT INTO runs (tag, state, created, config, base_commit) VALUES (?, 'running', ?, ?, ?)",
                (tag, time.time(), json.dumps(config), base_commit),
            )
        self.heartbeat()

    def heartbeat(self) -> None:
        """Record that this process lives, with its number and host."""
        with self._transaction(journal=False) as write:  # a sign of life is nothing to restore
            write("UPDATE runs SET pid = ?, host = ?, heartbeat = ?", (os.getpid(), socket.gethostname(), time.time()))

    def set_state(self, state: RunState, ended: str | None = None) -> None:
        """Record the state of the run as a whole, and the reason for its end."""
        with self._transaction() as write:
            write("UPDATE runs SET state = ?, ended = ?", (state, ended))
            _event(write, "run", None, {"state": state, "ended": ended})

    def propose(
        self,
        number: int,
        proposal: Proposal,
        *,
        parent: int,
        commit: str,
        fingerprint: str,
        program: str,
        created: float,
    ) -> None:
        """Add an experiment in the state `proposed`, with its source and its cost. `created` dates its commit."""
        with self._transaction() as write:
            source = _store_text(write, proposal.source)
            # Trials of the incumbent that an idle device ran before it.
            before = write("SELECT count(*) AS n FROM trials WHERE experiment = ? AND status IS NOT NULL", (number,))
            trials = before.fetchone()["n"]
            write(
                "INSERT INTO experiments (number, state, parent, commit_id, source_sha256, fingerprint, hypothesis,"
                " category, researcher, predicted_delta, parameters, created, trials, usd, origin)"
                " VALUES (?, 'proposed', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(number, parent, commit, source, fingerprint, proposal.hypothesis, proposal.category),
                    *(proposal.researcher, proposal.predicted_delta, json.dumps(dict(proposal.parameters)), created),
                    *(trials, proposal.cost.usd),
                    None if proposal.origin is None else json.dumps(asdict(proposal.origin)),
                ),
            )
            _proposal(write, number, "accepted", None, proposal.researcher, proposal.cost, program)
            _submission(write, proposal.parameters.get(SUBMISSION), "accepted", number)

    def refuse(
        self,
        outcome: str,
        error: str,
        *,
        researcher: str,
        cost: Cost,
        program: str,
        submission: str | None = None,
        experiment: int | None = None,
    ) -> None:
        """Record a proposal that became no experiment.

        `outcome` is "failed" (there was none), "unusable" (it was no train file) or "repeated" (tried before).
        `submission` names the one that it was handed in as, `experiment` the one that had its source before.
        """
        with self._transaction() as write:
            _proposal(write, None, outcome, error, researcher, cost, program)
            _submission(write, submission, outcome, experiment, error)

    def rebase(self, experiment: int, source: str, *, parent: int, commit: str, fingerprint: str) -> None:
        """Move a proposal that waits for a device to another parent."""
        with self._transaction() as write:
            before = write("SELECT parent, commit_id FROM experiments WHERE number = ?", (experiment,)).fetchone()
            _one(
                write(
                    "UPDATE experiments SET source_sha256 = ?, parent = ?, commit_id = ?, fingerprint = ?"
                    " WHERE number = ? AND state = 'proposed'",
                    (_store_text(write, source), parent, commit, fingerprint, experiment),
                )
            )
            payload = {"parent": parent, "from": before["parent"], "commit": before["commit_id"]}
            _event(write, "rebased", experiment, payload)

    def withdraw(self, experiment: int, reason: str) -> None:
        """Drop a proposal that waits for a device. Its cost stays counted."""
        with self._transaction() as write:
            named = "SELECT hypothesis, category FROM experiments WHERE number = ?"
            row = write(named, (experiment,)).fetchone()
            _one(write("DELETE FROM experiments WHERE number = ? AND state = 'proposed'", (experiment,)))
            # Every submission whose outcome was this experiment, those of the same source included. Without the number:
            # another experiment may have it next.
            about = "SELECT DISTINCT json_extract(payload, '$.id') AS id FROM events WHERE kind = ? AND experiment = ?"
            for known in write(about, (SUBMISSION, experiment)).fetchall():
                found = self.submission(known["id"])
                if found is not None and found.experiment == experiment:
                    _submission(write, known["id"], "withdrawn", None, reason)
            write(
                "UPDATE proposals SET outcome = 'outdated', error = ?, experiment = NULL WHERE experiment = ?",
                (reason, experiment),
            )
            decided = write("SELECT count(*) AS n FROM experiments WHERE state = 'decided'").fetchone()["n"]
            told = {"reason": reason, "hypothesis": row["hypothesis"], "category": row["category"], "decided": decided}
            _event(write, "withdrawn", experiment, told)

    def restart_baseline(self, source: str, *, commit: str, fingerprint: str, created: float) -> None:
        """Set a failed baseline back to `proposed`, to be measured again from the train file as it is now.

        Its old trials stay in the ledger; those that started before `created` no longer count.
        """
        with self._transaction() as write:
            sha256 = _store_text(write, source)
            _one(
                write(
                    "UPDATE experiments SET state = 'proposed', source_sha256 = ?, commit_id = ?, fingerprint = ?,"
                    " created = ?, decided = NULL, status = NULL, reason = NULL, trials = 0"
                    " WHERE number = 0 AND status != 'keep'",
                    (sha256, commit, fingerprint, created),
                )
            )
            chain.extend(write, 0, chain.RESTARTED)
            _event(write, "baseline restarted", 0, {})

    def start_trial(self, experiment: int, trial: RunTrial, *, subject: int) -> TrialRow:
        """Move to `running`. A trial of this experiment that never ended is started again under its own number."""
        with self._transaction() as write:
            _one(
                write("UPDATE experiments SET state = 'running' WHERE number = ? AND state != 'decided'", (experiment,))
            )
            k = self._begin(write, experiment, trial, subject)
        return next(row for row in self.trials(experiment=experiment) if row.k == k)

    def start_repeat(self, experiment: int, trial: RunTrial, *, subject: int) -> TrialRow:
        """Start a trial of the incumbent before the experiment that it belongs to: the next one, not proposed yet.

        Its end is a link of the chain: that experiment may be withdrawn, and is then never decided.
        """
        with self._transaction() as write:
            if write("SELECT 1 FROM experiments WHERE number >= ?", (experiment,)).fetchone() is not None:
                raise LedgerError(f"experiment {experiment} is there already; a trial before it comes too late.")
            k = self._begin(write, experiment, trial, subject)
        return next(row for row in self.trials(experiment=experiment) if row.k == k)

    def _begin(self, write: Any, experiment: int, trial: RunTrial, subject: int) -> int:
        """Write the row of a trial that starts, and return its number in the experiment."""
        unfinished = write("SELECT k FROM trials WHERE experiment = ? AND status IS NULL", (experiment,)).fetchone()
        if unfinished is not None:
            k = unfinished["k"]
            write(
                "UPDATE trials SET starts = starts + 1, started = ?, role = ?, subject = ?, seed = ?"
                " WHERE experiment = ? AND k = ?",
                (self.now(), trial.role, subject, trial.seed, experiment, k),
            )
        else:
            k = write("SELECT count(*) + 1 AS k FROM trials WHERE experiment = ?", (experiment,)).fetchone()["k"]
            write(
                "INSERT INTO trials (experiment, k, role, subject, seed, starts, folder, started)"
                " VALUES (?, ?, ?, ?, ?, 1, ?, ?)",
                (experiment, k, trial.role, subject, trial.seed, f"trials/{experiment}-{k}", self.now()),
            )
        return int(k)

    def start_short(self, experiment: int) -> None:
        """Move to `running`: a short trial has begun. It has no row; its end is an event (see `short_trial`)."""
        with self._transaction() as write:
            _one(
                write("UPDATE experiments SET state = 'running' WHERE number = ? AND state != 'decided'", (experiment,))
            )

    def short_trial(self, experiment: int, payload: Mapping[str, Any]) -> None:
        """Move to `scored`: a short trial has ended. It is no trial of the experiment, and gives it no score."""
        with self._transaction() as write:
            _one(
                write("UPDATE experiments SET state = 'scored' WHERE number = ? AND state != 'decided'", (experiment,))
            )
            _event(write, SHORT_TRIAL, experiment, payload)

    def trained(self, experiment: int) -> None:
        """Move from `running` to `trained`: the weights are frozen and will be scored."""
        with self._transaction() as write:
            write("UPDATE experiments SET state = 'trained' WHERE number = ? AND state = 'running'", (experiment,))

    def score(self, experiment: int, k: int, result: TrialResult, *, repeat: bool = False) -> None:
        """Move to `scored`: the trial has ended, well or not, and its whole result is stored.

        A `repeat` (see `start_repeat`) leaves the experiment as it is, if it is proposed by now.
        """
        with self._transaction() as write:
            _one(
                write(
                    "UPDATE trials SET ended = ?, status = ?, val_bpb = ?, result = ?"
                    " WHERE experiment = ? AND k = ? AND status IS NULL",
                    (self.now(), result.status, result.val_bpb, result.model_dump_json(), experiment, k),
                )
            )
            if repeat:
                write("UPDATE experiments SET trials = trials + 1 WHERE number = ?", (experiment,))
                chain.extend_repeat(write, experiment, self.now())
                return
            _one(write("UPDATE experiments SET state = 'scored', trials = trials + 1 WHERE number = ?", (experiment,)))

    def decide(self, experiment: int, decision: Decision, first: TrialRow) -> None:
        """Move from `scored` to `decided`; a kept experiment becomes the incumbent. `first` is its first trial.

        Several experiments may be in flight, so decisions come in another order than numbers. Their times (see `now`)
        give the order.
        """
        with self._transaction() as write:
            _one(
                write(
                    "UPDATE experiments SET state = 'decided', decided = ?, status = ?, reason = ?, estimate = ?,"
                    " delta = ?, val_bpb = ?, peak_memory_mb = ?, metrics = ?, judged = ?"
                    " WHERE number = ? AND state = 'scored'",
                    (
                        *(self.now(), decision.status, decision.reason, decision.estimate),
                        decision.delta,
                        *(first.val_bpb, first.result.get("peak_memory_mb"), json.dumps(_metrics(first))),
                        *(json.dumps(dict(decision.facts)), experiment),
                    ),
                )
            )
            if decision.status == "keep":
                write("UPDATE runs SET incumbent = ?", (experiment,))
            chain.extend(write, experiment, chain.DECIDED)

    def demote(self, demotion: Demotion, successor: int) -> None:
        """Discard the incumbent, and make `successor`, kept before it, the incumbent again."""
        with self._transaction() as write:
            _one(write("UPDATE runs SET incumbent = ? WHERE incumbent = ?", (successor, demotion.experiment)))
            _one(
                write(
                    "UPDATE experiments SET status = 'discard', reason = ? || '; it was kept because ' || reason"
                    " WHERE number = ? AND status = 'keep'",
                    (demotion.reason, demotion.experiment),
                )
            )
            chain.extend(write, demotion.experiment, chain.DEMOTED)
            payload = {"successor": successor, "reason": demotion.reason}
            _event(write, "demoted", demotion.experiment, payload, self.now())

    def note(self, kind: str, experiment: int | None, payload: Mapping[str, Any]) -> None:
        """Record an event beside the experiments; `payload` must fit JSON."""
        with self._transaction() as write:
            _event(write, kind, experiment, payload)

    def _open_journal(self) -> None:
        """Bring the journal in line with the ledger.

        Raises `OSError`, and `LedgerError` where the journal has steps that the ledger has lost: a new journal would
        lose them for good, and `restore.mend` brings them back.
        """
        path, known = self.folder / JOURNAL_NAME, self._step() if self.created else 0
        line = last_line(path)
        if line is not None and line.number == known + 1:
            # The line was written and never committed: nothing acted on the step, and it will be taken again.
            os.truncate(path, line.start)
            line = last_line(path)
        elif line is not None and line.number > known:
            name = self.folder.name
            raise LedgerError(
                f"the ledger of {name} has lost its last {line.number - known} steps; its journal has them.",
                fix=f"`ar loop --tag {name}` restores it",
            )
        if (line.number if line is not None else 0) != known:
            write_snapshot(path, known, self._everything())
        self._journal = Journal(path)

    def _step(self) -> int:
        """Return the number of the ledger's last transition."""
        return int(self._rows("SELECT coalesce(max(journal), 0) AS n FROM runs")[0]["n"])

    def _everything(self) -> list[Write]:
        """Return every row as the statement that makes it."""
        found: list[Write] = []
        for table in schema.TABLES:
            for row in self._rows(f"SELECT * FROM {table}"):
                marks = ", ".join("?" for _ in row)
                found.append((f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values())))
        return found

    @contextmanager
    def _transaction(self, *, journal: bool = True) -> Iterator[Any]:
        """Write everything in the block or nothing, to the journal and the ledger, on disk when the block is left."""
        execute = self._connection.execute
        self._open_rows = None
        writes: list[Write] = []

        def write(sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
            # Statements with their values are the journal's unit, not changed rows: replaying them makes the same
            # ledger, and no second description of every table can be wrong.
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
                    # The journal first, the ledger second. A crash between the two leaves one line too many, which
                    # `_open_journal` cuts off. The other order could lose a step that was already acted on.
                    self._journal.append(before + 1, writes)
                execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    execute("ROLLBACK")
                # The commit failed after the line was written, on a full disk for one: the line must go, or a restored
                # ledger would hold a step that this process never took.
                if self._journal.last != before:
                    self._journal.drop(before)
                raise
        except (OSError, sqlite3.Error) as error:
            raise schema.unreadable(self.path, error) from error


def _locked(folder: Path) -> LockedError:
    who = "another process"
    try:
        with LedgerReader(folder) as reader:
            run = reader.run()
            if run.pid is not None:
                who = f"process {run.pid} on {run.host}"
    except LedgerError:
        pass  # the other process has not written its name yet
    return LockedError(
        f"the run {folder.name!r} is being written by {who}.",
        fix="wait for it, stop it with Ctrl-C, or start another run with --tag",
    )


_ORDERING = (
    *(("experiments", "created"), ("experiments", "decided")),
    *(("trials", "started"), ("trials", "ended"), ("events", "time")),
)
"""Tables and columns of the times that give an order."""
_LATEST = 1e11
"""Seconds since the epoch, thousands of years away: a later time in a ledger is damage."""
_METRICS = (
    *("tokens", "steps", "params", "peak_memory_mb", "tokens_per_second", "startup_seconds", "train_seconds"),
    *("eval_seconds", "wall_seconds", "mfu", "predicted_bpb", "predicted_low", "predicted_high"),
)


def _metrics(trial: TrialRow) -> dict[str, Any]:
    return {name: trial.result.get(name) for name in _METRICS}


def _store_text(write: Any, text: str) -> str:
    body = text.encode("utf-8", errors="surrogatepass")
    if len(body) > TEXT_BYTES:
        raise LedgerError(f"a train file or program.md of {len(body)} bytes; at most {TEXT_BYTES} are kept.")
    sha256 = hashlib.sha256(body).hexdigest()
    write(
        "INSERT OR IGNORE INTO texts (sha256, body, first_used) VALUES (?, ?, ?)",
        (sha256, zlib.compress(body), time.time()),
    )
    return sha256


def _proposal(
    write: Any, experiment: int | None, outcome: str, error: str | None, researcher: str, cost: Cost, program: str
) -> None:
    write(
        "INSERT INTO proposals (time, experiment, outcome, error, researcher, model, tokens_in, tokens_out, usd,"
        " program_sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(time.time(), experiment, outcome, error, researcher, cost.model, cost.tokens_in, cost.tokens_out),
            *(cost.usd, _store_text(write, program)),
        ),
    )


def _submission(
    write: Any, identity: object, outcome: str, experiment: int | None = None, reason: str | None = None
) -> None:
    """Record what became of a submission, in the transaction that makes it so."""
    if isinstance(identity, str):
        _event(write, SUBMISSION, experiment, {"id": identity, "outcome": outcome, "reason": reason})


def _event(write: Any, kind: str, experiment: int | None, payload: Mapping[str, Any], at: float | None = None) -> None:
    write(
        "INSERT INTO events (time, kind, experiment, payload) VALUES (?, ?, ?, ?)",
        (time.time() if at is None else at, kind, experiment, json.dumps(payload)),
    )


def _one(cursor: sqlite3.Cursor) -> None:
    """Raise `LedgerError` unless one row changed: anything else means that two loops or a bug wrote this ledger."""
    if cursor.rowcount != 1:
        raise LedgerError("the ledger is not in the state that this step needs; nothing was written.")
