"""Runs that this version, or this user, cannot simply open: older ledgers, damaged ones, and closed folders."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest
from loop_fixtures import copy_of, finished_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.store import schema


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    folder = copy_of(finished_run, tmp_path / "w")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_view_reads_an_older_ledger_and_leaves_it_as_it_is(workspace, capsys, version):
    views = (["results"], ["results", "--why", "1"], ["status"], ["report", "--markdown"])
    wanted = []
    for view in views:
        assert ar(view) == 0
        wanted.append(capsys.readouterr().out)
    statements = ["ALTER TABLE experiments DROP COLUMN origin"]
    if version < 3:
        statements += ["DROP TABLE chain"]
    if version < 2:
        statements += ["ALTER TABLE runs DROP COLUMN journal"]
    ledger = workspace / "runs/t/ledger.sqlite"
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        for statement in (*statements, f"PRAGMA user_version = {version}", "PRAGMA journal_mode = DELETE"):
            connection.execute(statement)
        if version < 2:
            connection.execute("ALTER TABLE experiments DROP COLUMN judged")
    before = ledger.read_bytes()
    for view, expected in zip(views, wanted, strict=True):
        assert ar(view) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        assert shown == expected or (version < 2 and view[0] != "status")  # what a judge found was not kept then
    with closing(schema.connect(ledger, write=False)) as connection:  # as a certificate does
        columns = ", ".join(schema.COLUMNS["experiments"])
        assert len(connection.execute(f"SELECT {columns} FROM experiments").fetchall()) == 4
    assert ledger.read_bytes() == before


def test_a_run_that_cannot_be_read_is_named_and_not_denied(workspace, capsys):
    (workspace / "runs/t/ledger.sqlite").write_text("no ledger" * 200)
    assert ar(["results"]) == 1
    told = capsys.readouterr()
    assert "runs/t/ledger.sqlite cannot be used as a ledger" in told.err and "there is no run" not in told.err
    assert ar(["status"]) == 0
    assert "ar loop` starts one" not in capsys.readouterr().err


def test_a_view_of_the_last_run_names_the_runs_that_it_passed_over(workspace, capsys, monkeypatch):
    closed = workspace / "runs/later"
    closed.mkdir()
    look = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and look(path, mode))
    assert ar(["results"]) == 0
    told = capsys.readouterr()
    assert f"not looked at: {closed} cannot be looked into. Fix: check its permissions" in told.err
    assert "width 9" in told.out
