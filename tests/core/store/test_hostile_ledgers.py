"""Ledgers and journals that somebody has made to do harm, and runs whose ledger and journal are both damaged."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
import zlib

import pytest
from loop_fixtures import finished_run

from autoresearch.core.errors import LedgerError
from autoresearch.core.proposal import Cost
from autoresearch.core.store import contents, guarded, schema
from autoresearch.core.store.journal import JOURNAL_NAME, read_lines
from autoresearch.core.store.ledger import _METRICS, Ledger
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.store.restore import damage, mend
from autoresearch.core.trial.request import TrialResult

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = finished_run(tmp_path_factory.mktemp("hostile") / "w")
    with sqlite3.connect(folder / LEDGER_NAME) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "t")


def edit(folder, *statements):
    connection = sqlite3.connect(folder / LEDGER_NAME, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def rows(folder, *tables):
    connection = sqlite3.connect(folder / LEDGER_NAME)
    # When a text was first used depends on which line brings it in.
    what = {"texts": "sha256, body"}
    found = [connection.execute(f"SELECT {what.get(one, '*')} FROM {one} ORDER BY 1, 2").fetchall() for one in tables]
    connection.close()
    return found


def swapped(*wrong):
    """The table `runs` under another name, and something else in its place."""
    return ("ALTER TABLE runs RENAME TO texts2", *wrong)


HOSTILE = {
    "an endless view": swapped(f"CREATE VIEW runs AS {ENDLESS} i AS tag FROM n"),
    "an endless view beside the tables": (f"CREATE VIEW extra AS {ENDLESS} i FROM n",),
    "a trigger": ("CREATE TRIGGER t AFTER UPDATE ON runs BEGIN DELETE FROM experiments; END",),
    "a generated column": ("ALTER TABLE runs ADD COLUMN more AS (hex(zeroblob(500000000)))",),
    "a hidden column under a known name": (
        "ALTER TABLE experiments DROP COLUMN judged",
        "ALTER TABLE experiments ADD COLUMN judged AS (hex(zeroblob(500000000)))",
    ),
    "an index on an expression": ("CREATE INDEX i ON runs (abs(created))",),
    "a partial index": ("CREATE INDEX i ON runs (created) WHERE created > 0",),
    "a virtual table": swapped("CREATE VIRTUAL TABLE runs USING fts5(tag, config)"),
    "a table of its own": ("CREATE TABLE more (x)",),
    "a view that sqlite_master calls a table": (
        "CREATE VIEW extra AS SELECT 1",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET type = 'table', tbl_name = 'chain' WHERE name = 'extra'",
    ),
}


@pytest.mark.parametrize("statements", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("open_it", [LedgerReader, Ledger], ids=["read", "written"])
def test_a_ledger_that_would_run_something_is_refused_at_once(folder, statements, open_it):
    edit(folder, *statements)
    began = time.thread_time()
    with pytest.raises(LedgerError, match=r"holds more than a ledger|cannot be used as a ledger"):
        open_it(folder)
    assert time.thread_time() - began < 2


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH '{there}' AS other",
        "DELETE FROM experiments",
        "PRAGMA user_version = 9",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = DELETE",
        "SELECT load_extension('x')",
        "SELECT hex(zeroblob(1000000000))",
        f"{ENDLESS} count(*) FROM n",
        "SELECT * FROM json_each('[1]')",
        "SELECT * FROM pragma_database_list",
        "VACUUM INTO '{there}'",
        "CREATE TEMP TABLE x (y)",
    ],
)
def test_a_reader_may_read_its_tables_and_nothing_else(folder, tmp_path, sql):
    there = tmp_path / "there"
    with LedgerReader(folder) as reader, pytest.raises(sqlite3.Error):
        reader._connection.execute(sql.replace("{there}", str(there))).fetchall()
    assert not there.exists()


def test_a_statement_that_takes_too_many_steps_is_ended(folder, monkeypatch):
    monkeypatch.setattr(guarded, "STEPS", 3_000_000)
    with LedgerReader(folder) as reader:
        many = ", ".join(f"experiments AS e{n}" for n in range(14))
        with pytest.raises(LedgerError, match="interrupted"):
            reader._rows(f"SELECT count(*) FROM {many} WHERE e0.number + e13.number > 99")
        assert reader.run().tag == "t", "the next statement counts from zero"


def test_a_small_blob_that_unpacks_to_gigabytes_is_refused(folder):
    bomb = zlib.compress(bytes(2**26), 9)
    connection = sqlite3.connect(folder / LEDGER_NAME)
    connection.execute("UPDATE texts SET body = ?", (bomb,))
    connection.commit()
    connection.close()
    with LedgerReader(folder) as reader:
        assert "its source is not the one" in reader.verify().fault
        with pytest.raises(LedgerError, match="more than 16777216 bytes"):
            reader.text(reader.experiment(1).source_sha256)


def test_a_text_that_could_not_be_read_again_is_not_written(folder):
    with Ledger(folder) as ledger, pytest.raises(LedgerError, match="at most"):
        ledger.refuse("failed", "", researcher="x", cost=Cost(), program="x" * (2**24 + 1))


def add_line(folder, sql, *values):
    body = json.dumps({"n": list(read_lines(folder / JOURNAL_NAME))[-1][0] + 1, "writes": [[sql, values]]}).encode()
    with (folder / JOURNAL_NAME).open("ab") as file:
        file.write(f"{zlib.crc32(body):08x} ".encode() + body + b"\n")


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH DATABASE '{there}' AS other",
        "VACUUM INTO '{there}'",
        "CREATE TRIGGER t AFTER UPDATE ON runs BEGIN DELETE FROM experiments; END",
        "DROP TABLE experiments",
        "PRAGMA journal_mode = OFF",
        "COMMIT",
        "UPDATE sqlite_master SET sql = 'x'",
        "INSERT INTO events (kind, payload) SELECT kind, payload FROM events",
        "UPDATE runs SET tag = hex(zeroblob(400000000))",
        f"INSERT INTO events (id) {ENDLESS} i FROM n",
        "UPDATE runs SET tag = 'a'; DROP TABLE runs",
        "nonsense",
    ],
)
def test_a_journal_can_change_rows_and_nothing_else(folder, tmp_path, sql):
    there = tmp_path / "there"
    add_line(folder, sql.replace("{there}", str(there)))
    ledger = folder / LEDGER_NAME
    ledger.write_bytes(b"torn" * 100)
    with pytest.raises(LedgerError, match="is not a step of a run"):
        mend(folder, pytest.fail)
    assert not there.exists()
    assert ledger.read_bytes() == b"torn" * 100, "the damaged ledger stays where it was"


@pytest.mark.parametrize("body", [b"[]", b'{"n": "x"}', b'{"n": 9, "writes": 3}', b"[" * 100_000, b'{"n": 1e999}'])
def test_a_line_that_has_a_checksum_and_no_sense_counts_as_damaged(folder, body):
    with (folder / JOURNAL_NAME).open("ab") as file:
        file.write(f"{zlib.crc32(body):08x} ".encode() + body + b"\n")
    before = rows(folder, "experiments", "trials")
    (folder / LEDGER_NAME).unlink()
    assert mend(folder, lambda _: None)
    assert rows(folder, "experiments", "trials") == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE experiments SET val_bpb = 0.1 WHERE number = 2",
        "UPDATE trials SET result = '{}' WHERE experiment = 1",
        "DELETE FROM experiments WHERE number = 1",
        "UPDATE chain SET digest = 'x' WHERE experiment = 2",
        "UPDATE experiments SET reason = x'00ff' WHERE number = 1",
    ],
)
def test_a_row_that_is_not_as_it_was_decided_is_restored_from_the_journal(folder, statement):
    before = rows(folder, "experiments", "trials", "chain", "texts")
    edit(folder, statement)
    said = []
    assert mend(folder, said.append)
    assert "is restored from its journal" in said[0]
    assert rows(folder, "experiments", "trials", "chain", "texts") == before
    assert damage(folder) is None


def spoil_line(folder, which):
    """Overwrite some bytes of one line of the journal."""
    lines = (folder / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    lines[which] = lines[which][:20] + b"?" * 9 + lines[which][29:]
    (folder / JOURNAL_NAME).write_bytes(b"".join(lines))


def line_of(folder, words):
    lines = (folder / JOURNAL_NAME).read_bytes().splitlines()
    return next(at for at, line in enumerate(lines) if words in line)


def sound(folder):
    assert damage(folder) is None
    with Ledger(folder) as ledger:
        assert ledger.verify().fault is None
        ledger.note("probe", None, {})
    assert damage(folder) is None


@pytest.mark.parametrize("words", [b"UPDATE trials SET ended", b"INSERT INTO experiments", b"INSERT INTO runs"])
def test_what_the_journal_has_lost_is_taken_from_a_ledger_with_another_damage(folder, words):
    before = rows(folder, "experiments", "trials", "chain", "texts", "events", "proposals")
    spoil_line(folder, line_of(folder, words))
    edit(folder, "UPDATE experiments SET val_bpb = 0.1 WHERE number = 3")
    said = []
    assert mend(folder, said.append)
    assert "its journal is damaged too" in said[0] and "nothing decided is lost" in said[0] and len(said) == 1
    assert rows(folder, "experiments", "trials", "chain", "texts", "events", "proposals") == before
    sound(folder)


def test_a_journal_with_a_gap_and_no_ledger_keeps_everything_but_the_gap(folder):
    before = rows(folder, "experiments")[0]
    spoil_line(folder, line_of(folder, b"category"))
    (folder / LEDGER_NAME).unlink()
    said = []
    assert mend(folder, said.append)
    assert "its journal is damaged too" in said[0] and "1 steps" in said[0]
    kept = rows(folder, "experiments")[0]
    assert len(kept) >= len(before) - 1 and set(kept) <= set(before)
    sound(folder)


def test_an_experiment_that_both_have_lost_is_named(folder):
    lines = (folder / JOURNAL_NAME).read_bytes().splitlines()
    decided = [at for at, line in enumerate(lines) if b"SET state = 'decided'" in line]
    spoil_line(folder, decided[2])
    edit(folder, "UPDATE experiments SET val_bpb = 0.1 WHERE number = 2")
    said = []
    assert mend(folder, said.append)
    assert "experiments 2 as they were decided" in said[0]
    sound(folder)


def test_rows_are_read_past_a_damaged_page_of_a_ledger_without_a_journal(folder):
    path = folder / LEDGER_NAME
    before = rows(folder, "experiments", "texts")
    (folder / JOURNAL_NAME).unlink()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * page_size)
        file.write(b"\xff" * page_size)
    said = []
    assert mend(folder, said.append)
    assert "its journal is damaged too" in said[0]
    assert rows(folder, "experiments", "texts") == before
    sound(folder)


def test_the_columns_and_keys_that_are_checked_are_those_of_the_tables():
    assert set(schema.COLUMNS) == set(schema.KEYS) == set(schema.TABLES)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET config = '[1]'",
        f"UPDATE runs SET config = '{'[' * 100_000}'",
        "UPDATE runs SET created = 'now'",
        "UPDATE runs SET tag = x'00'",
        "UPDATE runs SET created = 9e999",
        "UPDATE runs SET base_commit = NULL",
        "UPDATE runs SET incumbent = 'two'",
        """UPDATE runs SET config = '{"backend": ["null"]}'""",
        """UPDATE runs SET config = '{"vocabularies": ["x"]}'""",
    ],
)
def test_a_row_that_holds_something_else_is_an_error_of_the_ledger(folder, statement):
    edit(folder, statement)
    with LedgerReader(folder) as reader, pytest.raises(LedgerError, match="cannot be understood"):
        reader.run()


@pytest.mark.parametrize(
    "change",
    [
        "val_bpb = 'low'",
        "delta = x'00'",
        "created = NULL",
        "decided = 1e300",
        "state = NULL",
        "trials = 1.5",
        "judged = '5'",
        "metrics = '[]'",
        "parameters = '[1]'",
        "origin = '[1]'",
    ],
)
def test_an_experiment_that_holds_something_else_is_an_error_of_the_ledger(folder, change):
    edit(folder, f"UPDATE experiments SET {change}")
    with LedgerReader(folder) as reader:
        for read in (lambda: list(reader.experiments()), lambda: reader.experiment(0)):
            with pytest.raises(LedgerError, match="cannot be understood"):
                read()


@pytest.mark.parametrize(
    "change", ["val_bpb = 'low'", "seed = NULL", "started = 1e300", "role = x'00'", "result = '[]'"]
)
def test_a_trial_that_holds_something_else_is_an_error_of_the_ledger(folder, change):
    edit(folder, f"UPDATE trials SET {change}")
    with LedgerReader(folder) as reader, pytest.raises(LedgerError, match="cannot be understood"):
        reader.every_trial()


def test_a_setting_that_the_ledger_lacks_is_named(folder):
    edit(folder, "UPDATE runs SET config = '{}'")
    with LedgerReader(folder) as reader, pytest.raises(LedgerError, match="does not say which backend"):
        reader.run().config["backend"]


FAULTS = (
    (
        "UPDATE trials SET result = json_set(result, '$.train_seconds', -3) WHERE experiment = 1",
        "trial 1 of experiment 1",
    ),
    ("UPDATE trials SET result = json_set(result, '$.tokens', 'many') WHERE experiment = 1", "result.tokens is text"),
    ("UPDATE trials SET result = json_set(result, '$.curve', json('[1, []]'))", "result.curve is a list"),
    ("UPDATE trials SET result = json_set(result, '$.audit', 5)", "result.audit is 5"),
    ("UPDATE trials SET val_bpb = 9e999 WHERE experiment = 2", "trial 1 of experiment 2, val_bpb is inf"),
    ("UPDATE trials SET val_bpb = 1e308 WHERE experiment = 2", r"val_bpb is 1e\+308"),
    ("UPDATE trials SET subject = x'00' WHERE experiment = 2", "subject is bytes"),
    ("UPDATE experiments SET estimate = -9e999 WHERE number = 2", "experiment 2, estimate is -inf"),
    ("UPDATE experiments SET judged = '{\"measured\": [1]}' WHERE number = 2", "judged.measured is a list"),
    ("UPDATE experiments SET judged = '{\"parts\": [1]}' WHERE number = 2", "judged.parts is a list"),
    ("UPDATE experiments SET judged = '{\"sigma\": NaN}' WHERE number = 2", "judged.sigma is nan"),
    ("UPDATE experiments SET judged = '{\"dof\": 0}' WHERE number = 2", "judged.dof is 0"),
    ('UPDATE experiments SET metrics = \'{"wall_seconds": "x"}\' WHERE number = 2', "metrics.wall_seconds is text"),
    (f"UPDATE experiments SET judged = '{'[' * 100_000}' WHERE number = 2", "judged has lists within lists"),
)


@pytest.mark.parametrize(("statement", "words"), FAULTS, ids=range(len(FAULTS)))
def test_a_row_with_a_wrong_value_inside_is_named_with_the_value_and_a_loop_restores_it(folder, statement, words):
    before = rows(folder, "experiments", "trials")
    edit(folder, statement)
    with LedgerReader(folder) as reader, pytest.raises(LedgerError, match=words) as told:
        list(reader.experiments())
        reader.every_trial()
    assert "\n" not in str(told.value) and "`ar loop --tag t` restores it" in str(told.value)
    assert mend(folder, lambda _: None)
    assert rows(folder, "experiments", "trials") == before


EVENTS = (
    (
        "followup trial",
        {"command": "verify", "call": 1, "name": "a", "val_bpb": float("inf")},
        "payload.val_bpb is inf",
    ),
    ("followup trial", {"command": "verify", "call": 1, "name": "a"}, "payload lacks val_bpb"),
    ("verified", {"experiment": 1, "seeds": 3, "delta": "x"}, "payload.delta is text"),
    ("ablated", {"changes": [{"experiment": "x"}]}, "payload.changes is a list"),
    ("scaled", {"conditions": 5}, "payload.conditions is 5"),
    ("short trial", {"experiment": 10**400}, "payload.experiment is a number that is too large"),
)


@pytest.mark.parametrize(("kind", "payload", "words"), EVENTS, ids=range(len(EVENTS)))
def test_an_event_with_a_wrong_value_is_named(folder, kind, payload, words):
    connection = sqlite3.connect(folder / LEDGER_NAME)
    values = (time.time(), kind, 1, json.dumps(payload))
    connection.execute("INSERT INTO events (time, kind, experiment, payload) VALUES (?, ?, ?, ?)", values)
    connection.commit()
    connection.close()
    with LedgerReader(folder) as reader, pytest.raises(LedgerError, match=rf"event \d+ \({kind}\), {words}"):
        reader.events(kind)


def test_bytes_in_a_row_are_a_fault_of_the_chain(folder):
    edit(folder, "UPDATE trials SET subject = x'00' WHERE experiment = 2")
    with LedgerReader(folder) as reader:
        assert reader.verify().fault == reader.chain_faults()[0]
        assert reader.chain_faults()[0].startswith("experiment 2: its row or its trials are not what was written")


def test_the_figures_that_are_checked_are_those_of_a_trial_s_result():
    told = set(contents.RESULT)
    assert told <= set(TrialResult.model_fields)
    numbers = {name for name, one in TrialResult.model_fields.items() if re.search("int|float", str(one.annotation))}
    assert numbers - told == {"seed"}, "the ledger has the seed in a column of its own"
    assert set(_METRICS) <= set(contents.METRICS)


def test_a_score_that_is_not_finite_is_no_result():
    for value in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite number"):
            TrialResult(status="ok", val_bpb=value, seed=0, backend="null", preset="demo")
    text = '{"status": "ok", "val_bpb": Infinity, "seed": 0, "backend": "null", "preset": "demo"}'
    with pytest.raises(ValueError, match="finite number"):
        TrialResult.model_validate_json(text)
