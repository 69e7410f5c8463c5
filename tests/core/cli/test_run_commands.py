"""status, results and apply on runs made with scripted trials."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest
from loop_fixtures import Scripted, Widths, git, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.wishes import WishFile


@pytest.fixture
def workspace(tmp_path):
    folder = make_workspace(tmp_path / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(9, 12, 3), Greedy(), Scripted({3: "crash"}), limits=Limits(3)).go()
    return folder


def call(workspace, *arguments):
    return ar(["--workspace", str(workspace), *arguments])


def test_status_is_a_table_of_one_line_a_run(workspace, capsys):
    with open_run(workspace, "second"):
        pass
    assert call(workspace, "status") == 0
    heads, first, second = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert heads[:3] == ["run", "state", "backend/preset"]
    counts = ["3", "1", "0", "#1", "0.9000", "-0.1000", "-"]
    assert first == ["first", "finished", "null/demo", *counts, "3 experiments are decided"]
    empty = ["0", "0", "0", "-", "-", "-", "-"]
    assert second == ["second", "running", "null/demo", *empty, "experiment 0 proposed: baseline"]
    assert call(workspace, "status", "--tag", "first", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["best_bpb"], record["by_status"]) == (0.9, {"crash": 1, "discard": 1, "keep": 1})


def test_status_tells_what_a_person_asked_of_a_running_loop(workspace, capsys):
    with open_run(workspace, "second") as run:
        for wish, words in (("pause", "paused from the dashboard, "), ("stop", "ends after the trials under way, ")):
            WishFile(run.folder).put(wish)
            assert call(workspace, "status", "--tag", "second") == 0
            assert words in capsys.readouterr().out
    # A loop that has ended is not paused, whatever it was last asked.
    WishFile(workspace / "runs/first").put("pause")
    assert call(workspace, "status", "--tag", "first") == 0
    assert "paused" not in capsys.readouterr().out


def test_a_running_state_without_a_heartbeat_is_called_died(workspace, capsys, monkeypatch):
    with open_run(workspace, "second") as run, run.ledger._transaction() as write:
        write("UPDATE runs SET heartbeat = heartbeat - 3600")
    assert call(workspace, "status", "--tag", "second") == 0
    assert "second\tdied\t" in capsys.readouterr().out


def test_results_are_a_table_json_lines_or_the_five_columns(workspace, capsys):
    assert call(workspace, "results") == 0
    assert [line.split("\t")[:3] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["0", "keep", "1.0000"],
        ["1", "keep", "0.9000"],
        ["2", "discard", "1.2000"],
        ["3", "crash", "-"],
    ]
    assert call(workspace, "results", "--last", "2", "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["experiment"], r["status"], r["val_bpb"], r["trials"]) for r in records] == [
        (2, "discard", 1.2, 1),
        (3, "crash", None, 1),
    ]
    assert call(workspace, "results", "--tsv") == 0
    assert capsys.readouterr().out == (workspace / "runs/first/results.tsv").read_text()


def test_a_run_that_is_not_there_is_a_usage_error(workspace, capsys, tmp_path):
    assert call(workspace, "results", "--tag", "other") == 2
    assert call(workspace, "status", "--tag", "../first") == 2
    assert call(make_workspace(tmp_path / "empty"), "results") == 2
    assert "no run" in capsys.readouterr().err


def test_a_damaged_ledger_does_not_hide_the_other_runs(workspace, capsys):
    (workspace / "runs/bad").mkdir()
    (workspace / "runs/bad/ledger.sqlite").write_text("not a database, but long enough to look like one " * 50)
    assert call(workspace, "status") == 0
    said = capsys.readouterr()
    assert "first\tfinished" in said.out
    assert "runs/bad/ledger.sqlite" in said.err
    assert "Traceback" not in said.err
    assert call(workspace, "status", "--tag", "bad") == 1
    # Nobody who asks for the check takes a run that was not checked for one that is whole.
    assert call(workspace, "status", "--verify") == 1
    assert "every decided row fits" in capsys.readouterr().out


def test_a_run_that_is_just_being_begun_is_nothing_to_move_away(workspace, capsys):
    (workspace / "runs/second").mkdir()
    with Ledger(workspace / "runs/second"):  # its file is there, and its tables are not
        for command in (["status"], ["status", "--tag", "second"], ["watch", "--tag", "second"]):
            assert call(workspace, *command) == ("--tag" in command)
            told = capsys.readouterr().err
            assert "second/ledger.sqlite has no run in it yet. Fix: wait for the loop" in told
            assert "not a ledger" not in told and told.count("\n") == 1


def test_a_ledger_with_values_of_another_kind_is_one_line_and_hides_no_other_run(workspace, capsys):
    for tag, change in (("bare", "config = '{}'"), ("undated", "created = 1e300"), ("lost", "incumbent = 77")):
        shutil.copytree(workspace / "runs/first", workspace / "runs" / tag)
        connection = sqlite3.connect(workspace / "runs" / tag / "ledger.sqlite", isolation_level=None)
        connection.execute(f"UPDATE runs SET tag = '{tag}', {change}")
        connection.close()
    assert call(workspace, "status") == 0
    said = capsys.readouterr()
    assert "first\tfinished" in said.out and "which backend" in said.err and "undated/ledger.sqlite" in said.err
    for command, tag in (("report", "bare"), ("report", "undated"), ("brief", "lost")):
        assert call(workspace, command, "--tag", tag) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "unexpected" not in said


def test_a_run_with_a_row_that_cannot_be_understood_hides_no_other_run(workspace, capsys):
    with open_run(workspace, "second") as run:
        Loop(run, Widths(12), Greedy(), Scripted(), limits=Limits(1)).go()
    connection = sqlite3.connect(workspace / "runs/second/ledger.sqlite", isolation_level=None)
    connection.execute("UPDATE trials SET seed = 'seven'")
    connection.close()
    assert call(workspace, "status") == 0
    said = capsys.readouterr()
    assert "first\tfinished" in said.out and "second/ledger.sqlite holds a row" in said.err
    assert call(workspace, "status", "--tag", "second") == 1


def test_apply_writes_the_best_file_and_says_how_to_undo_it(workspace, capsys):
    train = workspace / "backends/null/train.py"
    before = train.read_text()
    assert call(workspace, "apply") == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(train)
    assert train.read_text() == (workspace / "runs/first/best_train.py").read_text() != before
    assert call(workspace, "apply") == 0  # it is there already, so there is nothing to lose
    assert "to undo: git checkout -- backends/null/train.py" in said.err
    git(workspace, "checkout", "--", "backends/null/train.py")
    assert train.read_text() == before


def test_apply_leaves_the_file_alone_where_nothing_was_kept(workspace, capsys):
    with open_run(workspace, "bare") as run:
        Loop(run, Widths(12), Greedy(), Scripted(), limits=Limits(1)).go()
    target = workspace / "backends/null/train.py"
    before = target.read_bytes()
    assert call(workspace, "apply", "--tag", "bare", "--force") == 3
    assert "no kept change to apply" in capsys.readouterr().err
    assert target.read_bytes() == before


def test_apply_does_not_overwrite_what_is_not_committed_unless_forced(workspace, capsys):
    train = workspace / "backends/null/train.py"
    train.write_text("mine = 1\n")
    assert call(workspace, "apply") == 3
    assert "uncommitted changes" in capsys.readouterr().err
    assert train.read_text() == "mine = 1\n"
    assert call(workspace, "apply", "--force") == 0
    assert train.read_text() == (workspace / "runs/first/best_train.py").read_text()


def test_status_verify_names_the_first_row_that_was_edited(workspace, capsys):
    assert call(workspace, "status", "--tag", "first", "--verify") == 0
    assert "every decided row fits" in capsys.readouterr().out
    connection = sqlite3.connect(workspace / "runs/first/ledger.sqlite")
    with connection:
        connection.execute("UPDATE experiments SET val_bpb = 0.1 WHERE number = 2")
    connection.close()
    assert call(workspace, "status", "--verify") == 1
    assert "NOT as it was written: experiment 2:" in capsys.readouterr().out
    assert call(workspace, "status", "--tag", "first", "--verify", "--json") == 1
    assert json.loads(capsys.readouterr().out)["verified"]["fault"].startswith("experiment 2:")


def test_a_diff_names_two_files_and_shows_what_differs(workspace, capsys):
    assert call(workspace, "diff") == 0
    said = capsys.readouterr().out
    assert said.startswith("--- first:0/train.py\n+++ first:1/train.py\n")
    assert "-WIDTH = 10  # channels\n+WIDTH = 9  # channels\n" in said
    assert call(workspace, "diff", "parent", "2", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["a"], record["b"]) == ("first:1", "first:2") and "+WIDTH = 12" in record["diff"]
    with open_run(workspace, "second") as run:
        Loop(run, Widths(7), Greedy(), Scripted(), limits=Limits(1)).go()
    assert call(workspace, "diff", "first:best", "second:best") == 0
    assert "-WIDTH = 9  # channels\n+WIDTH = 7  # channels\n" in capsys.readouterr().out
    assert call(workspace, "diff", "best", "best") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("names", [("9",), ("x",), ("-1",), ("other:0",), ("parent", "parent"), ("1" * 5000,), ("²",)])
def test_a_diff_of_something_that_is_not_there_is_a_usage_error(workspace, capsys, names):
    assert call(workspace, "diff", *names) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1


def test_a_diff_with_the_best_file_of_a_run_that_has_none_says_so(workspace, capsys):
    open_run(workspace, "begun").__exit__()
    assert call(workspace, "diff", "--tag", "begun") == 3
    assert "the run 'begun' has no best file yet" in capsys.readouterr().err
    assert call(workspace, "diff", "begun:x", "first:best") == 2
    assert "there is no 'begun:x'" in capsys.readouterr().err


def test_what_a_file_has_set_gives_way_to_what_is_typed(workspace, capsys):
    (workspace / "ar.toml").write_text(
        '[results]\nlast = 1\nfull = true\ntsv = true\n[report]\noutput = "x.html"\n[brief]\nmarkdown = true\n'
        '[scale]\nconstant = "WIDTH"\n[loop]\naddress = "head:6379"\ndevice = "H100"\npriority = 2\n'
    )
    assert call(workspace, "results", "--why", "1") == 0
    assert capsys.readouterr().out.startswith("experiment 1: keep")
    assert call(workspace, "results", "--json") == 0
    assert json.loads(capsys.readouterr().out)["experiment"] == 3
    assert call(workspace, "report", "--markdown") == 0
    assert capsys.readouterr().out.startswith("## `first`") and not (workspace / "x.html").exists()
    assert call(workspace, "brief", "--json") == 0
    assert json.loads(capsys.readouterr().out)["tag"] == "first"
    assert call(workspace, "scale", "--plan", "--budgets", "none", "--widths", "none") == 0
    assert call(workspace, "loop", "--tag", "first", "--fleet", "local", "--dry-run") == 0
    capsys.readouterr()
    assert call(workspace, "loop", "--tag", "first", "--device", "A100", "--dry-run") == 2
    assert "--device is an option for a Ray cluster" in capsys.readouterr().err
