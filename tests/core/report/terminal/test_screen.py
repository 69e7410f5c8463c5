"""What a terminal shows after the bytes that a screen sends, as an emulated terminal has it."""

from __future__ import annotations

import io
from contextlib import contextmanager

import pyte
import pytest
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from autoresearch.core.report.terminal.screen import Screen


class Terminal:
    """A console, and the emulator that is at the other end of it."""

    def __init__(self, width=40, height=10):
        self.emulated = pyte.HistoryScreen(width, height)
        self.stream, self.sent = pyte.Stream(self.emulated), io.StringIO()
        self.console = Console(
            file=self.sent, force_terminal=True, width=width, height=height, color_system=None, legacy_windows=False
        )
        self.screen, self._read = Screen(self.console), 0

    def lines(self):
        """What is shown now, without empty lines at the end."""
        self.stream.feed(self.new_bytes())
        return "\n".join(line.rstrip() for line in self.emulated.display).rstrip("\n").split("\n")

    def new_bytes(self):
        self.sent.seek(self._read)
        new = self.sent.read()
        self._read += len(new)
        return new

    def draw(self, *lines, above=()):
        self.screen.draw([Text(line) for line in lines], [Text(line) for line in above])


@pytest.fixture
def terminal():
    return Terminal()


def test_a_block_changes_in_place(terminal):
    terminal.draw("one", "two", "three")
    terminal.draw("one", "2", "three")
    assert terminal.lines() == ["one", "2", "three"]
    terminal.draw("one", "2", "three", "four")
    assert terminal.lines() == ["one", "2", "three", "four"]
    terminal.draw("one")
    assert terminal.lines() == ["one"]


def test_only_lines_that_changed_are_sent(terminal):
    terminal.draw("a line that stays", "10 s left")
    terminal.new_bytes()
    terminal.draw("a line that stays", "9 s left")
    sent = terminal.new_bytes()
    assert "9 s left" in sent
    assert "stays" not in sent
    terminal.draw("a line that stays", "9 s left")
    assert terminal.new_bytes() == ""


def test_notes_stay_above_the_block(terminal):
    terminal.draw("block")
    terminal.draw("block", above=["first note"])
    terminal.draw("block 2", above=["second note"])
    assert terminal.lines() == ["first note", "second note", "block 2"]


def test_a_long_note_is_wrapped_and_the_block_stays_whole(terminal):
    terminal.draw("block")
    terminal.draw("block", above=["x" * 50])
    terminal.draw("block 2")
    assert terminal.lines() == ["x" * 40, "x" * 10, "block 2"]


def test_a_block_as_high_as_the_room_never_scrolls_and_notes_go_into_the_history(terminal):
    _, height = terminal.screen.room()
    block = [f"line {index}" for index in range(height)]
    for turn in range(5):
        terminal.draw(*block[:-1], f"turn {turn}", above=[f"note {turn}"])
    assert terminal.lines() == [*block[:-1], "turn 4"]
    assert len(terminal.emulated.history.top) == 5


def test_another_size_starts_afresh(terminal):
    terminal.draw("a line of thirty characters ...", "another")
    terminal.lines()
    terminal.emulated.resize(10, 20)
    terminal.console.size = (20, 10)
    terminal.draw("short", "another")
    assert terminal.lines() == ["short", "another"]


def test_closing_takes_the_block_away_and_gives_the_cursor_back(terminal):
    terminal.draw("block", "more")
    assert terminal.lines() == ["block", "more"]
    assert terminal.emulated.cursor.hidden
    terminal.screen.close([Text("the end")])
    assert terminal.lines() == ["the end"]
    assert not terminal.emulated.cursor.hidden


def test_a_terminal_that_is_gone_is_no_error(terminal):
    terminal.draw("block")
    terminal.sent.close()
    terminal.draw("other")
    terminal.screen.close()


def redraws(draw_with, turns=2):
    """Bytes of one redraw in which one line of 21 changes, and those after which an unchanged line is not whole."""
    terminal, block = Terminal(80, 24), [f"line {index} " + "x" * 60 for index in range(20)]
    terminal.emulated.set_mode(pyte.modes.LNM)  # as a real terminal driver does
    sent = damaged = 0
    with draw_with(terminal) as draw:
        for turn in range(turns):
            draw([Text(line) for line in [*block[:5], f"turn {turn}", *block[5:]]])
            for char in terminal.new_bytes():
                terminal.stream.feed(char)
                if turn:
                    sent += 1
                    damaged += not set(block) <= {line.rstrip() for line in terminal.emulated.display}
    return sent / (turns - 1), damaged / (turns - 1)


@contextmanager
def with_live(terminal):
    options = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
    with Live(console=terminal.console, **options) as live:
        yield lambda lines: live.update(Group(*lines), refresh=True)


@contextmanager
def with_screen(terminal):
    yield terminal.screen.draw


def test_a_slow_terminal_sees_rich_live_flicker_and_this_screen_not():
    live_bytes, live_damaged = redraws(with_live)
    own_bytes, own_damaged = redraws(with_screen)
    assert own_damaged == 0
    assert own_bytes < 100
    assert live_damaged > 0.9 * live_bytes > 1000
