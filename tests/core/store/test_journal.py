"""The journal beside the ledger, and a damaged ledger made again from it."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from contextlib import closing

import pytest
from loop_fixtures import Scripted, Widths, finished_run, open_run

from autoresearch.core.errors import LedgerError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store import schema
from autoresearch.core.store.journal import JOURNAL_NAME, TAIL_BYTES, Journal, last_line, read_lines
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LEDGER_NAME, LedgerReader
from autoresearch.core.store.restore import _settle, damage, mend


@pytest.fixture
def folder(tmp_path):
    """A finished run of four experiments."""
    return finished_run(tmp_path / "w")


def content(folder):
    """Everything the ledger holds but heartbeats, which the journal leaves out."""
    connection = sqlite3.connect(folder / LEDGER_NAME)
    names = ("experiments", "trials", "proposals", "events", "texts")
    tables = {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in names}
    run = connection.execute("SELECT tag, state, ended, config, base_commit, incumbent, journal FROM runs").fetchall()
    connection.close()
    return tables, run


def test_a_sound_ledger_is_left_alone(folder):
    before = (folder / LEDGER_NAME).read_bytes()
    assert not mend(folder, pytest.fail)
    assert (folder / LEDGER_NAME).read_bytes() == before


@pytest.mark.parametrize("seed", range(8))
def test_a_ledger_truncated_or_overwritten_at_random_bytes_is_restored_whole(folder, seed):
    rng, path = random.Random(seed), folder / LEDGER_NAME
    before, size = content(folder), path.stat().st_size
    with path.open("r+b") as file:
        if seed % 2:
            file.truncate(rng.randrange(size - 1))
        else:
            file.seek(rng.choice([0, 4096]))
            file.write(rng.randbytes(4096))
    said = []
    assert damage(folder) is not None
    assert mend(folder, said.append)
    assert "is restored from its journal" in said[0]
    assert content(folder) == before
    assert damage(folder) is None
    assert list(folder.glob("damaged-*"))


def test_a_ledger_that_is_gone_is_restored_and_the_run_goes_on(folder):
    before = content(folder)
    (folder / LEDGER_NAME).unlink()
    assert mend(folder, lambda _: None)
    assert content(folder) == before
    with open_run(folder.parents[1]) as run:
        Loop(run, Widths(9, 12, 8, 7), Greedy(), Scripted(), limits=Limits(4)).go()
    with LedgerReader(folder) as reader:
        assert reader.experiment(4).status == "keep"


def test_a_half_written_last_line_is_cut_off(folder):
    path = folder / JOURNAL_NAME
    whole = path.read_bytes()
    path.write_bytes(whole + b'0123abcd {"n": 99, "wri')
    with Ledger(folder) as ledger:
        ledger.note("probe", None, {})
    numbers = [number for number, _, _ in read_lines(path)]
    assert path.read_bytes().startswith(whole)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_step_that_was_written_down_but_never_committed_is_taken_back(folder):
    before = content(folder)
    with Ledger(folder) as ledger:
        ledger._journal.append(ledger._journal.last + 1, [("UPDATE runs SET state = 'nonsense'", ())])
    with Ledger(folder):
        pass
    assert content(folder) == before
    (folder / LEDGER_NAME).unlink()
    mend(folder, lambda _: None)
    assert content(folder) == before


def test_a_journal_that_is_gone_starts_again_from_the_ledger(folder):
    before = content(folder)
    (folder / JOURNAL_NAME).unlink()
    with Ledger(folder) as ledger:
        ledger.heartbeat()
    (folder / LEDGER_NAME).unlink()
    assert mend(folder, lambda _: None)
    assert content(folder) == before


def test_an_older_copy_of_the_ledger_is_brought_up_to_date(folder, tmp_path):
    shutil.copy(folder / LEDGER_NAME, tmp_path / "old.sqlite")
    with Ledger(folder) as ledger:
        for _ in range(3):
            ledger.note("probe", None, {"x": 1})
    after = content(folder)
    shutil.copy(tmp_path / "old.sqlite", folder / LEDGER_NAME)
    assert "lost its last 3 steps" in damage(folder)
    with pytest.raises(LedgerError, match="has lost its last 3 steps; its journal has them"):
        Ledger(folder)  # as `ar note` opens it, which mends nothing
    assert mend(folder, lambda _: None)
    assert content(folder) == after


def test_a_run_that_is_being_written_is_not_mended(folder):
    with Ledger(folder):
        (folder / LEDGER_NAME).write_bytes(b"x" * 5000)
        assert not mend(folder, pytest.fail)


def test_a_journal_that_cannot_be_written_stops_the_transition(folder, monkeypatch):
    before = content(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    with Ledger(folder) as ledger:
        monkeypatch.setattr(Journal, "append", full)
        with pytest.raises(LedgerError, match="No space left"):
            ledger.note("probe", None, {})
        monkeypatch.undo()
        ledger.note("after", None, {})
    tables, _ = content(folder)
    assert [json.loads(row[4]) for row in tables["events"][len(before[0]["events"]) :]] == [{}]


@pytest.mark.parametrize("calls", [("fsync",), ("ftruncate", "fsync")])
def test_a_disk_that_is_gone_is_one_clear_error_and_the_next_start_goes_on(folder, monkeypatch, calls):
    before = content(folder)

    def gone(*_):
        raise OSError(5, "Input/output error")

    with Ledger(folder) as ledger:
        for name in calls:
            monkeypatch.setattr(os, name, gone)
        with pytest.raises(LedgerError, match="Input/output error"):
            ledger.note("probe", None, {})
        monkeypatch.undo()
        # Nothing follows half a step, not even where the disk is back.
        with pytest.raises(LedgerError, match="neither finished nor taken back"):
            ledger.set_state("failed")
    with Ledger(folder) as ledger:
        ledger.note("after", None, {})
    tables, _ = content(folder)
    assert [row[2] for row in tables["events"][len(before[0]["events"]) :]] == ["after"]
    (folder / LEDGER_NAME).unlink()
    mend(folder, lambda _: None)
    assert content(folder)[0] == tables


def test_a_line_that_the_disk_took_in_parts_is_whole(tmp_path):
    journal = Journal(tmp_path / JOURNAL_NAME)
    real = journal._file

    class InParts:
        def write(self, data):
            return real.write(bytes(data[:7]))

        def __getattr__(self, name):
            return getattr(real, name)

    journal._file = InParts()
    journal.append(1, [("INSERT", ["x" * 100])])
    journal.close()
    assert [number for number, _, _ in read_lines(tmp_path / JOURNAL_NAME)] == [1]


@pytest.mark.parametrize("size", [1, TAIL_BYTES - 40, TAIL_BYTES, 5 * TAIL_BYTES])
def test_the_last_line_is_found_from_the_end_whatever_its_length(tmp_path, size):
    path = tmp_path / JOURNAL_NAME
    assert last_line(path) is None
    journal = Journal(path)
    assert last_line(path) is None
    for number in (1, 2, 3):
        journal.append(number, [("INSERT", ["x" * size])])
    journal.close()
    ends = [end for _, _, end in read_lines(path)]
    found = last_line(path)
    assert (found.number, found.start, found.end) == (3, ends[1], ends[2])
    path.write_bytes(path.read_bytes()[:-2])
    found = last_line(path)
    assert (found.number, found.start, found.end) == (2, ends[0], ends[1])
    assert Journal(path).last == 2
    assert path.stat().st_size == ends[1]


@pytest.mark.parametrize("left", [b"", b"SQLite format 3", b"x" * 4096])
def test_a_ledger_that_died_while_it_was_made_is_put_aside_and_made_anew(tmp_path, left):
    folder = tmp_path / "run"
    Ledger(folder).close()
    (folder / LEDGER_NAME).write_bytes(left)
    assert mend(folder, lambda _: None)
    with Ledger(folder) as ledger:
        ledger.create("run", {}, "0" * 40)
    with LedgerReader(folder) as reader:
        assert reader.run().tag == "run"


def test_what_is_left_of_a_run_goes_on_from_the_file_that_was_kept_last(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)) as made:
        made.row_factory = sqlite3.Row
        schema.create_tables(made)
        made.execute("INSERT INTO runs (tag, config, base_commit, incumbent) VALUES ('t', '{}', 'b', 9)")
        for number, decided in ((0, 1.0), (1, 3.0), (2, 2.0)):
            row = (number, decided)
            made.execute(
                "INSERT INTO experiments (number, decided, state, status) VALUES (?, ?, 'decided', 'keep')", row
            )
        _settle(made)
        assert made.execute("SELECT incumbent FROM runs").fetchone()[0] == 1
