"""A run's folder that was copied or renamed can be read, and nothing is written to the run that it came from."""

from __future__ import annotations

import json
import shlex
import shutil

import pytest
from loop_fixtures import Scripted, Widths, git, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace with a finished run `a`, and a copy of its folder by the name `b`."""
    folder = make_workspace(tmp_path / "w")
    with open_run(folder, "a") as run:
        Loop(run, Widths(9, 3), Greedy(), Scripted(), limits=Limits(2)).go()
    shutil.copytree(folder / "runs/a", folder / "runs/b")
    monkeypatch.chdir(folder)
    return folder


WRITING = (
    *(["loop"], ["loop", "--dry-run"], ["verify"], ["ablate"], ["scale", "--plan"], ["pin", "1"], ["note", "1", "x"]),
    *(["submit", "backends/null/train.py", "--why", "x"], ["brief"]),
)


@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_a_command_that_writes_refuses_a_copy_in_one_line(workspace, capsys, command):
    before = git(workspace, "for-each-ref"), (workspace / "runs/b/journal.jsonl").read_bytes()
    name, *rest = command
    assert ar([name, "--tag", "b", *rest]) == 2
    told = capsys.readouterr()
    assert f"{workspace}/runs/b is a copy of the run 'a', and can only be read." in told.err
    assert "--tag a" in told.err and told.err.count("\n") == 1 and not told.out
    assert (git(workspace, "for-each-ref"), (workspace / "runs/b/journal.jsonl").read_bytes()) == before


def test_a_copy_is_read_and_its_name_is_said(workspace, capsys):
    for command in (["results"], ["status"], ["results", "--why", "1"], ["diff"], ["note"]):
        name, *rest = command
        assert ar([name, "--tag", "b", *rest]) == 0
        told = capsys.readouterr()
        assert told.err.startswith(f"{workspace}/runs/b is a copy of the run 'a'\n"), told.err
        assert ar([name, "--tag", "a", *rest]) == 0
        assert capsys.readouterr().out == told.out


def test_a_list_of_runs_names_each_run_once(workspace, capsys):
    assert ar(["status", "--json"]) == 0
    told = capsys.readouterr()
    assert [json.loads(line)["tag"] for line in told.out.splitlines()] == ["a"]
    assert told.err == f"ar: {workspace}/runs/b is a copy of the run 'a'; --tag b reads it.\n"


def test_a_renamed_run_is_told_how_to_get_its_name_back(workspace, capsys):
    shutil.rmtree(workspace / "runs/b")
    (workspace / "runs/a").rename(workspace / "runs/c")
    assert ar(["status", "--verify"]) == 0
    assert "runs/c is another name for the run 'a'; --tag c reads it" in capsys.readouterr().err
    assert ar(["results", "--tag", "c"]) == 0
    capsys.readouterr()
    assert ar(["pin", "1", "--tag", "c"]) == 2
    assert f"Fix: mv {workspace}/runs/c {workspace}/runs/a" in capsys.readouterr().err


def test_the_command_that_gives_the_name_back_is_one_for_a_shell(tmp_path, monkeypatch, capsys):
    folder = make_workspace(tmp_path / "my work")
    with open_run(folder, "a"):
        pass
    (folder / "runs/a").rename(folder / "runs/c")
    monkeypatch.chdir(folder)
    assert ar(["pin", "1", "--tag", "c"]) == 2
    said = capsys.readouterr().err.partition("Fix: ")[2]
    assert shlex.split(said) == ["mv", str(folder / "runs/c"), str(folder / "runs/a")]
