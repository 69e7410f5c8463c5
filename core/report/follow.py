"""A run that another process writes, at this moment: its ledger, and the events of the trials under way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.core.events import EVENTS_FILE, EventFollower, Log
from autoresearch.core.report.progress import Progress
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.headline import Headline, headline_of, steps_of
from autoresearch.core.store.liveness import shown_state
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, RunRow, Totals, TrialRow

LAST_DECISIONS = 6
"""Number of the latest decisions that a snapshot holds."""
MAX_LOSSES = 20_000
"""Number of losses kept of a trial; a longer curve loses its beginning."""


@dataclass(frozen=True)
class Running:
    """An experiment that is not decided yet, and its trial under way."""

    experiment: ExperimentRow
    trial: TrialRow | None
    """None between two trials."""
    progress: Progress | None
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment. Times are seconds since the epoch, results are bits per byte."""

    now: float
    run: RunRow
    state: str
    """The run's state in a word, "died" when its process is gone (see `core.store.liveness`)."""
    totals: Totals
    headline: Headline | None
    """The best file's measured mean and its cautious estimate; None without a result."""
    keeps: tuple[tuple[int, float], ...]
    """Number and measured mean of every kept experiment, the baseline first."""
    decided: int
    """Number of decided experiments, the baseline included."""
    last: tuple[ExperimentRow, ...]
    """The latest decisions, oldest first."""
    running: tuple[Running, ...]
    """Undecided experiments by number: several where trials run side by side."""
    peak_memory_mb: float | None
    """Memory of the last trial that ended, in MB."""
    isolation: str | None
    """Isolation level of the last trial that ended."""

    @property
    def over(self) -> bool:
        """Tell whether nothing more is to come."""
        return self.state != "running"

    @property
    def gain(self) -> float | None:
        """Measured mean of the best file less the baseline's, in bits per byte; negative is better."""
        return None if self.headline is None else self.headline.gain

    @property
    def current(self) -> ExperimentRow | None:
        """The first undecided experiment."""
        return self.running[0].experiment if self.running else None

    @property
    def trial(self) -> TrialRow | None:
        """The trial of the first undecided experiment."""
        return self.running[0].trial if self.running else None

    @property
    def progress(self) -> Progress | None:
        """The progress of that trial."""
        return self.running[0].progress if self.running else None

    @property
    def losses(self) -> tuple[float, ...]:
        """The training losses of that trial."""
        return self.running[0].losses if self.running else ()


class RunFollower:
    """Looks at a run again and again. Every look raises `LedgerError` when the ledger is damaged."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader
        self._trials: dict[tuple[int, int, int], TrialFollower] = {}

    def look(self) -> Snapshot:
        """Read the run as it is now."""
        reader, run, now = self._reader, self._reader.run(), time.time()
        undecided = reader.undecided()
        # Side by side, experiments are not decided in the order of their numbers.
        recent = reader.last(LAST_DECISIONS + len(undecided))
        last = sorted((row for row in recent if row.state == "decided"), key=lambda row: row.decided or 0.0)
        last = last[-LAST_DECISIONS:]
        trials = {row.number: reader.trials(experiment=row.number) for row in undecided}
        running = tuple(self._running(run, row, trials[row.number]) for row in undecided)
        # Followers of ended trials are dropped: each holds up to MAX_LOSSES numbers.
        in_flight = {_key(one.trial) for one in running if one.trial is not None}
        self._trials = {key: follower for key, follower in self._trials.items() if key in in_flight}
        ended = self._last_result([trial for some in trials.values() for trial in some], last)
        keeps, totals = reader.keeps(), reader.totals()
        # `totals` leaves the baseline out.
        baseline_decided = reader.next_number() > 0 and all(row.number > 0 for row in undecided)
        return Snapshot(
            now=now,
            run=run,
            state=shown_state(run, now),
            totals=totals,
            headline=headline_of(reader),
            keeps=tuple(sorted(steps_of(reader, keeps).items())),
            decided=totals.decided + baseline_decided,
            last=tuple(last),
            running=running,
            peak_memory_mb=ended.get("peak_memory_mb"),
            isolation=ended.get("isolation"),
        )

    def _running(self, run: RunRow, row: ExperimentRow, trials: list[TrialRow]) -> Running:
        trial, seconds = next((one for one in trials if one.status is None), None), run.config["train_seconds"]
        if trial is None and row.state == "running" and run.config.get("screen_seconds"):
            trial, seconds = (
                _short_trial(trial_folder(self._reader.folder, row.number, 0), row),
                run.config["screen_seconds"],
            )
        if trial is None:
            return Running(row, None, None, ())
        key = _key(trial)
        if key not in self._trials:
            self._trials[key] = TrialFollower(self._reader, trial, seconds)
        follower = self._trials[key]
        follower.look()
        return Running(row, trial, follower.progress, tuple(follower.losses))

    def _last_result(self, trials: list[TrialRow], last: list[ExperimentRow]) -> dict[str, Any]:
        """Give the result of the last trial that ended; empty before the first."""
        ended = sorted((trial for trial in trials if trial.result), key=lambda trial: trial.ended or 0.0)
        if not ended and last:
            ended = [trial for trial in self._reader.trials(experiment=last[-1].number) if trial.result]
        return dict(ended[-1].result) if ended else {}


class TrialFollower:
    """Folds the events of one trial into its progress and its losses."""

    def __init__(self, reader: LedgerReader, trial: TrialRow, budget_seconds: float) -> None:
        self._events = EventFollower(trial_folder(reader.folder, trial.experiment, trial.k) / EVENTS_FILE)
        self._started = trial.started
        self.progress = Progress(budget_seconds, since=trial.started)
        self.losses: list[float] = []

    def look(self) -> None:
        """Take in the events since the last look."""
        for event in self._events.new():
            self.progress.fold(event, self._started + (event.t or 0.0))
            if isinstance(event, Log) and event.loss is not None:
                self.losses.append(event.loss)
        del self.losses[:-MAX_LOSSES]


def _short_trial(folder: Path, row: ExperimentRow) -> TrialRow | None:
    """Return the short trial under way in the form of a trial: it has a folder and no row."""
    try:
        began = (folder / "train.py").stat().st_mtime
    except OSError:
        return None
    return TrialRow(row.number, 0, "candidate", row.number, 0, int(began), began, None, None, None, {})


def _key(trial: TrialRow) -> tuple[int, int, int]:
    """Identify one start of a trial: a trial that is started again begins a new file of events."""
    return trial.experiment, trial.k, trial.starts
