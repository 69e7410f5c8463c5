"""The judge's interface, and the plainest judge. A judge never runs anything: it asks for trials, or decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from autoresearch.core.proposal import Status

Role = Literal["baseline", "candidate", "incumbent"]
"""Whose source a trial runs: the starting point's, the proposal's, or that of the best so far."""


@dataclass(frozen=True)
class Measured:
    """One finished trial, as far as a judge needs it."""

    role: Role
    seed: int
    status: Literal["ok", "crash", "invalid", "timeout"]
    val_bpb: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Side:
    """One source and everything measured of it in this run, whichever experiment asked for it."""

    experiment: int
    source: str
    trials: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """All that a judge may look at. Equal evidence must give an equal answer: a resumed run asks again."""

    candidate: Side
    """What is being decided. For experiment 0 this is the baseline itself."""
    incumbent: Side | None
    """None only while the baseline is being decided."""
    baseline: Side
    seed: int
    """The run's seed: the first seed of every side, so that first trials are paired."""
    decided: int
    """Experiments decided before this one, the baseline not counted."""
    asked: int
    """Trials already run for this decision, in any role."""


@dataclass(frozen=True)
class RunTrial:
    """Train and score that side's source once more, with this seed."""

    role: Role
    seed: int


@dataclass(frozen=True)
class Decision:
    """The end of an experiment."""

    status: Status
    estimate: float | None
    """The judge's estimate of the candidate's true val_bpb; None where it has none."""
    delta: float | None
    """Against the incumbent of this time; negative is better."""
    reason: str
    """In words, for people and researchers."""


class Judge(Protocol):
    """Decides experiments."""

    name: str

    def consider(self, evidence: Evidence) -> RunTrial | Decision:
        """What to do next about the candidate. Called again after every trial until it decides."""
        ...


def failure(evidence: Evidence) -> Decision | None:
    """A candidate with a trial that is not ok is decided at once, with that trial's status and reason."""
    for trial in evidence.candidate.trials:
        if trial.status != "ok":
            return Decision(trial.status, None, None, trial.reason or f"the trial ended as {trial.status}")
        if trial.val_bpb is None:
            return Decision("invalid", None, None, "the trial gave no val_bpb")
    return None


class Greedy:
    """Upstream's rule: one trial, kept when its val_bpb is strictly lower than the incumbent's."""

    name = "greedy"

    def consider(self, evidence: Evidence) -> RunTrial | Decision:
        """One trial, then a decision."""
        candidate, incumbent = evidence.candidate, evidence.incumbent
        if not candidate.trials:
            return RunTrial("baseline" if incumbent is None else "candidate", evidence.seed)
        failed = failure(evidence)
        if failed is not None:
            return failed
        measured = candidate.trials[0].val_bpb
        if incumbent is None:
            return Decision("keep", measured, None, "the baseline")
        best = incumbent.trials[0].val_bpb
        if measured is None or best is None:
            return Decision("invalid", measured, None, "there is no number to compare")
        delta = measured - best
        if delta < 0:
            return Decision("keep", measured, delta, f"{measured:.6f} is lower than {best:.6f} by {-delta:.6f}")
        return Decision("discard", measured, delta, f"{measured:.6f} is not lower than {best:.6f}")
