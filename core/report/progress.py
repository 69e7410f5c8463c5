"""How far a trial is, folded from its events. The live views, `ar watch` and the dashboard all show this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.core.report.trial_events import is_number
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
    memory_mb: float | None = None
    """Host memory that the training takes now, in MB."""
    last: str = ""
    """The last decision, as text."""

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
                found = (event.get(name) for name in ("status", "val_bpb", "delta", "reason"))
                self.phase, self.last = "decided", decision_text(*found)
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
