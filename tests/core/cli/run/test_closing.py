"""What `ar loop` has opened by the time that it finds it cannot open the run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from loop_fixtures import CONFIG, PRESET, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.cli.run import command, resolve
from autoresearch.core.errors import LockedError, PrerequisiteError


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """The names of the executors that were closed, in order; a loop of run `t` finds two kinds of device."""
    names: list[str] = []

    def executor(name):
        return SimpleNamespace(close=lambda: names.append(name))

    device = SimpleNamespace(kind="cpu")
    monkeypatch.setattr(resolve, "choose_run", lambda *_, **__: ("t", CONFIG, PRESET, None, device))
    monkeypatch.setattr(resolve, "machine_name", lambda machine, *_: machine)
    monkeypatch.setattr(resolve.Devices, "executor", lambda *_: executor("the run's"))
    monkeypatch.setattr(resolve.Devices, "screening", lambda *_: SimpleNamespace(executor=executor("the screens'")))
    monkeypatch.setattr("autoresearch.core.store.integrity.Integrity.of", lambda *_: None)
    return names


def loop(workspace):
    return ar(["--workspace", str(workspace), "--backend", "null", "--preset", "demo", "loop", "--tag", "t"])


def test_devices_are_given_back_where_another_process_has_the_run(closed, tmp_path, capsys):
    workspace = make_workspace(tmp_path / "w")
    with open_run(workspace, "t"):
        assert loop(workspace) == LockedError.exit_code
    assert "is being written by" in capsys.readouterr().err
    # The run's own executor disconnects from the cluster, so it goes last.
    assert closed == ["the screens'", "the run's"]


def test_devices_are_given_back_where_the_researcher_cannot_start(closed, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise PrerequisiteError("no researcher today", fix="come back tomorrow")

    monkeypatch.setattr(command, "make_researcher", refuse)
    assert loop(make_workspace(tmp_path / "w")) == PrerequisiteError.exit_code
    assert "no researcher today" in capsys.readouterr().err
    assert closed == ["the screens'", "the run's"]
