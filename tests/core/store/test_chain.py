"""The hash chain over decisions: what is edited afterwards is named."""

from __future__ import annotations

import shutil
import sqlite3

import pytest
from loop_fixtures import finished_run

from autoresearch.core.judge.decision import Demotion
from autoresearch.core.store import schema
from autoresearch.core.store.journal import JOURNAL_NAME, read_lines
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.store.restore import mend


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of a baseline and three experiments."""
    return finished_run(tmp_path_factory.mktemp("chain") / "w")


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of it that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "t")


def verify(folder):
    with LedgerReader(folder) as reader:
        return reader.verify()


def edit(folder, *statements):
    connection = sqlite3.connect(folder / LEDGER_NAME)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_run_as_the_loop_left_it_fits(folder):
    assert (verify(folder).links, verify(folder).fault) == (4, None)


@pytest.mark.parametrize(
    ("statement", "experiment"),
    [
        ("UPDATE experiments SET val_bpb = val_bpb - 0.01 WHERE number = 2", 2),
        ("UPDATE experiments SET status = 'crash' WHERE number = 3", 3),
        ("UPDATE experiments SET reason = 'because' WHERE number = 1", 1),
        ("UPDATE trials SET val_bpb = 0.5 WHERE experiment = 1", 1),
        ("UPDATE trials SET result = replace(result, '\"seed\"', '\"mood\"') WHERE experiment = 2", 2),
        ("DELETE FROM trials WHERE experiment = 2", 2),
        ("DELETE FROM experiments WHERE number = 1", 1),
        ("UPDATE experiments SET state = 'proposed' WHERE number = 2", 2),
        ("UPDATE chain SET digest = 'x' WHERE experiment = 2", 2),
        ("DELETE FROM chain WHERE experiment = 1", 2),
        ("UPDATE runs SET config = '{}'", 0),
        ("UPDATE runs SET incumbent = (SELECT number FROM experiments WHERE status != 'keep')", None),
    ],
)
def test_the_first_row_that_was_edited_is_named(folder, statement, experiment):
    edit(folder, statement)
    fault = verify(folder).fault
    assert fault is not None
    assert experiment is None or fault.startswith(f"experiment {experiment}:"), fault


def test_an_edited_source_is_named(folder):
    edit(
        folder, "UPDATE texts SET body = x'789c03000000000001' WHERE sha256 IN (SELECT source_sha256 FROM experiments)"
    )
    assert "its source is not the one that was tried" in verify(folder).fault


def test_a_row_that_somebody_added_is_named(folder):
    names = [row[1] for row in sqlite3.connect(folder / LEDGER_NAME).execute("PRAGMA table_info(experiments)")]
    rest = ", ".join(name for name in names if name != "number")
    edit(folder, f"INSERT INTO experiments (number, {rest}) SELECT 9, {rest} FROM experiments WHERE number = 1")
    assert verify(folder).fault == "experiment 9: it is decided, and the chain does not know of it"


def test_a_demotion_is_a_link_of_its_own(folder):
    with Ledger(folder) as ledger:
        best = ledger.incumbent().number
        ledger.demote(Demotion(best, "it did not hold"), 0)
    assert (verify(folder).links, verify(folder).fault) == (5, None)
    edit(folder, f"UPDATE experiments SET status = 'keep' WHERE number = {best}")
    assert "demoted" in verify(folder).fault


def test_an_older_ledger_is_chained_when_it_is_opened_and_its_journal_is_written_anew(folder):
    edit(folder, "DROP TABLE chain", "ALTER TABLE experiments DROP COLUMN origin", "PRAGMA user_version = 2")
    assert "before ledgers were chained" in verify(folder).fault
    with Ledger(folder):
        pass
    assert (verify(folder).links, verify(folder).fault) == (4, None)
    assert len(list(read_lines(folder / JOURNAL_NAME))) == 1
    with (folder / LEDGER_NAME).open("r+b") as file:
        file.truncate(5000)
    assert mend(folder, lambda _: None)
    assert (verify(folder).links, verify(folder).fault) == (4, None)


def test_a_ledger_from_before_origins_keeps_its_chain_and_its_journal(folder):
    edit(folder, "ALTER TABLE experiments DROP COLUMN origin", "PRAGMA user_version = 3")
    with LedgerReader(folder) as reader:
        assert [row.origin for row in reader.experiments()] == [None] * 4
    lines = len(list(read_lines(folder / JOURNAL_NAME)))
    with Ledger(folder) as ledger:
        assert ledger._rows("PRAGMA user_version")[0]["user_version"] == schema.SCHEMA_VERSION
    assert (verify(folder).links, verify(folder).fault) == (4, None)
    assert len(list(read_lines(folder / JOURNAL_NAME))) == lines
    with (folder / LEDGER_NAME).open("r+b") as file:
        file.truncate(5000)
    assert mend(folder, lambda _: None)
    assert (verify(folder).links, verify(folder).fault) == (4, None)


def test_a_ledger_of_the_first_version_is_brought_up_too(folder):
    edit(
        folder,
        "DROP TABLE chain",
        "ALTER TABLE experiments DROP COLUMN judged",
        "ALTER TABLE experiments DROP COLUMN origin",
        "ALTER TABLE runs DROP COLUMN journal",
        "PRAGMA user_version = 1",
    )
    (folder / JOURNAL_NAME).unlink()
    with Ledger(folder) as ledger:
        assert ledger._rows("PRAGMA user_version")[0]["user_version"] == schema.SCHEMA_VERSION
    assert (verify(folder).links, verify(folder).fault) == (4, None)
