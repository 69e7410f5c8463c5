"""A run as another process sees it: the ledger, and the events of the trial that runs."""

from __future__ import annotations

import io
import json

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run
from rich.console import Console, Group

from autoresearch.core.events import EventFollower, Frozen, Trained
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal
from autoresearch.core.report.curves import best_so_far, braille, sparkline
from autoresearch.core.report.follow import RunFollower
from autoresearch.core.report.terminal.panel import current_line, panel
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.reader import LedgerReader


def write_events(folder, *events):
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def drawn(snapshot, width):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(Group(*panel(snapshot, width)))
    return stream.getvalue()


@pytest.fixture
def seen(tmp_path):
    """What a follower sees during the second experiment's trial, which has logged two losses."""
    found = []

    def during(request):
        if request.folder.name == "2-1":
            write_events(
                request.folder,
                {"t": 0.5, "event": "first_batch"},
                {"t": 0.6, "event": "log", "step": 1, "loss": 5.0, "progress": 0.1},
                {"t": 0.7, "event": "log", "step": 2, "loss": 4.0, "progress": 0.2},
                {"t": 0.8, "event": "log", "step": 3, "loss": "not a number"},
                {"t": 0.9, "event": "progress", "tokens": 4096},
            )
            with LedgerReader(request.folder.parents[1]) as reader:
                found.append(RunFollower(reader).look())

    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        Loop(run, Widths(9, 8), Greedy(), Scripted(during=during), limits=Limits(2)).go()
        found.append(RunFollower(run.ledger).look())
    return found


def test_a_follower_sees_the_trial_that_runs(seen):
    during, after = seen
    assert (during.state, during.current.number, during.decided) == ("running", 2, 2)
    assert during.progress.phase == "training"
    assert during.progress.step == 3
    assert during.losses == (5.0, 4.0)
    assert during.keeps == ((0, 1.0), (1, 0.9))
    assert during.gain == pytest.approx(-0.1)
    assert after.over
    assert (after.state, after.current, after.progress) == ("finished", None, None)
    assert current_line(after) == "2 experiments are decided"


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_panel_fits_its_columns(seen, width):
    for snapshot in seen:
        lines = drawn(snapshot, width).splitlines()
        assert max(len(line) for line in lines) <= width
        assert lines[0].startswith("first: ")
    assert "training" in drawn(seen[0], width)
    assert "  4.000 " in drawn(seen[0], width)


def test_a_run_whose_process_is_gone_has_died(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        assert RunFollower(run.ledger).look().state == "running"
        with run.ledger._transaction() as write:
            write("UPDATE runs SET host = 'elsewhere', heartbeat = heartbeat - 3600")
        assert RunFollower(run.ledger).look().state == "died"


def test_hostile_words_cannot_steer_the_terminal(tmp_path):
    class Hostile(Widths):
        def propose(self, history):
            fair = super().propose(history)
            return Proposal(fair.source, "\x1b[2J\x1b]0;owned\x07[red]x\n[/red]", "shape", None, fair.cost, "\x1b[1m")

    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        Loop(run, Hostile(9), Greedy(), Scripted(), limits=Limits(1)).go()
        text = drawn(RunFollower(run.ledger).look(), 140)
    assert "\x1b" not in text
    assert "[red]x [/red]" in text


def test_events_are_read_once_and_only_when_they_are_whole(tmp_path):
    follower, path = EventFollower(tmp_path / "events.jsonl"), tmp_path / "events.jsonl"
    assert list(follower.new()) == []
    path.write_text('{"event": "trained"}\n{"eve')
    assert list(follower.new()) == [Trained()]
    with path.open("a") as file:
        file.write('nt": "frozen"}\nnonsense\n[1]\n')
    assert list(follower.new()) == [Frozen()]
    assert list(follower.new()) == []


def test_curves_go_down_when_the_values_do():
    assert sparkline([3, 2, 1], 10) == "█▅▁" or sparkline([3, 2, 1], 10) == "█▄▁"
    assert sparkline([], 10) == ""
    assert len(sparkline(list(range(1000)), 30)) == 30
    top, bottom = braille([4, 3, 2, 1, 1, 1, 1, 1], 4, 2)
    assert len(top) == len(bottom) == 4
    assert top[3] == "\u2800" != bottom[3]
    assert best_so_far([(0, 3.0), (2, 1.0)], 4) == [3.0, 3.0, 1.0, 1.0]
