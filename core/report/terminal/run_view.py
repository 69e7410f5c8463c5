"""`ar loop` on a terminal: the run's panel, drawn by a thread of its own from what the ledger and the trials say."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from autoresearch.core.errors import ArError
from autoresearch.core.report.follow import RunFollower
from autoresearch.core.report.terminal.live import PLAIN_SECONDS, PlainView, QuietView, View
from autoresearch.core.report.terminal.panel import Outlook, panel
from autoresearch.core.report.terminal.screen import Screen
from autoresearch.core.report.wording import one_line
from autoresearch.core.store.reader import LedgerReader

LOOK_SECONDS = 0.5
CLOSE_SECONDS = 5.0
"""A terminal that takes nothing (a stopped ssh) must not hold up the end of a run for longer."""


class RunView(QuietView):
    """Draws the panel until it is left. Calling it never waits for the terminal."""

    def __init__(self, folder: Path, console: Console, outlook: Outlook) -> None:
        """`folder` is the run's, with a ledger in it."""
        self._folder, self._screen, self._outlook = folder, Screen(console), outlook
        self._asked = 0
        """The experiment that the proposal in the making will become, about: several may be."""
        self._notes: deque[Text] = deque()
        self._over = False
        self._thread = threading.Thread(target=self._draw, name="view", daemon=True)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Remember what the ledger does not say: since when the researcher thinks."""
        match event.get("event"):
            case "proposing" | "thinking":
                self._asked = int(event.get("experiment") or 0)
                if self._outlook.thinking is None:
                    self._outlook = dataclasses.replace(self._outlook, thinking=time.time())
            case "proposal_refused":
                self._outlook = dataclasses.replace(self._outlook, thinking=None)

    def note(self, message: str) -> None:
        """Write a line above the panel, at its next look. Safe in a signal handler."""
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
        # What is said from now on is rare, and the panel is gone.
        while not self._over:
            self._screen.close(self._new_notes())
            time.sleep(LOOK_SECONDS)
        self._screen.close(self._new_notes())

    def _look(self, follower: RunFollower) -> None:
        snapshot, (width, height) = follower.look(), self._screen.room()
        known = [one.experiment.number for one in snapshot.running] + [row.number for row in snapshot.last]
        if max(known, default=-1) >= self._asked:  # it has been made
            self._outlook = dataclasses.replace(self._outlook, thinking=None)
        self._screen.draw(panel(snapshot, width, height, self._outlook), self._new_notes())

    def _new_notes(self) -> list[Text]:
        return [self._notes.popleft() for _ in range(len(self._notes))]


def run_view(folder: Path, budget_seconds: float, outlook: Outlook, *, verbosity: int, data_on_stdout: bool) -> View:
    """The view that fits stderr, where data go, and the wish for silence."""
    if verbosity < 0:
        return QuietView()
    console = Console(stderr=True)
    drawable = console.is_terminal and not console.is_dumb_terminal
    if drawable and not (data_on_stdout and sys.stdout.isatty()):  # data would be written into the panel
        return RunView(folder, console, outlook)
    return PlainView(budget_seconds, sys.stderr, interval=2.0 if verbosity > 0 else PLAIN_SECONDS)
