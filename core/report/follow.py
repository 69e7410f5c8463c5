"""A run that another process writes, as it is at this moment: the ledger, and the current trial's events."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

from autoresearch.core.report.live import Progress
from autoresearch.core.report.trial_events import EventFollower, is_number
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, RunRow, Totals, TrialRow

LAST_DECISIONS = 6
STALE_SECONDS = 60.0
"""After this long without a heartbeat a writer on another machine is taken for dead."""
MAX_LOSSES = 20_000
"""Kept of a trial; a longer curve keeps its latest part."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment. Times are seconds since the epoch."""

    now: float
    run: RunRow
    died: bool
    """It says that it runs, and its process is gone."""
    totals: Totals
    best: ExperimentRow | None
    baseline: ExperimentRow | None
    keeps: tuple[tuple[int, float], ...]
    """Experiment and estimate of every keep, the baseline first."""
    decided: int
    """The baseline included."""
    last: tuple[ExperimentRow, ...]
    """The latest decisions, oldest first."""
    current: ExperimentRow | None
    trial: TrialRow | None
    """The trial that runs now."""
    progress: Progress | None
    losses: tuple[float, ...]
    peak_memory_mb: float | None
    """Of the last trial that ended."""
    isolation: str | None
    """Of the last trial that ended."""

    @property
    def state(self) -> str:
        """The run's state in a word."""
        return "died" if self.died else self.run.state

    @property
    def over(self) -> bool:
        """Whether nothing more is to be expected."""
        return self.state != "running"

    @property
    def gain(self) -> float | None:
        """Estimate of the best against the baseline's; negative is better."""
        if self.baseline is None or self.best is None:
            return None
        first, best = self.baseline.estimate, self.best.estimate
        return None if first is None or best is None else best - first


class RunFollower:
    """Looks at a run again and again. Every look raises `LedgerError` when the ledger is damaged."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader
        self._trial: tuple[int, int, int] | None = None
        self._events: EventFollower | None = None
        self._progress: Progress | None = None
        self._losses: list[float] = []

    def look(self) -> Snapshot:
        """The run as it is now."""
        reader, run, now = self._reader, self._reader.run(), time.time()
        last = [row for row in reader.last(LAST_DECISIONS + 1) if row.state == "decided"][-LAST_DECISIONS:]
        current = reader.in_flight()
        trials = reader.trials(experiment=current.number) if current else []
        trial = next((one for one in trials if one.status is None), None)
        self._follow(run, trial)
        ended = self._last_result(trials, last)
        keeps = reader.keeps()
        return Snapshot(
            now=now,
            run=run,
            died=run.state == "running" and not is_alive(run, now),
            totals=reader.totals(),
            best=reader.incumbent(),
            baseline=keeps[0] if keeps else None,
            keeps=tuple((row.number, row.estimate) for row in keeps if row.estimate is not None),
            decided=reader.next_number() - (1 if current else 0),
            last=tuple(last),
            current=current,
            trial=trial,
            progress=self._progress,
            losses=tuple(self._losses),
            peak_memory_mb=ended.get("peak_memory_mb"),
            isolation=ended.get("isolation"),
        )

    def _follow(self, run: RunRow, trial: TrialRow | None) -> None:
        """Take in what the current trial has said since the last look."""
        key = None if trial is None else (trial.experiment, trial.k, trial.starts)
        if key != self._trial:
            self._trial, self._events, self._progress, self._losses = key, None, None, []
            if trial is not None:
                folder = trial_folder(self._reader.folder, trial.experiment, trial.k)
                self._events = EventFollower(folder / "events.jsonl")
                self._progress = Progress(run.config["train_seconds"], since=trial.started)
        if trial is None or self._events is None or self._progress is None:
            return
        for event in self._events.new():
            at = event.get("t")
            self._progress.fold(event, trial.started + (at if is_number(at) else 0.0))
            if event.get("event") == "log" and is_number(loss := event.get("loss")):
                self._losses.append(loss)
        del self._losses[:-MAX_LOSSES]

    def _last_result(self, trials: list[TrialRow], last: list[ExperimentRow]) -> dict[str, Any]:
        ended = [trial for trial in trials if trial.result]
        if not ended and last:
            ended = [trial for trial in self._reader.trials(experiment=last[-1].number) if trial.result]
        return dict(ended[-1].result) if ended else {}


def is_alive(run: RunRow, now: float) -> bool:
    """Whether the run's writer lives: by its process on this machine, by its heartbeat on another."""
    import psutil

    if run.pid is not None and run.host == socket.gethostname():
        return psutil.pid_exists(run.pid)
    return run.heartbeat is not None and now - run.heartbeat < STALE_SECONDS
