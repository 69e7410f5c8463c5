import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from autoresearch.backends.contract import Device
from autoresearch.core.events import (
    Decided,
    DeviceFound,
    ExperimentBegun,
    FeedProgress,
    Finished,
    FirstBatch,
    Log,
    Proposing,
    Scored,
    Scoring,
    Spawned,
    Startup,
    Trained,
)
from autoresearch.core.report.progress import Progress
from autoresearch.core.report.terminal.live import PlainView, QuietView, TerminalView, live_view
from autoresearch.core.report.wording import about_left, bar, compact, one_line

TRIAL = [
    ExperimentBegun("a longer warmdown", experiment=3),
    Spawned("train", (1,), "landlock"),
    DeviceFound(Device("cpu", "Test CPU", None, "fp32", "numpy 2")),
    Startup(),
    FirstBatch(),
    Log(12, 4.25),
    FeedProgress(50_000),
    Trained(),
    Spawned("score", (2,)),
    Scoring(5, 10),
    Scored(2.5),
    Finished({}),
    Decided("keep", 2.5, -0.25, experiment=3),
]


def fold(events, budget=20.0):
    progress = Progress(budget)
    for event in events:
        progress.fold(event, 100.0)
    return progress


def test_training_shows_time_left_step_loss_and_speed():
    words = fold(TRIAL[:7]).line(110.0)
    assert "experiment 3" in words
    assert "10 s left" in words
    assert "step 12" in words
    assert "loss 4.250" in words
    assert "5k tokens/s" in words


def test_scoring_shows_its_share_and_a_decision_stays_in_view():
    assert "scoring ━━━━━━━━────────" in fold(TRIAL[:10]).line(101.0)
    words = fold([*TRIAL, Proposing(experiment=4)]).line(101.0)
    assert "experiment 4" in words
    assert "last: keep 2.5000 (-0.2500)" in words


def test_the_next_trial_starts_without_the_numbers_of_the_last():
    progress = fold([*TRIAL, *TRIAL[:5]])
    assert (progress.step, progress.loss, progress.tokens) == (None, None, None)


def test_a_pipe_gets_plain_lines_with_the_time_of_day():
    stream = io.StringIO()
    with PlainView(20.0, stream) as view:
        for event in TRIAL:
            view(event)
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    text = stream.getvalue()
    assert "experiment 3: a longer warmdown" in text
    assert "on Test CPU with numpy 2, fp32, isolation landlock" in text
    assert "training for 20 s" in text
    assert "experiment 3: keep 2.5000 (-0.2500)" in text
    assert "\x1b" not in text


def test_a_short_trial_is_not_said_to_be_audited():
    stream = io.StringIO()
    with PlainView(20.0, stream) as view:
        for event in TRIAL[1:-1]:
            view(replace(event, experiment=3, k=0))
    assert "training for a short trial" in stream.getvalue() and "scoring" in stream.getvalue()
    assert "auditing" not in stream.getvalue()


def test_a_closed_stream_does_not_stop_the_work():
    stream = io.StringIO()
    view = PlainView(20.0, stream)
    stream.close()
    for event in TRIAL:
        view(event)


def test_a_terminal_gets_a_line_in_place_and_keeps_the_decisions():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with TerminalView(20.0, console) as view:
        for event in TRIAL:
            view(event)
    assert "experiment 3: a longer warmdown\n" in stream.getvalue()
    assert "  keep 2.5000 (-0.2500)\n" in stream.getvalue()


def test_quiet_shows_nothing(capsys):
    with live_view(20.0, verbosity=-1) as view:
        assert isinstance(view, QuietView)
        for event in TRIAL:
            view(event)
        view.note("a note")
    assert capsys.readouterr() == ("", "")


def test_colour_that_is_asked_for_makes_no_terminal_of_a_file(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with live_view(20.0) as view:
        assert isinstance(view, PlainView)


def test_standard_output_stays_free(capsys):
    with live_view(20.0) as view:
        for event in TRIAL:
            view(event)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "keep 2.5000" in captured.err


@pytest.mark.parametrize(("number", "words"), [(12, "12"), (5400, "5.4k"), (1_650_000, "1.65M"), (2e9, "2G")])
def test_large_numbers_are_shortened(number, words):
    assert compact(number) == words


def test_a_bar_is_never_longer_than_full():
    assert len({len(bar(share)) for share in (-1.0, 0.0, 0.5, 1.0, 7.0)}) == 1


def test_a_researchers_words_cannot_move_the_cursor():
    assert one_line("halve\nthe \x1b[31mbatch\x07") == "halve the [31mbatch"
    assert one_line("abcdefgh", 5) == "abcd…"


def test_after_a_decision_it_says_how_long_the_rest_may_take(monkeypatch):
    now, stream = [100.0], io.StringIO()
    monkeypatch.setattr("autoresearch.core.report.terminal.live.time.monotonic", lambda: now[0])
    view = PlainView(20.0, stream, goal=5, decided=1)
    for number in (2, 3, 4, 5):
        view(ExperimentBegun("wider", experiment=number))
        now[0] += 90.0
        view(Decided("discard", 2.5, 0.25, experiment=number))
    lines = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
    assert lines[0] == "experiment 2 of 5: wider"
    assert [line.rpartition("about ")[2] for line in lines[1::2]][:3] == ["4 min left", "3 min left", "2 min left"]
    assert "left" not in lines[-1]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ((20, 1, 0, 330.0), "about 1 h 44 min left"), ((2, 1, 0, 42.0), "about 42 s left"), ((None, 3, 0, 9.0), None),
        ((3, 3, 0, 9.0), None), ((30, 20, 20, 9.0), None), ((3, 2, 0, 240.0), "about 2 min left"),
    ],
)  # fmt: skip
def test_the_time_left_is_said_by_the_pace_of_this_session(facts, words):
    assert about_left(*facts) == words
