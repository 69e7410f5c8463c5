"""`ar loop --dry-run` shows what would come, and leaves everything as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loop_fixtures import Scripted, Widths, git, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.loop import Limits, Loop


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("AR_DATA_DIR", str(tmp_path / "data"))
    return make_workspace(tmp_path / "w")


@pytest.fixture
def fresh(workspace):
    """A workspace with the real train file of the null backend."""
    import autoresearch.backends.null as null

    source = Path(str(null.__file__)).with_name("train.py").read_text()
    (workspace / "backends" / "null" / "train.py").write_text(source)
    git(workspace, "commit", "-qam", "the real one")
    return workspace


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm"}


def dry(workspace, *options):
    return ar(["--workspace", str(workspace), "--backend", "null", "--preset", "demo", "loop", "--dry-run", *options])


def test_a_new_run_shows_the_first_edit_and_writes_nothing(fresh, capsys):
    workspace = fresh
    before = everything(workspace.parent)
    assert dry(workspace, "-n", "5") == 0
    out = capsys.readouterr().out
    assert "-null: a new run; null/demo on " in out
    assert "\n+++ train.py (proposed)" in out
    assert "5 experiments" in out
    assert "$0: no model is asked" in out
    assert everything(workspace.parent) == before


def test_a_run_that_is_under_way_is_taken_as_it_is(workspace, capsys):
    with open_run(workspace, "first") as run:
        Loop(run, Widths(9, 12), Greedy(), Scripted(), limits=Limits(2)).go()
    assert dry(workspace, "--tag", "first", "-n", "5", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["tag"], shown["new"], shown["experiments"]) == ("first", False, 2)
    assert shown["estimate"]["experiments"] == 3
    assert "-WIDTH = 9" in shown["diff"]
    assert dry(workspace, "--tag", "first", "-n", "5", "--json") == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_a_language_model_s_prompt_is_shown_and_priced_without_a_call_or_a_key(fresh, monkeypatch, capsys):
    workspace = fresh
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    options = ("--researcher", "llm", "--model", "openai/none-such", "--price", "openai/none-such=1/10", "-n", "4")
    # Nobody listens there: a call would fail.
    assert dry(workspace, *options, "--max-usd", "2", "--api-base", "http://127.0.0.1:9", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == "openai/none-such"
    assert "make it lower" in "".join(message["content"] for message in shown["messages"])  # program.md
    assert 0 < shown["estimate"]["usd_at_most"] < 1
    assert shown["estimate"]["max_usd"] == 2
    assert dry(workspace, *options) == 0
    out = capsys.readouterr().out
    assert "[user]" in out
    assert "a proposal: at most $" in out


def test_a_prompt_tells_of_the_experiments_under_way(workspace, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with open_run(workspace, "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
        run.propose(Proposal(run.attempts[-1].source.replace("WIDTH = 9", "WIDTH = 8"), "eight wide", "shape"), "")
    assert dry(workspace, "--tag", "first", "--researcher", "llm", "--model", "openai/none-such", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert "eight wide" in "".join(message["content"] for message in shown["messages"])


def test_a_workspace_without_program_md_is_told_in_a_line(fresh, capsys):
    (fresh / "program.md").unlink()
    assert dry(fresh) == 3
    assert "there is no readable" in (said := capsys.readouterr().err) and "Fix: make a workspace" in said
