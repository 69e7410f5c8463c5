"""The judge's interface. A judge never runs anything: it asks for trials, or decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

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
    tokens: int | None = None
    own: bool = True
    """Asked for by the source's own experiment, and so part of what its estimate was made from."""


@dataclass(frozen=True)
class Side:
    """One source and everything measured of it in this run, whichever experiment asked for it."""

    experiment: int
    source: str
    trials: tuple[Measured, ...] = ()
    category: str = ""
    estimate: float | None = None
    """Of its true val_bpb, from its own experiment; None while that is not decided."""
    estimate_trials: float = 1.0
    """How many trials that estimate is worth."""


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
    roles: tuple[Role, ...] = ()
    """Whose they were, in order."""
    predecessor: Side | None = None
    """The keep before the incumbent, if there is one."""
    repeats: tuple[tuple[Measured, ...], ...] = ()
    """Trials of one source each that were not chosen by their result: what noise is estimated from."""
    extra: int = 0
    """Trials of the run that races have asked for: those after each candidate's first."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What this judge left with its last decision."""


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
    """In one line, for people and researchers."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Numbers behind the reason, as JSON can hold them; kept in the ledger and handed back with the next evidence."""


@dataclass(frozen=True)
class Demotion:
    """The incumbent does not hold: the keep before it takes its place, and the candidate is considered again."""

    experiment: int
    """The incumbent that is demoted."""
    reason: str


class Judge(Protocol):
    """Decides experiments."""

    name: str

    def consider(self, evidence: Evidence) -> RunTrial | Decision | Demotion:
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
