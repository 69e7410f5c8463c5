"""What a person sees while trials run: one live line on a terminal, plain lines in a file or a pipe. On stderr.

`live_view` returns an observer, also a context manager. Standard output stays free for data.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from autoresearch.core.report.trial_events import is_number
from autoresearch.core.report.wording import bar, compact, one_line

REFRESH_PER_SECOND = 4
PLAIN_SECONDS = 10.0
"""Between two lines about a training that goes on, where there is no terminal."""


class View(Protocol):
    """Shows what it is told. Calling it is cheap and never raises."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Something happened (see `core.fleet.executor.Observer`)."""
        ...

    def note(self, message: str) -> None:
        """Say one line that stays."""
        ...

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass
class Progress:
    """What is going on, folded from the events so far."""

    budget_seconds: float
    experiment: int | None = None
    description: str = ""
    phase: str = "starting"
    since: float = 0.0
    """Monotonic seconds at which the phase began."""
    step: float | None = None
    loss: float | None = None
    tokens: int | None = None
    scored: float | None = None
    """Share of the rows that are scored, 0..1."""
    memory_mb: float | None = None
    """Host memory that the training takes now."""
    last: str = ""
    """The last decision, in words."""

    def fold(self, event: Mapping[str, Any], now: float) -> bool:
        """Take in one event; returns whether the phase changed."""
        before = self.phase
        match event.get("event"):
            case "experiment":
                self.experiment, self.description = event.get("experiment"), str(event.get("description") or "")
            case "proposing":
                self.experiment, self.description, self.phase = event.get("experiment"), "", "proposing"
            case "spawned" if event.get("role", "train") == "train":
                self.phase, self.step, self.loss, self.tokens, self.scored = "starting", None, None, None, None
                self.memory_mb = None
            case "first_batch":
                self.phase = "training"
            case "log":
                # The train file logs what it likes; only numbers are shown.
                self.step = step if is_number(step := event.get("step")) else self.step
                self.loss = loss if is_number(loss := event.get("loss")) else self.loss
            case "progress":
                self.tokens = event.get("tokens", self.tokens)
            case "memory":
                self.memory_mb = used if is_number(used := event.get("mb")) else self.memory_mb
            case "trained":
                self.phase = "scoring"
            case "scoring":
                self.phase, self.scored = "scoring", event.get("done", 0) / max(event.get("total", 1), 1)
            case "scored":
                self.phase = "auditing"
            case "finished":
                self.phase = "finished"
            case "decided":
                self.phase, self.last = "decided", decision_words(event)
        if self.phase != before:
            self.since = now
        return self.phase != before

    def parts(self, now: float) -> list[str]:
        """How far the trial is, each fact by itself."""
        elapsed = now - self.since
        if self.phase == "scoring" and self.scored is not None:
            return [f"scoring {bar(self.scored)}"]
        if self.phase != "training":
            return [f"{self.phase} {elapsed:.0f} s"]
        left = max(self.budget_seconds - elapsed, 0.0)
        parts = [f"training {bar(elapsed / max(self.budget_seconds, 1e-9))} {left:.0f} s left"]
        if self.step is not None:
            parts.append(f"step {self.step:.0f}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.tokens and elapsed > 1.0:
            parts.append(f"{compact(self.tokens / elapsed)} tok/s")
        if self.memory_mb is not None:
            parts.append(f"{self.memory_mb:.0f} MB")
        return parts

    def words(self, now: float) -> str:
        """The present state in one line."""
        parts = [] if self.experiment is None else [f"experiment {self.experiment}"]
        parts += self.parts(now)
        if self.last:
            parts.append(f"last: {self.last}")
        return " · ".join(parts)


def decision_words(event: Mapping[str, Any]) -> str:
    """For example "keep 1.2345 (-0.0012)", or "crash: out of memory"."""
    status, bpb, delta, reason = (event.get(name) for name in ("status", "val_bpb", "delta", "reason"))
    if bpb is None:
        return f"{status}: {one_line(str(reason), 80)}" if reason else f"{status}"
    return f"{status} {bpb:.4f}" if delta is None else f"{status} {bpb:.4f} ({delta:+.4f})"


class QuietView:
    """Shows nothing."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Ignore it."""

    def note(self, message: str) -> None:
        """Ignore it."""

    def __enter__(self) -> QuietView:
        return self

    def __exit__(self, *_: object) -> None: ...


class PlainView(QuietView):
    """A line when a trial's phase changes, and now and then while it trains. Trials may run side by side."""

    def __init__(self, budget_seconds: float, stream: TextIO, *, interval: float = PLAIN_SECONDS) -> None:
        self._budget, self._stream, self._interval = budget_seconds, stream, interval
        self._trials: dict[Any, Progress] = {}
        """By experiment; None where there is one trial and no run."""
        self._said: dict[Any, float] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Say it if it is news."""
        now, number, kind = time.monotonic(), event.get("experiment"), event.get("event")
        if kind in ("proposing", "thinking", "proposal_refused", "withdrawn"):
            return  # of no trial; who listens for it notes it
        progress = self._trials.setdefault(number, Progress(self._budget, since=now))
        changed = progress.fold(event, now)
        whose = "" if number is None else f"experiment {number}: "
        if kind == "experiment":
            self._say(number, f"{whose}{one_line(progress.description)}")
        elif kind == "device":
            self._say(number, f"{whose}on {event.get('name')} with {event.get('framework')}, {event.get('precision')}")
        elif changed and progress.phase == "training":
            self._say(number, f"{whose}training for {progress.budget_seconds:g} s")
        elif changed and progress.phase in ("scoring", "auditing"):
            self._say(number, f"{whose}{progress.phase}")
        elif kind == "decided":
            self._say(number, f"{whose}{progress.last}")
            del self._trials[number], self._said[number]
        elif progress.phase == "training" and now - self._said.get(number, now) >= self._interval:
            self._say(number, f"{whose}{' · '.join(progress.parts(now))}")

    def note(self, message: str) -> None:
        """Write the line with the time of day."""
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {one_line(message)}\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more; the work goes on

    def _say(self, number: Any, message: str) -> None:
        self._said[number] = time.monotonic()
        self.note(message)


class TerminalView(QuietView):
    """One line that changes in place, below the lines that stay."""

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

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take it in; the next refresh shows it. What was tried and what came of it stays."""
        self._progress.fold(event, time.monotonic())
        if event.get("event") == "experiment":
            self.note(f"experiment {event.get('experiment')}: {one_line(self._progress.description)}")
        elif event.get("event") == "decided":
            style = "bold green" if event.get("status") == "keep" else ""
            self._console.print(Text(f"  {self._progress.last}", style=style), soft_wrap=True)

    def note(self, message: str) -> None:
        """Write a line above the live one."""
        self._console.print(Text(one_line(message)), soft_wrap=True)

    def _render(self) -> Text:
        return Text(self._progress.words(time.monotonic()), style="cyan", overflow="ellipsis", no_wrap=True)

    def __enter__(self) -> TerminalView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def live_view(budget_seconds: float, *, verbosity: int = 0) -> View:
    """The view that fits stderr and the wish for silence. `budget_seconds` is a trial's training time."""
    if verbosity < 0:
        return QuietView()
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        return TerminalView(budget_seconds, console)
    return PlainView(budget_seconds, sys.stderr, interval=2.0 if verbosity > 0 else PLAIN_SECONDS)
