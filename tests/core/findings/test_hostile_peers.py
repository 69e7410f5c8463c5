"""Run folders that another machine offers, made to hang, to fill memory or to reach other files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
import zlib

import pytest
from loop_fixtures import finished_run

from autoresearch.core.findings.peers import PeerRuns

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("peer") / "w")


@pytest.fixture
def folder(offered, tmp_path):
    return shutil.copytree(offered, tmp_path / "theirs/t")


def look(folder, own):
    """What is said about it, and how many changes it offers."""
    said = []
    kept = PeerRuns(lambda: [folder], said.append).look(own, "null", "another")
    return said, sum(len(one.findings) for one in kept)


def edit(folder, *statements, values=()):
    connection = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
    for statement in statements:
        connection.execute(statement, values)
    connection.close()


def test_an_honest_folder_offers_its_changes(folder, tmp_path):
    assert look(folder, tmp_path / "mine/x") == ([], 2)


HOSTILE = {
    "endless view": ("ALTER TABLE runs RENAME TO runs2", f"CREATE VIEW runs AS {ENDLESS} i AS tag FROM n"),
    "endless view of keeps": (
        "ALTER TABLE experiments RENAME TO e2",
        f"CREATE VIEW experiments AS {ENDLESS} i AS number, 'keep' AS status FROM n",
    ),
    "trigger": ("CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM runs; END",),
    "generated column": (
        "ALTER TABLE experiments DROP COLUMN metrics",
        "ALTER TABLE experiments ADD COLUMN metrics AS (hex(zeroblob(900000000)))",
    ),
    "number for words": ("UPDATE experiments SET hypothesis = x'00' WHERE number = 1",),
    "words for a number": ("UPDATE experiments SET delta = 'much' WHERE number = 1",),
    "endless gain": ("UPDATE experiments SET delta = -9e999 WHERE number = 1",),
    "long words": ("UPDATE experiments SET hypothesis = hex(zeroblob(9000)) WHERE number = 1",),
    "deep parameters": (f"UPDATE experiments SET parameters = '{'[' * 100_000}' WHERE number = 1",),
    "parameters of another kind": ("UPDATE experiments SET parameters = '[1]' WHERE number = 1",),
    "config of another kind": ("UPDATE runs SET config = '[1]'",),
    "a tag that is a path": ("UPDATE runs SET tag = '../../x'",),
    "a tag that steers the terminal": ("UPDATE runs SET tag = char(27) || '[2J'",),
    "a device that steers the terminal": ("UPDATE runs SET config = json_set(config, '$.device', char(27) || '[2J')",),
    "half a letter in the device": (
        """UPDATE runs SET config = replace(config, '"device": "', '"device": "\\ud800')""",
    ),
    "a list for the run that it is from": (
        """UPDATE experiments SET origin = '{"run": [1], "experiment": 1, "backend": "x", "device": "y"}'""",
    ),
    "a gain there that is none": (
        """UPDATE experiments SET origin =
        '{"run": "a", "experiment": 1, "backend": "x", "device": "y", "delta": "much"}'""",
    ),
    "a gain there that no float holds": (
        f"""UPDATE experiments SET origin =
        '{{"run": "a", "experiment": 1, "backend": "x", "device": "y", "delta": {10**400}}}'""",
    ),
    "a number there that sqlite cannot hold": (
        f"""UPDATE experiments SET origin =
        '{{"run": "a", "experiment": {10**30}, "backend": "x", "device": "y"}}'""",
    ),
}


@pytest.mark.parametrize("where", ["beside the own runs", "copied"])
@pytest.mark.parametrize("statements", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_ledger_offers_nothing_and_is_said_once(folder, tmp_path, statements, where):
    edit(folder, *statements)
    began = time.thread_time()
    said, changes = look(folder, (folder.parent if where != "copied" else tmp_path / "mine") / "own")
    assert (len(said), changes) == (1, 0), said
    assert said[0].isprintable() and len(said[0]) < 900
    assert time.thread_time() - began < 5


def test_a_small_blob_that_unpacks_to_gigabytes_costs_little_memory(folder):
    edit(folder, "UPDATE texts SET body = ?", values=(zlib.compress(bytes(2**27), 9),))
    before = peak_bytes()
    said, changes = look(folder, folder.parent / "own")
    assert changes == 0 and "more than" in said[0]
    assert peak_bytes() - before < 100 * 2**20


def peak_bytes():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.sqlite-wal"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse"])
def test_what_is_no_ledger_file_is_not_copied(folder, tmp_path, name, kind):
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(3 * 2**30)
    assert look(folder, tmp_path / "mine/own")[1] == 0


def test_a_hostile_journal_beside_it_is_never_run(folder, tmp_path):
    body = json.dumps({"n": 99, "writes": [[f"ATTACH '{tmp_path / 'there'}' AS x", []]]}).encode()
    (folder / "journal.jsonl").write_bytes(f"{zlib.crc32(body):08x} ".encode() + body + b"\n")
    assert look(folder, tmp_path / "mine/own") == ([], 2)
    assert not (tmp_path / "there").exists()
