"""The data that pass between the loop and a researcher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

CATEGORIES = (
    "attention",
    "mlp",
    "norm_residual",
    "embeddings_head",
    "optimizer",
    "schedule",
    "batch_sequence",
    "data_order",
    "init",
    "loss",
    "precision_kernels",
    "shape",
    "vocabulary",
    "simplification",
)
"""Subjects of a change. Every proposal names one."""

Status = Literal["keep", "discard", "crash", "invalid", "timeout"]
"""End of an experiment. In messages `keep` and `discard` read kept and discarded."""

Outcome = Literal["untried", "in flight", "keep", "discard", "crash", "invalid", "timeout"]
"""State in this run of a change that a peer run offers."""


@dataclass(frozen=True)
class Cost:
    """The cost of a proposal. `usd` is None where the price is not known, never 0 for "unknown"."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0
    model: str | None = None


@dataclass(frozen=True)
class Origin:
    """The source of a transfer: a change that a peer run, on another device, has kept."""

    run: str
    """The peer run's tag."""
    experiment: int
    backend: str
    device: str
    delta: float | None = field(default=None, compare=False)
    """Change of val_bpb there. Bits per byte of two devices do not compare."""

    def __str__(self) -> str:
        return f"{self.run}#{self.experiment}"

    @property
    def identity(self) -> tuple[str, str, str]:
        """The peer run's tag, backend and device."""
        return self.run, self.backend, self.device


@dataclass(frozen=True)
class Proposal:
    """One change, as a complete new train file."""

    source: str
    """The complete train file."""
    hypothesis: str
    """One sentence that says the change and why it should help. Becomes the experiment's description."""
    category: str
    """Subject of the change, one of CATEGORIES."""
    predicted_delta: float | None = None
    """Expected change of val_bpb against the incumbent; negative is better."""
    cost: Cost = field(default_factory=Cost)
    researcher: str = ""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """Values that the researcher gets back with the outcome, such as the tuner's coordinates."""
    origin: Origin | None = None
    """The peer run's change that this proposal tries here."""


@dataclass(frozen=True)
class Attempt:
    """One decided experiment, as a researcher sees it."""

    experiment: int
    """Number of the experiment: 1, 2, ...; the baseline is 0."""
    source: str
    status: Status
    reason: str
    """Reason of the verdict, one sentence."""
    hypothesis: str
    category: str
    researcher: str
    predicted_delta: float | None
    val_bpb: float | None
    estimate: float | None
    """The judge's cautious estimate of the true val_bpb."""
    delta: float | None
    """Change of val_bpb against the incumbent of its time; negative is better."""
    parent: int
    """Number of the experiment whose source was edited."""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    metrics: Mapping[str, float | int | str | None] = field(default_factory=dict)
    """Figures of its first trial: tokens, steps, params, peak_memory_mb, tokens_per_second, startup_seconds ...

    The incumbent's also hold its `loss_curve`, described in text, and the latest page of `ar train --profile`.
    """
    origin: Origin | None = None


@dataclass(frozen=True)
class InFlight:
    """An experiment without a verdict, which waits for a device or runs on one."""

    experiment: int
    source: str
    hypothesis: str
    category: str
    researcher: str
    predicted_delta: float | None
    parent: int
    """Number of the experiment whose source was edited."""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Finding:
    """An offered change: a peer run, on another device, has kept it and still keeps it.

    It is no evidence for this device. A researcher chooses whether to try it here, and the judge decides as always.
    """

    origin: Origin
    hypothesis: str
    category: str
    before: str
    """The train file before the change, of the peer run's backend."""
    after: str
    """The train file with the change."""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """The proposal's parameters there; "edit" names an edit of the tuner's menu."""
    outcome: Outcome = "untried"
    """State of the change in this run."""
    experiment: int | None = None
    """Number of the experiment of this run that tries it."""
    delta: float | None = None
    """Change of val_bpb in that experiment."""


@dataclass(frozen=True)
class History:
    """The knowledge that a researcher may use for a proposal."""

    program: str
    """Text of program.md as it is now."""
    backend: str
    device: str
    """The device's name."""
    preset: str
    budget_seconds: float
    seed: int
    """Seed of the run, for researchers that draw at random."""
    vocabularies: tuple[int, ...]
    """Prepared vocabularies: the values VOCAB_SIZE may take."""
    incumbent: Attempt
    """The best experiment so far; its `source` is to be edited."""
    attempts: tuple[Attempt, ...]
    """Decided experiments in the order of the verdicts, the baseline first."""
    in_flight: tuple[InFlight, ...] = ()
    """Experiments without a verdict, the baseline left out."""
    thinking: int = 0
    """Number of other proposals in the making."""
    findings: tuple[Finding, ...] = ()
    """Changes that peer runs offer, the largest gain first."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of all attempts and of all experiments in flight, in order."""
        return (*(one.source for one in self.attempts), *(one.source for one in self.in_flight))

    @property
    def turn(self) -> int:
        """Number of proposals before this one, made or in the making. Use it to seed random draws."""
        return len(self.attempts) + len(self.in_flight) + self.thinking


class Researcher(Protocol):
    """Proposes the next edit.

    Two attributes are optional. `thinks_ahead` (False without it) says that proposals take so long that they are best
    made while trials run: then `propose` is called in threads of its own, as many at once as there are devices, and
    with what is in flight in the history. `cancel()` is called from another thread when nobody waits for a proposal any
    more; a researcher that started processes ends them.
    """

    name: str

    def propose(self, history: History) -> Proposal:
        """The next edit of `history.incumbent.source`.

        Must be deterministic given `history` where it needs no model, so that a resumed run goes on as it would have.
        Raises `ProposalError` when it has nothing to propose.
        """
        ...
