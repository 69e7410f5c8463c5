from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from disk_waits import with_disk_waits

from autoresearch.core.errors import LedgerError
from autoresearch.core.followup.ablate import kept_changes
from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.proposal import Cost, Proposal
from autoresearch.core.store import schema
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.trial.request import TrialResult


def fill(ledger, *values):
    """A decided experiment per value; None is a crash."""
    for number, value in enumerate(values):
        proposal = Proposal(f"x = {value}", f"try {value}", "shape", cost=Cost(5, 1, 0.25), researcher="r")
        ledger.propose(
            number,
            proposal,
            parent=0,
            commit=f"c{number}",
            fingerprint=f"f{number}",
            program="p",
            created=float(number),
        )
        trial = ledger.start_trial(number, RunTrial("candidate", 7), subject=number)
        status = "crash" if value is None else "ok"
        ledger.score(number, trial.k, TrialResult(status=status, val_bpb=value, seed=7, backend="null", preset="demo"))
        decision = Decision("keep" if value is not None else "crash", value, None, "because")
        ledger.decide(number, decision, ledger.trials(experiment=number)[0])


@pytest.fixture
def folder(tmp_path):
    with Ledger(tmp_path / "run") as ledger:
        ledger.create("run", {"seed": 7, "backend": "null"}, "base")
    return tmp_path / "run"


def test_what_is_written_is_read_back_also_while_the_writer_holds_it(folder):
    with Ledger(folder) as ledger:
        fill(ledger, 1.5, None, 1.25)
        with LedgerReader(folder) as reader:
            assert [row.status for row in reader.experiments()] == ["keep", "crash", "keep"]
            assert [row.number for row in reader.last(2)] == [1, 2]
            assert reader.incumbent().val_bpb == 1.25
            assert reader.text(reader.experiment(2).source_sha256) == "x = 1.25"
            assert reader.tried_as("f1") == 1
            assert reader.tried_as("other") is None
            totals = reader.totals()
            assert (totals.decided, totals.by_status, totals.usd) == (2, {"keep": 1, "crash": 1}, 0.75)
            assert (reader.run().pid, reader.run().config["seed"]) == (os.getpid(), 7)


def test_an_unknown_price_makes_the_sum_unknown(folder):
    with Ledger(folder) as ledger:
        ledger.refuse("failed", "no answer", researcher="r", cost=Cost(1, 1, None), program="p")
        assert ledger.totals().usd is None


def test_a_second_writer_is_refused_and_told_who_writes(folder):
    code = (
        f"import os, time; from pathlib import Path; from autoresearch.core.store.ledger import Ledger;"
        f"l = Ledger(Path({str(folder)!r})); l.heartbeat(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        pid = other.stdout.readline().strip()
        with pytest.raises(LedgerError, match=rf"'run' is being written by process {pid} on"):
            Ledger(folder)
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    Ledger(folder).close()  # the lock dies with its process


def test_a_transition_that_the_state_does_not_allow_changes_nothing(folder):
    with Ledger(folder) as ledger:
        fill(ledger, 1.5)
        with pytest.raises(LedgerError, match="not in the state"):
            ledger.start_trial(0, RunTrial("candidate", 7), subject=0)
        with pytest.raises(LedgerError, match="not in the state"):
            ledger.decide(0, Decision("discard", 1.0, 0.0, "again"), ledger.trials(experiment=0)[0])
        assert ledger.experiment(0).status == "keep"
        assert len(ledger.trials(experiment=0)) == 1


def test_a_transaction_that_fails_half_way_leaves_nothing(folder):
    with Ledger(folder) as ledger:
        fill(ledger, 1.5)
        again = Proposal("y = 1", "y", "shape")
        with pytest.raises(LedgerError):
            ledger.propose(0, again, parent=0, commit="c", fingerprint="f", program="new", created=1.0)
        assert ledger._rows("SELECT count(*) AS n FROM texts")[0]["n"] == 2  # the first source and the first program


@pytest.mark.parametrize("damage", ["garbage", "middle", "foreign", "empty"])
def test_a_damaged_ledger_is_one_clear_line(folder, damage):
    with Ledger(folder) as ledger:
        fill(ledger, *(float(n) for n in range(60)))
    path = folder / "ledger.sqlite"
    if damage == "garbage":
        path.write_bytes(b"no database at all" * 400)
    elif damage == "middle":
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
    elif damage == "foreign":
        path.unlink()
        sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    else:
        path.write_bytes(b"")
    with pytest.raises(LedgerError, match=re.escape(str(path))) as raised, LedgerReader(folder) as reader:
        list(reader.experiments())
    assert "Fix:" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert damage != "empty" or "it is empty. Fix: check the disk" in str(raised.value)


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are laid down in a child process")
def test_a_ledger_in_a_folder_of_somebody_else_is_read():
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "run"
        with Ledger(folder) as ledger:
            ledger.create("run", {"seed": 7, "backend": "null"}, "base")
            fill(ledger, 1.5)
        Path(made).chmod(0o755)
        folder.chmod(0o555)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                with LedgerReader(folder) as reader:
                    code = 0 if reader.incumbent().val_bpb == 1.5 else 1
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        folder.chmod(0o755)


def test_a_ledger_of_a_newer_version_is_refused(folder):
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="newer ar"):
        LedgerReader(folder)
    with pytest.raises(LedgerError, match="newer ar"):
        Ledger(folder)


