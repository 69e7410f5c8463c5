"""The panel of `ar loop`, as a terminal shows it while a run goes on; and plain lines where there is none."""

from __future__ import annotations

import io
import json
import time

import pyte
import pytest
from loop_fixtures import TRAIN, Scripted, Widths, make_workspace, open_run
from rich.console import Console

from autoresearch.core.events import (
    Decided,
    ExperimentBegun,
    FirstBatch,
    Log,
    MemoryUsed,
    Spawned,
    Thinking,
    Trained,
    to_json,
)
from autoresearch.core.judge.decision import RunTrial
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Cost, Proposal
from autoresearch.core.report.terminal.live import PlainView
from autoresearch.core.report.terminal.panel import LoopInfo, flow
from autoresearch.core.report.terminal.run_view import RunView, run_view
from autoresearch.core.run.loop import Limits, Loop


class Watched:
    """A run's view on an emulated terminal."""

    def __init__(self, run, width=80, height=24, info=None, **console):
        self.sent, self.read = io.StringIO(), 0
        self.emulated = pyte.Screen(width, height)
        self.stream = pyte.Stream(self.emulated)
        self.console = Console(file=self.sent, force_terminal=True, width=width, height=height, **console)
        self.view = RunView(run.folder, self.console, info or LoopInfo("widths"))

    def text(self):
        sent = self.sent.getvalue()
        self.stream.feed(sent[self.read :])
        self.read = len(sent)
        return "\n".join(line.rstrip() for line in self.emulated.display).rstrip()

    def until(self, *words, seconds=20):
        """What is shown once every word is there."""
        end = time.monotonic() + seconds
        while not all(word in (shown := self.text()) for word in words):
            assert time.monotonic() < end, f"{words} never came; there is:\n{shown}"
            time.sleep(0.05)
        return shown


@pytest.fixture
def run(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        yield run


def in_flight(run, *widths):
    """Experiments of these widths, each with a trial that has begun to train."""
    for width in widths:
        source = TRAIN.replace("WIDTH = 8", f"WIDTH = {width}")
        row = run.propose(Proposal(source, f"width {width}", "shape", None, Cost(), "widths"), run.program())
        _, request = run.start_trial(row, RunTrial("candidate", 1))
        request.folder.mkdir(parents=True)
        events = [
            FirstBatch(t=0.1),
            Log(10 * width, width + 0.5, t=0.2),
            MemoryUsed(100 * width, t=0.3),
        ]
        (request.folder / "events.jsonl").write_text("".join(json.dumps(to_json(event)) + "\n" for event in events))


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_panel_follows_a_run_and_leaves_what_was_noted(run, width):
    Loop(run, Widths(9, 12), Greedy(), Scripted(), limits=Limits(2)).go()
    run.ledger.set_state("running")
    watched = Watched(run, width, info=LoopInfo("widths", goal=5, ends=time.time() + 7200, isolation="process"))
    with watched.view as view:
        shown = watched.until("2 of 5 experiments", "left", "best 0.9000 bpb", "discard 1.2", "keep 0.9")
        assert "first: running" in shown
        view.note("stopping after the current trial")
        watched.until("stopping after the current")
    assert watched.text() == "stopping after the current trial"


def test_trials_side_by_side_are_shown_each_with_its_own_numbers(run):
    Loop(run, Widths(), Greedy(), Scripted(), limits=Limits(0)).go()
    run.ledger.set_state("running")
    in_flight(run, 9, 12)
    watched = Watched(run)
    with watched.view:
        shown = watched.until("experiment 1: width 9", "experiment 2: width 12", "step 90", "step 120")
    assert "loss 9.500" in shown
    assert "900 MB" in shown
    assert "loss 12.500" in shown
    assert "1200 MB" in shown


def test_the_researcher_is_shown_thinking_until_its_proposal_is_there(run):
    Loop(run, Widths(), Greedy(), Scripted(), limits=Limits(0)).go()
    run.ledger.set_state("running")
    watched = Watched(run)
    with watched.view as view:
        view(Thinking(experiment=1))
        watched.until("widths has been thinking for")
        in_flight(run, 9)
        shown = watched.until("experiment 1: width 9", "widths waits for a result")
        assert "thinking" not in shown


def test_without_colour_nothing_is_coloured(run, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
    watched = Watched(run, color_system="standard")
    with watched.view:
        watched.until("first: finished")
    assert "\x1b[3" not in watched.sent.getvalue()


def test_a_view_that_cannot_read_the_run_says_so_and_is_no_hindrance(run):
    watched = Watched(run)
    (run.folder / "ledger.sqlite").rename(run.folder / "away.sqlite")
    with watched.view as view:
        view(Thinking(experiment=1))
        watched.until("the view has stopped, the run goes on")
        view.note("still there")
        watched.until("still there")


def test_a_pipe_gets_lines_that_say_whose_they_are():
    stream = io.StringIO()
    view = PlainView(20.0, stream)
    for event in (
        Thinking(experiment=3),
        ExperimentBegun("wider", experiment=1),
        Spawned("train", experiment=1, k=1),
        ExperimentBegun("deeper", experiment=2),
        Spawned("train", experiment=2, k=1),
        FirstBatch(experiment=2, k=1),
        FirstBatch(experiment=1, k=1),
        Trained(experiment=2, k=1),
        Decided("discard", 2.5, 0.5, experiment=2),
        Trained(experiment=1, k=1),
        Decided("keep", 1.5, -0.5, experiment=1),
    ):
        view(event)
    assert [line[9:] for line in stream.getvalue().splitlines()] == [
        "experiment 1: wider",
        "experiment 2: deeper",
        "experiment 2: training for 20 s",
        "experiment 1: training for 20 s",
        "experiment 2: scoring",
        "experiment 2: discard 2.5000 (+0.5000)",
        "experiment 1: scoring",
        "experiment 1: keep 1.5000 (-0.5000)",
    ]


@pytest.mark.parametrize("variable", ["NO_COLOR", "FORCE_COLOR"])
def test_what_is_no_terminal_gets_plain_lines(run, capsys, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with run_view(run.folder, 2.0, LoopInfo(), verbosity=0, data_on_stdout=False) as view:
        assert isinstance(view, PlainView)
        view.note("a \x1b[2J note")
    assert capsys.readouterr().err.endswith(" a [2J note\n")


def test_parts_flow_into_as_many_lines_as_they_need():
    assert flow(["one", "two", "three"], 80) == ["one · two · three"]
    assert flow(["one", "two", "three"], 10) == ["one · two", "three"]
    assert flow([], 10) == []
