"""Options of `ar loop` on a run that has begun: each is honoured, or refused in a line that names it."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
from loop_fixtures import CONFIG, finished_run, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.cli.run import resolve
from autoresearch.core.cli.run.options import RunOverrides
from autoresearch.core.cli.run.session import _announce
from autoresearch.core.errors import UsageError
from autoresearch.core.run.stopping import Limits
from autoresearch.core.store.journal import JOURNAL_NAME
from autoresearch.core.store.reader import LedgerReader


@pytest.fixture
def workspace(tmp_path):
    return finished_run(tmp_path / "w").parent.parent


NO_OVERRIDES = dict.fromkeys(one.name for one in fields(RunOverrides))
CHANGED = [
    (("--judge", "racing"), "judge = 'greedy', and this is 'racing'"),
    (("--stop-early", "off"), "stop_early = 'on' (--stop-early), and this is 'off'"),
    (("--budget", "9"), "train_seconds = 2.0 (--budget), and this is 9.0"),
    (("--vocab", "512"), "vocabularies = [256] (--vocab), and this is [512]"),
]


@pytest.mark.parametrize(("options", "words"), CHANGED, ids=[options[0] for options, _ in CHANGED])
def test_a_setting_of_the_run_is_refused_by_the_name_of_its_option_and_nothing_changes(
    workspace, capsys, options, words
):
    journal = workspace / "runs/t" / JOURNAL_NAME
    before = journal.read_bytes()
    assert ar(["--workspace", str(workspace), "loop", "--tag", "t", *options]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"the run 't' was started with {words}. Fix: leave that option out to continue the run, or start" in line
    assert journal.read_bytes() == before
    with LedgerReader(workspace / "runs/t") as reader:
        assert (reader.run().state, reader.run().ended) == ("finished", "3 experiments are decided")


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("ar_version", "9", "install the older version to continue the run, or start another run with --tag"),
        (
            "prepared",
            "/my data/x",
            r"if its data were moved, .*: mkdir -p \S+ && ln -s '/my data/x' \S+, or start another",
        ),
        ("score_rows", 9, "continue the run with the data and the version of ar that it was started with"),
    ],
)
def test_a_setting_that_no_option_names_does_not_ask_to_leave_one_out(workspace, field, value, fix):
    with pytest.raises(UsageError, match=f"was started with {field} = ") as refused:
        open_run(workspace, config=replace(CONFIG, **{field: value}))
    assert re.match(fix, refused.value.fix)


@pytest.mark.parametrize("experiments", [2, 3, None])
def test_a_goal_that_the_run_has_reached_is_told_of(workspace, monkeypatch, experiments):
    monkeypatch.setattr("autoresearch.core.trial.sandbox.levels.warning_for_root", lambda: None)
    lines = []
    with open_run(workspace) as run:
        _announce(SimpleNamespace(say=lines.append), run, Limits(experiments))
    said = f"nothing to run: -n {experiments} counts earlier sessions, and the run has 3 experiments"
    assert lines == ([] if experiments is None else [f"{said}; -n 4 or more goes on with it"])


@pytest.mark.parametrize("allow_dirty", [True, False])
def test_allow_dirty_says_that_a_run_keeps_its_baseline(workspace, monkeypatch, allow_dirty):
    lines = []
    settings = SimpleNamespace(say=lines.append, workspace=workspace, backend="auto", preset="auto")
    with LedgerReader(workspace / "runs/t") as reader:
        backend, device = SimpleNamespace(name="null"), SimpleNamespace()
        choice = resolve.Choice("t", reader.run(), settings, backend, device, SimpleNamespace(name="demo"))
    monkeypatch.setattr(resolve, "pick_run", lambda *_: choice)
    monkeypatch.setattr(resolve, "configure", lambda *_: (None, None))
    resolve.choose_run(settings, "t", RunOverrides(**NO_OVERRIDES), allow_dirty=allow_dirty)
    said = "--allow-dirty changes nothing: the run has its baseline, whatever the train file holds now"
    assert lines == ["continuing the run t (another --tag starts a new one)", *([said] if allow_dirty else [])]
