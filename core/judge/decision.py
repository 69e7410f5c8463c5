"""The interface of a judge: evidence in, a decision or a request for a trial out. A judge runs and reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.judge.futility import Target
from autoresearch.core.judge.paired import Raced
from autoresearch.core.proposal import Status

Role = Literal["baseline", "candidate", "incumbent"]
"""Role of the source that a trial runs."""


@dataclass(frozen=True)
class Measured:
    """One finished trial, as far as a judge needs it."""

    role: Role
    seed: int
    status: Literal["ok", "stopped", "crash", "invalid", "timeout"]
    val_bpb: float | None
    reason: str | None = None
    tokens: int | None = None
    """Training tokens that it saw."""
    own: bool = True
    """True for a trial that the source's own experiment asked for: its result decided whether the change is kept."""
    processors: float | None = None
    """Processors that its training kept busy on average: a busy machine gives fewer."""

    @property
    def good(self) -> bool:
        """Tell whether the trial gave a score."""
        return self.status == "ok" and self.val_bpb is not None


@dataclass(frozen=True)
class Side:
    """One source and everything measured of it in this run, whichever experiment asked for it."""

    experiment: int
    source: str
    trials: tuple[Measured, ...] = ()
    category: str = ""
    estimate: float | None = None
    """The judge's estimate of its true val_bpb; None while its experiment is not decided."""

    @property
    def unselected(self) -> tuple[Measured, ...]:
        """Return the successful trials whose results chose nothing: candidates are compared with these alone.

        A kept change was chosen by its own experiment's trials, so they are low by selection. Nothing chose the
        baseline's.
        """
        return tuple(one for one in self.trials if one.good and (self.experiment == 0 or not one.own))


@dataclass(frozen=True)
class Evidence:
    """Everything that a judge may look at. Equal evidence must give an equal answer: a resumed run asks again."""

    candidate: Side
    """The source to decide on; for experiment 0 the baseline itself."""
    incumbent: Side | None
    """None only while the baseline is being decided."""
    baseline: Side
    seed: int
    """The run's seed: the first seed of every side, so that first trials are paired."""
    asked: int
    """Number of trials already run for this decision, in any role."""
    roles: tuple[Role, ...] = ()
    """Roles of those trials, in order."""
    check_due: bool = False
    """True for the experiment before which the incumbent is measured again."""
    predecessor: Side | None = None
    """The incumbent before this one, if there is one."""
    repeats: tuple[tuple[Measured, ...], ...] = ()
    """Groups of trials, each of one source and none chosen by its result: the noise is estimated from them."""
    raced: tuple[Raced, ...] = ()
    """Paired differences of decided candidates with trials at several seeds: the paired noise is learnt from them."""
    pending: tuple[int, ...] = ()
    """Seeds of trials of the incumbent that are under way for other candidates."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The facts of this judge's last decision."""


@dataclass(frozen=True)
class RunTrial:
    """A request: train and score that side's source once more, with this seed."""

    role: Role
    seed: int
    target: Target | None = field(default=None, compare=False)
    """Score that the trial has to reach, or is ended early; None for a trial that always runs to its end."""
    short: float | None = None
    """Training seconds of a short trial, which is a screen and never a score; None for the run's own budget."""
    subject: int | None = None
    """Experiment that a short trial is compared with, which is the one that a trial of the incumbent runs."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do until a trial of the incumbent that is under way has ended."""


@dataclass(frozen=True)
class Decision:
    """The end of an experiment."""

    status: Status
    estimate: float | None
    """The judge's estimate of the candidate's true val_bpb; None where it has none."""
    delta: float | None
    """Estimated change against the incumbent of this time; negative is better."""
    reason: str
    """One line for people and researchers."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Numbers behind the reason, as JSON can hold them; kept in the ledger and handed back with the next evidence."""


@dataclass(frozen=True)
class Demotion:
    """The incumbent does not hold: its predecessor takes its place, and the candidate is considered again."""

    experiment: int
    """The incumbent that is demoted."""
    reason: str


class Judge(Protocol):
    """Decides experiments."""

    name: str

    def consider(self, evidence: Evidence) -> RunTrial | Wait | Decision | Demotion:
        """Return the next step for the candidate. Called again after every trial until it is a decision."""
        ...

    def repeats_when_idle(self, incumbent: Side, *, plenty: bool) -> bool:
        """Tell whether a device without any other work should measure the incumbent once more.

        `plenty` says that the next proposal is likely to take longer than a trial.
        """
        ...


def not_here(side: Side) -> PrerequisiteError:
    """Return the error on a kept file whose trials all fail on a machine that is new to the run."""
    reason = side.trials[-1].reason or f"the trial ended as {side.trials[-1].status}"
    return PrerequisiteError(
        f"experiment {side.experiment} does not run on this machine: {reason}.",
        fix="go on where the run was started, or start another run with --tag",
    )


def failure(evidence: Evidence) -> Decision | None:
    """Decide a candidate with a failed trial at once, by that trial's status and reason; None without one."""
    for trial in evidence.candidate.trials:
        if trial.status != "ok":
            return Decision(trial.status, None, None, trial.reason or f"the trial ended as {trial.status}")
        if trial.val_bpb is None:
            return Decision("invalid", None, None, "the trial gave no val_bpb")
    return None
