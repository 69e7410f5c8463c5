"""`ar watch` over a pipe, on runs that are over and on one that another process writes."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.errors import ArError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


def watching(workspace, *options):
    command = [sys.executable, "-m", "autoresearch.core.cli.main", "--workspace", str(workspace), "watch", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_run_that_is_over_is_shown_and_left(workspace, capsys):
    with open_run(workspace, "first") as run:
        Loop(run, Widths(9, 12), Greedy(), Scripted(), limits=Limits(2)).go()
    assert ar(["--workspace", str(workspace), "watch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("first: finished · null/demo on scripted · ")
    assert lines[-1] == "first: finished; 2 experiments are decided; best 0.9000 bpb (experiment 1, -0.1000)"


def test_colour_that_is_asked_for_draws_nothing_into_a_file(workspace, capsys, monkeypatch):
    with open_run(workspace, "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert ar(["--workspace", str(workspace), "watch"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_run_whose_loop_died_is_said_to_have_died_once(workspace, capsys):
    with open_run(workspace, "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
    with closing(sqlite3.connect(workspace / "runs/first/ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE runs SET state = 'running', ended = NULL, pid = 999999999, heartbeat = 1.0")
    assert ar(["--workspace", str(workspace), "watch"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "first: died; best 0.9000 bpb (experiment 1, -0.1000)"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_run_that_another_process_writes_is_followed_to_its_end(workspace, options):
    watchers = []

    def during(request):
        if request.folder.name == "1-1":
            watchers.append(watching(workspace, *options))
            watchers.append(watchers[0].stdout.readline())  # it has looked at the run before the trial ends

    with open_run(workspace, "first") as run:
        Loop(run, Widths(9, 8), Greedy(), Scripted(during=during), limits=Limits(2)).go()
    watcher, first = watchers
    rest, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    lines = [first, *rest.splitlines()]
    if options:
        records = [json.loads(line) for line in lines]
        assert [record.get("experiment") for record in records] == [0, 1, 2, None]
        assert records[-1]["summary"]["best_experiment"] == 2
    else:
        assert any(line.startswith("experiment 1: keep 0.9000 (-0.1000)") for line in lines)
        assert lines[-1].startswith("first: finished; 2 experiments are decided")


def test_watching_without_a_run_is_a_usage_error(workspace, capsys):
    assert ar(["--workspace", str(workspace), "watch"]) == 2
    assert "no run" in capsys.readouterr().err


def test_the_reason_of_an_end_is_one_sentence_with_the_rest(workspace, capsys):
    with open_run(workspace, "first") as run, pytest.raises(ArError):
        Loop(run, Widths(9), Greedy(), Scripted({10: "crash"}), limits=Limits(1)).go()
    assert ar(["--workspace", str(workspace), "watch"]) == 0
    assert re.search(r"first: failed; the baseline .*run\.log; no result yet\n$", capsys.readouterr().out)
