"""The progress of a trial, folded from its events: shown by the live views, `ar watch` and the dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from autoresearch.core.events import (
    Decided,
    Event,
    ExperimentBegun,
    FeedProgress,
    Finished,
    FirstBatch,
    Log,
    MemoryUsed,
    Proposing,
    Scored,
    Scoring,
    Spawned,
    Trained,
)
from autoresearch.core.report.wording import SEPARATOR, bar, decision_text, experiment_of, training_parts

SPEED_AFTER_SECONDS = 1.0
"""Seconds of training before its speed is shown: the first ones say nothing."""


@dataclass
class Progress:
    """One trial at this moment. Times are seconds on the clock of whoever calls `fold`."""

    budget_seconds: float
    experiment: int | None = None
    """None where there is one trial and no run."""
    description: str = ""
    phase: str = "starting"
    since: float = 0.0
    """Time at which the phase began."""
    step: float | None = None
    loss: float | None = None
    tokens: int | None = None
    scored: float | None = None
    """Share of the rows that are scored, 0 to 1."""
    isolation: str | None = None
    """Isolation level of the training."""
    memory_mb: float | None = None
    """Host memory that the training takes now, in MB."""
    last: str = ""
    """The last decision, as text."""

    def fold(self, event: Event, now: float) -> bool:
        """Take in one event; returns whether the phase changed."""
        before = self.phase
        match event:
            case ExperimentBegun():
                self.experiment, self.description = event.experiment, event.description
            case Proposing():
                self.experiment, self.description, self.phase = event.experiment, "", "proposing"
            case Spawned(role="train"):
                self.phase, self.step, self.loss, self.tokens, self.scored = "starting", None, None, None, None
                self.memory_mb, self.isolation = None, event.isolation
            case FirstBatch():
                self.phase = "training"
            case Log():
                self.step = self.step if event.step is None else event.step
                self.loss = self.loss if event.loss is None else event.loss
            case FeedProgress():
                self.tokens = event.tokens
            case MemoryUsed():
                self.memory_mb = event.mb
            case Trained():
                self.phase = "scoring"
            case Scoring():
                self.phase, self.scored = "scoring", event.done / max(event.total, 1)
            case Scored() if event.k != 0:  # a short trial, which has no number, is not audited
                self.phase = "auditing"
            case Finished():
                self.phase = "finished"
            case Decided():
                self.phase = "decided"
                self.last = decision_text(event.status, event.val_bpb, event.delta, event.reason)
        if self.phase != before:
            self.since = now
        return self.phase != before

    def share(self, now: float) -> float | None:
        """Give the share of the training or of the scoring that is done, 0 to 1; None in other phases."""
        if self.phase == "training":
            return min(max(now - self.since, 0.0) / max(self.budget_seconds, 1e-9), 1.0)
        return self.scored if self.phase == "scoring" else None

    def parts(self, now: float, *, with_bar: bool = True) -> list[str]:
        """Say how far the trial is, one fact each. A page that draws its own bar asks for none of characters."""
        elapsed, share = max(now - self.since, 0.0), self.share(now)
        drawn = f" {bar(share)}" if with_bar and share is not None else ""
        if self.phase == "scoring" and share is not None:
            return [f"scoring{drawn}"]
        if self.phase != "training":
            return [f"{self.phase} {elapsed:.0f} s"]
        speed = self.tokens / elapsed if self.tokens and elapsed > SPEED_AFTER_SECONDS else None
        first, *rest = training_parts(
            self.budget_seconds - elapsed,
            step=self.step,
            loss=self.loss,
            tokens_per_second=speed,
            memory_mb=self.memory_mb,
        )
        return [f"training{drawn} {first}" if with_bar else f"training, {first}", *rest]

    def line(self, now: float) -> str:
        """Describe the trial, and the last decision, in one line."""
        parts = [] if self.experiment is None else [experiment_of(self.experiment)]
        parts += self.parts(now)
        if self.last:
            parts.append(f"last: {self.last}")
        return SEPARATOR.join(parts)
