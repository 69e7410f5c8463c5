"""The view of single trials (`ar train`, `verify`, `compare`, ...): one live line on a terminal, plain lines elsewhere.

All views write to stderr, so that standard output stays free for data. `live_view` chooses one; it observes events and
is a context manager. `ar loop` shows a whole run instead (see run_view.py).
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from autoresearch.core.events import (
    AwaitingProposals,
    Decided,
    DeviceFound,
    Event,
    ExperimentBegun,
    Paused,
    Profiling,
    ProposalRefused,
    Proposing,
    Remeasuring,
    Resumed,
    Thinking,
    Withdrawn,
)
from autoresearch.core.report.progress import Progress
from autoresearch.core.report.terminal.screen import is_drawable
from autoresearch.core.report.wording import SEPARATOR, about_left, experiment_of, one_line

UNTRIED = (
    *(Proposing, Thinking, ProposalRefused, Withdrawn),
    *(Profiling, Remeasuring, AwaitingProposals, Paused, Resumed),
)
"""Events about no trial: `ar loop` writes notes of its own about them."""
REFRESH_PER_SECOND = 4
DESCRIPTION_CHARACTERS = 100
"""Characters of an experiment's description in its line; `ar results` has the rest."""
PLAIN_SECONDS = 10.0
"""Seconds between two lines about the same training, where there is no terminal."""


class View(Protocol):
    """An observer of a trial's events that shows them. Calling it is cheap and never raises."""

    def __call__(self, event: Event) -> None:
        """Take in one event (see `core.events.Observer`)."""
        ...

    def note(self, message: str) -> None:
        """Show one line that stays."""
        ...

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class QuietView:
    """The view under --quiet: it shows nothing."""

    def __call__(self, event: Event) -> None:
        """Ignore the event."""

    def note(self, message: str) -> None:
        """Ignore the line."""

    def __enter__(self) -> QuietView:
        return self

    def __exit__(self, *_: object) -> None: ...


class PlainView(QuietView):
    """Plain lines: one when a trial's phase changes, and one every `interval` seconds while it trains.

    Trials may run side by side, so each line names its experiment.
    """

    def __init__(
        self,
        budget_seconds: float,
        stream: TextIO,
        *,
        interval: float = PLAIN_SECONDS,
        goal: int | None = None,
        decided: int = 0,
    ) -> None:
        """Write to the stream. `goal` experiments are asked for, and `decided` of them were done before."""
        self._budget, self._stream, self._interval = budget_seconds, stream, interval
        self._goal, self._decided, self._before, self._began = goal, decided, decided, time.monotonic()
        self._first = True
        self._trials: dict[Any, Progress] = {}
        """Trials by experiment; the key is None where there is one trial and no run."""
        self._written: dict[Any, float] = {}
        """Monotonic seconds of each trial's last line."""

    def __call__(self, event: Event) -> None:
        """Write a line if the event is news."""
        now, number = time.monotonic(), event.experiment
        if isinstance(event, UNTRIED):
            return
        progress = self._trials.setdefault(number, Progress(self._budget, since=now))
        changed = progress.fold(event, now)
        whose = "" if number is None else f"{experiment_of(number)}: "
        if isinstance(event, ExperimentBegun):
            if self._first and event.experiment:
                # The pace begins here: neither the baseline nor the first proposal comes again.
                self._began, self._first = now, False
            what = one_line(progress.description, DESCRIPTION_CHARACTERS)
            self._write(number, f"{experiment_of(event.experiment, self._goal)}: {what}")
        elif isinstance(event, DeviceFound):
            found = event.device
            level = f", isolation {progress.isolation}" if progress.isolation else ""
            self._write(number, f"{whose}on {found.name} with {found.framework}, {found.precision}{level}")
        elif changed and progress.phase == "training":
            # A short trial, which has no number, takes a part of the budget that the view was given.
            short = getattr(event, "k", None) == 0
            words = "training for a short trial" if short else f"training for {progress.budget_seconds:g} s"
            self._write(number, f"{whose}{words}")
        elif changed and progress.phase in ("scoring", "auditing"):
            self._write(number, f"{whose}{progress.phase}")
        elif isinstance(event, Decided):
            self._decided += number != 0  # the baseline is no experiment that was asked for
            left = about_left(self._goal, self._decided, self._before, now - self._began)
            self._write(number, f"{whose}{progress.last}{SEPARATOR + left if left else ''}")
            del self._trials[number], self._written[number]
        elif progress.phase == "training" and now - self._written.get(number, now) >= self._interval:
            self._write(number, f"{whose}{SEPARATOR.join(progress.parts(now))}")

    def note(self, message: str) -> None:
        """Write the line with the time of day."""
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {one_line(message)}\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # the reader is gone; the work goes on

    def _write(self, number: Any, message: str) -> None:
        self._written[number] = time.monotonic()
        self.note(message)


class TerminalView(QuietView):
    """One line that changes in place (rich.live.Live), below the lines that stay."""

    def __init__(self, budget_seconds: float, console: Console) -> None:
        self._progress, self._console = Progress(budget_seconds, since=time.monotonic()), console
        # A redirected standard output carries data, which must not be drawn here.
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )

    def __call__(self, event: Event) -> None:
        """Take in one event, which the next refresh shows. Each experiment and its decision leave a line that stays."""
        self._progress.fold(event, time.monotonic())
        if isinstance(event, ExperimentBegun):
            what = one_line(self._progress.description, DESCRIPTION_CHARACTERS)
            self.note(f"{experiment_of(event.experiment)}: {what}")
        elif isinstance(event, Decided):
            style = "bold green" if event.status == "keep" else ""
            self._console.print(Text(f"  {self._progress.last}", style=style), soft_wrap=True)

    def note(self, message: str) -> None:
        """Write a line above the live one."""
        self._console.print(Text(one_line(message)), soft_wrap=True)

    def _render(self) -> Text:
        return Text(self._progress.line(time.monotonic()), style="cyan", overflow="ellipsis", no_wrap=True)

    def __enter__(self) -> TerminalView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def live_view(budget_seconds: float, *, verbosity: int = 0) -> View:
    """Choose the view that fits stderr and --quiet. `budget_seconds` is a trial's training time."""
    if verbosity < 0:
        return QuietView()
    console = Console(stderr=True)
    if is_drawable(console):
        return TerminalView(budget_seconds, console)
    return PlainView(budget_seconds, sys.stderr, interval=2.0 if verbosity > 0 else PLAIN_SECONDS)