def test_a_run_that_is_not_there_is_an_error_and_is_not_made(tmp_path):
    with pytest.raises(LedgerError, match="there is no ledger"):
        LedgerReader(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_ledger_whose_creation_was_cut_off_is_created_again(tmp_path):
    folder = tmp_path / "run"
    Ledger(folder).close()  # the file is there, without a table
    with Ledger(folder) as ledger:
        assert not ledger.created
        ledger.create("run", {}, "base")
        assert ledger.run().tag == "run"


def test_writers_are_durable_and_do_not_block_readers(folder, monkeypatch):
    with_disk_waits(monkeypatch)
    flushed, flush = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (flushed.append(os.fstat(descriptor).st_size), flush(descriptor))
    )
    with Ledger(folder) as ledger:
        assert ledger._rows("PRAGMA journal_mode")[0]["journal_mode"] == "wal"
        assert ledger._rows("PRAGMA synchronous")[0]["synchronous"] == 2
        ledger.set_state("running")
        assert flushed[-1] == (folder / "journal.jsonl").stat().st_size
        with LedgerReader(folder) as reader, ledger._transaction() as write:
            write("UPDATE runs SET state = 'finished'")
            assert reader.run().state == "running"


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("database or disk is full"), OSError(30, "Read-only file system", "/w/runs/t")]
)
def test_a_disk_that_takes_nothing_is_not_called_a_damaged_ledger(tmp_path, error):
    said = str(schema.unreadable(tmp_path / "ledger.sqlite", error))
    assert "cannot be read or written" in said and "then give the same command again" in said
    assert "damaged" not in said and "Errno" not in said


def test_a_path_that_is_too_long_for_sqlite_is_not_called_a_damaged_ledger(tmp_path):
    folder = tmp_path.joinpath(*["d" * 200] * 3)
    with pytest.raises(LedgerError, match=r"its path has \d+ bytes, and SQLite takes 500 at most\. Fix: move the"):
        Ledger(folder)


def test_a_ledger_that_cannot_be_opened_leaves_neither_file_nor_lock_behind(tmp_path, monkeypatch):
    opened, connect = [], schema.connect
    monkeypatch.setattr(schema, "connect", lambda *given, **more: opened.append(connect(*given, **more)) or opened[-1])
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(LedgerError, match=r"journal\.jsonl cannot be read or written: Is a directory\. Fix: check the"):
        Ledger(tmp_path)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")
    (tmp_path / "journal.jsonl").rmdir()
    Ledger(tmp_path).close()


def test_the_last_trial_is_the_one_that_ended_last_whichever_began_first(folder):
    with Ledger(folder) as ledger:
        fill(ledger, 1.5)
        for number in (1, 2):
            proposal = Proposal(f"x = {number}", "", "shape")
            ledger.propose(
                number, proposal, parent=0, commit="c", fingerprint=f"g{number}", program="p", created=float(number)
            )
        begun = {number: ledger.start_trial(number, RunTrial("candidate", 7), subject=number) for number in (1, 2)}
        for number in (2, 1):
            result = TrialResult(status="ok", val_bpb=1.0, seed=7, backend="null", preset="demo")
            ledger.score(number, begun[number].k, result)
        assert ledger.last_trial().experiment == 1


def decided_out_of_order(ledger):
    """Experiments 1 and 2 are edits of the baseline under way at once: 2 is kept first, then 1 in its place."""
    for number in range(3):
        more = {"commit": f"c{number}", "fingerprint": f"f{number}", "program": "p", "created": float(number)}
        ledger.propose(number, Proposal(f"x = {number}", f"try {number}", "shape"), parent=0, **more)
    for number, value in ((0, 1.5), (2, 1.25), (1, 1.0)):
        trial = ledger.start_trial(number, RunTrial("candidate", 7), subject=number)
        ledger.score(number, trial.k, TrialResult(status="ok", val_bpb=value, seed=7, backend="null", preset="demo"))
        ledger.decide(number, Decision("keep", value, None, "because"), ledger.trials(experiment=number)[0])


def test_the_best_file_before_another_is_the_one_that_was_kept_last_before_it(folder):
    with Ledger(folder) as ledger:
        decided_out_of_order(ledger)
        assert ledger.incumbent().number == 1
        assert [row and row.number for row in map(ledger.keep_before, (1, 2, 0))] == [2, 0, None]


def test_a_file_descends_from_its_parents_and_not_from_whatever_was_kept_meanwhile(folder):
    with Ledger(folder) as ledger:
        decided_out_of_order(ledger)
        assert [row.number for row in ledger.lineage(1)] == [1]
        assert [change.experiment for change in kept_changes(ledger)] == [1]
        assert ledger.lineage(0) == []
