"""`ar loop --findings`, by its dry run: whose findings a run would try next."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from loop_fixtures import CONFIG, Scripted, Widths, git, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """With a run on another device that has kept a width of 7, and one that is under way."""
    monkeypatch.setenv("AR_DATA_DIR", str(tmp_path / "data"))
    folder = make_workspace(tmp_path / "w")
    train = folder / "backends/null/train.py"
    train.write_text(train.read_text().replace('PRESET = "none"', 'PRESET = "demo"'))  # so that it stays as it is
    git(folder, "commit", "-q", "-a", "-m", "the preset's")
    for tag, device, widths in (("mac", "Apple M4", (7,)), ("t", "scripted", ())):
        with open_run(folder, tag, replace(CONFIG, device=device)) as run:
            Loop(run, Widths(*widths), Greedy(), Scripted(), limits=Limits(len(widths))).go()
    return folder


@pytest.fixture
def next_edit(workspace, capsys):
    def next_edit(tag, *options):
        shared = ["--workspace", str(workspace), "--backend", "null", "--preset", "demo", "--json"]
        assert ar([*shared, "loop", "--dry-run", "--tag", tag, *options]) == 0
        said = capsys.readouterr()
        return json.loads(said.out)["hypothesis"], said.err

    return next_edit


def test_the_next_edit_is_what_another_device_has_kept_of_a_run_and_of_a_new_one(next_edit):
    for tag in ("t", "new"):
        hypothesis, said = next_edit(tag)
        assert hypothesis == "WIDTH 8 -> 7; kept by null on Apple M4 (-0.1000 there)." and not said


def test_nobodys_findings_are_tried_where_none_are_wanted(next_edit):
    assert "Apple M4" not in next_edit("t", "--findings", "none")[0]


def test_a_folder_from_another_machine_is_named(next_edit, workspace, tmp_path, monkeypatch):
    shutil.move(workspace / "runs/mac", tmp_path / "copied")
    assert "Apple M4" not in next_edit("t")[0]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "Apple M4" in next_edit("t", "--findings=~/copied")[0]
    assert "Apple M4" in next_edit("t", "--findings", str(tmp_path / "copied"))[0]
    hypothesis, said = next_edit("t", "--findings", "auto", "--findings", str(tmp_path / "nothing"))
    assert "Apple M4" not in hypothesis
    assert f"no findings are taken from {tmp_path / 'nothing'}: there is no ledger.sqlite in it" in said


def test_none_beside_others_is_a_mistake_that_is_said(workspace, capsys):
    command = ["--workspace", str(workspace), "loop", "--findings", "none", "--findings", "auto", "--dry-run"]
    assert ar(command) == 2
    assert "--findings none cannot be combined with others. Fix: leave one of them out" in capsys.readouterr().err
