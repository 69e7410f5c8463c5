"""`ar report` on runs made with scripted trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop


@pytest.fixture
def workspace(tmp_path):
    folder = make_workspace(tmp_path / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(9, 12), Greedy(), Scripted(), limits=Limits(2)).go()
    return folder


def call(workspace, *arguments):
    return ar(["--workspace", str(workspace), "report", *arguments])


def test_report_writes_a_page_and_a_picture_into_the_runs_folder(workspace, capsys):
    assert call(workspace) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == workspace / "runs/first/report.html"
    assert "data:image/png;base64," in page.read_text()
    assert (workspace / "runs/first/progress.png").read_bytes().startswith(b"\x89PNG")


def test_report_goes_where_it_is_asked_to(workspace, tmp_path, capsys):
    assert call(workspace, "--tag", "first", "--output", str(tmp_path / "out" / "deep"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["report"]).is_file()
    assert Path(said["picture"]).parent == tmp_path / "out" / "deep"


def test_a_home_folder_is_found_where_no_shell_has_put_it_in(workspace, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert call(workspace, "--output=~/out/night.html") == 0
    assert (tmp_path / "home/out/night.html").is_file() and not (tmp_path / "~").exists()


def test_markdown_is_printed_and_writes_nothing(workspace, capsys):
    assert call(workspace, "--markdown") == 0
    assert capsys.readouterr().out.startswith("## `first`: 1 of 2 experiments kept\n")
    assert not (workspace / "runs/first/report.html").exists()
    assert call(workspace, "--markdown", "--output", "x") == 2


def test_a_folder_that_cannot_be_written_is_one_line(workspace, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert call(workspace, "--output", str(tmp_path / "file" / "x")) == 1
    assert "cannot be written" in capsys.readouterr().err
