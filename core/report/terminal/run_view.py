"""The view of `ar loop`: the run's panel, drawn by a thread of its own from the ledger and the trials' events."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import deque
from pathlib import Path

from rich.console import Console
from rich.text import Text

from autoresearch.core.errors import ArError
from autoresearch.core.events import Event, ProposalRefused, Proposing, Thinking
from autoresearch.core.report.follow import RunFollower
from autoresearch.core.report.terminal.live import PLAIN_SECONDS, PlainView, QuietView, View
from autoresearch.core.report.terminal.panel import LoopInfo, panel
from autoresearch.core.report.terminal.screen import Screen, is_drawable
from autoresearch.core.report.wording import one_line
from autoresearch.core.store.reader import LedgerReader

LOOK_SECONDS = 0.5
"""Seconds between two looks at the ledger."""
CLOSE_SECONDS = 5.0
"""Seconds that the end of a run waits for a terminal that takes nothing, such as a stopped ssh."""


class RunView(QuietView):
    """The panel on a terminal, drawn until the block is left. Calling it never waits for the terminal."""

    def __init__(self, folder: Path, console: Console, info: LoopInfo) -> None:
        """Prepare to draw the run in `folder`, which holds its ledger."""
        self._folder, self._screen, self._info = folder, Screen(console), info
        self._expected = 0
        """Number that the proposal being made will get, or nearly: several may be made at once."""
        self._notes: deque[Text] = deque()
        self._over = False
        self._thread = threading.Thread(target=self._draw, name="view", daemon=True)

    def __call__(self, event: Event) -> None:
        """Remember what the ledger does not hold: since when the researcher thinks."""
        match event:
            case Proposing() | Thinking():
                self._expected = event.experiment
                if self._info.thinking is None:
                    self._info = dataclasses.replace(self._info, thinking=time.time())
            case ProposalRefused():
                self._info = dataclasses.replace(self._info, thinking=None)

    def note(self, message: str) -> None:
        """Write a line above the panel when it is drawn next. Safe in a signal handler."""
        self._notes.append(Text(one_line(message)))

    def __enter__(self) -> RunView:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join(CLOSE_SECONDS)

    def _draw(self) -> None:
        try:
            with LedgerReader(self._folder) as reader:
                follower = RunFollower(reader)
                while not self._over:
                    self._look(follower)
                    time.sleep(LOOK_SECONDS)
        except ArError as error:
            self.note(f"the view has stopped, the run goes on: {error}")
        # The panel is gone; notes that still come, such as the second Ctrl-C's, are written alone.
        while not self._over:
            self._screen.close(self._new_notes())
            time.sleep(LOOK_SECONDS)
        self._screen.close(self._new_notes())

    def _look(self, follower: RunFollower) -> None:
        snapshot, (width, height) = follower.look(), self._screen.room()
        known = [one.experiment.number for one in snapshot.running] + [row.number for row in snapshot.last]
        if max(known, default=-1) >= self._expected:  # the proposal is in the ledger
            self._info = dataclasses.replace(self._info, thinking=None)
        self._screen.draw(panel(snapshot, width, height, self._info), self._new_notes())

    def _new_notes(self) -> list[Text]:
        return [self._notes.popleft() for _ in range(len(self._notes))]


def run_view(folder: Path, budget_seconds: float, info: LoopInfo, *, verbosity: int, data_on_stdout: bool) -> View:
    """Choose the view of a run that fits stderr, the place where data go, and --quiet."""
    if verbosity < 0:
        return QuietView()
    console = Console(stderr=True)
    if is_drawable(console) and not (data_on_stdout and sys.stdout.isatty()):  # data would be written into the panel
        return RunView(folder, console, info)
    interval = 2.0 if verbosity > 0 else PLAIN_SECONDS
    return PlainView(budget_seconds, sys.stderr, interval=interval, goal=info.goal, decided=info.before)
