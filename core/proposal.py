"""The data that pass between the loop and a researcher, and the interface of a researcher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from autoresearch.core.errors import ProposalError

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

Platform = Literal["b200", "h100", "rtx", "cpu", "apple", "any"]
"""Kinds of device that public findings come from. rtx: any consumer card; b200 and h100: cards like them, too."""

Status = Literal["keep", "discard", "stopped", "crash", "invalid", "timeout"]
"""End of an experiment. In messages `keep`, `discard` and `stopped` read kept, discarded and stopped early."""

Outcome = Literal["untried", "in flight", "keep", "discard", "stopped", "crash", "invalid", "timeout"]
"""State in this run of a change that a peer run offers."""


TITLE = "title"
"""Parameter of a proposal that names its change in a few words, such as "DIM=64, HEAD_DIM=32"."""


@dataclass(frozen=True)
class Cost:
    """The cost of a proposal."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0
    """Dollars; None where the price is not known, never 0 for "unknown"."""
    model: str | None = None
    tokens_cached: int = 0
    """Input tokens that the provider read from its cache, as far as it says."""
    usd_uncached: float | None = 0.0
    """Dollars without any cache; None where the price is not known."""


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
    """Expected change of val_bpb against the incumbent, in bpb; negative is better."""
    cost: Cost = field(default_factory=Cost)
    researcher: str = ""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """Values that the researcher gets back with the outcome, such as the tuner's coordinates."""
    origin: Origin | None = None
    """The peer run's change that this proposal tries here."""

    def __post_init__(self) -> None:
        """Replace in the texts what neither git nor the ledger can hold: NUL, and half a surrogate pair."""
        for name in ("hypothesis", "category", "researcher"):
            text = getattr(self, name).encode("utf-8", errors="replace").decode().replace("\0", " ")
            object.__setattr__(self, name, text)


@dataclass(frozen=True)
class TrialFigures:
    """One ended trial of an experiment's source. A figure that does not exist is None."""

    seed: int
    val_bpb: float | None
    steps: int | None = None
    tokens: int | None = None
    """Training tokens that it read."""
    train_seconds: float | None = None
    train_loss: float | None = None
    """Mean training loss over the last third of its time, in nats, as the train file counts it."""


@dataclass(frozen=True)
class PairedDifference:
    """A measured difference of two sources, weighed by the seeds that their trials share. Nothing is shrunken."""

    value: float
    """Change of val_bpb in bpb; negative is better."""
    error: float | None
    """Standard error in bpb; None where the noise is not known."""
    against: int
    """Number of the experiment that it is compared with."""
    trials: tuple[TrialFigures, ...]
    """Trials of that experiment that it is compared with."""


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

    A trial that was stopped early has no score. `predicted_bpb` is where its loss was heading, with `predicted_low` and
    `predicted_high` around it: a prediction, never a measurement.

    The incumbent's also hold its `loss_curve`, in words, and its `profile`, a page on where a step's time goes.
    """
    origin: Origin | None = None
    trials: tuple[TrialFigures, ...] = ()
    """Trials that the experiment itself asked for, in order; they led to the verdict."""
    raw: PairedDifference | None = None
    """Difference of these trials from those that the incumbent of the time had at the verdict."""
    repeats: tuple[TrialFigures, ...] = ()
    """Trials of its source that later experiments asked for. They chose nothing, so they are not low by selection."""
    standing: PairedDifference | None = None
    """Difference from the file before it by all trials until now; only for changes that the incumbent consists of."""
    notes: tuple[str, ...] = ()
    """Remarks of the run's owner, the oldest first. Material to weigh, as what any researcher says."""
    pinned: bool = False
    """True where the owner wants it to be kept in mind."""


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
class Withdrawn:
    """A proposal that was dropped before it was tried: the best file changed, and it no longer fitted."""

    hypothesis: str
    category: str
    reason: str


@dataclass(frozen=True)
class History:
    """The knowledge that a researcher may use for a proposal."""

    program: str
    """Text of program.md as it is now."""
    backend: str
    device: str
    """Name of the device."""
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
    withdrawn: tuple[Withdrawn, ...] = ()
    """Proposals withdrawn lately, the oldest first."""
    findings: tuple[Finding, ...] = ()
    """Changes that peer runs offer, the most promising for this run first (see `core.findings.holding`)."""
    noise: float | None = None
    """Standard deviation of val_bpb between trials of one source, in bpb; None where it is not known."""
    paired_noise: float | None = None
    """Standard deviation of the difference of two sources at one seed, in bpb."""
    train_tokens: Mapping[int, int] = field(default_factory=dict)
    """Tokens of the training text by vocabulary."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of all attempts and of all experiments in flight, in order."""
        return (*(one.source for one in self.attempts), *(one.source for one in self.in_flight))

    @property
    def turn(self) -> int:
        """Number of proposals before this one, made or in the making. Use it to seed random draws."""
        return len(self.attempts) + len(self.in_flight) + self.thinking


@dataclass(frozen=True)
class CallPreview:
    """The next call to a language model, before it is made. Dollars are None where they are not known."""

    model: str
    messages: list[Mapping[str, str]]
    """Each with "role" and "content"."""
    tokens: int
    """Length of the messages, estimated."""
    most_usd: float | None
    """Dollars with the longest reply that is allowed."""
    usual_usd: float | None
    """Mean dollars of the run's calls to this model."""


class FailedProposalError(ProposalError):
    """No proposal was made, but calls to a model were paid for."""

    cost: Cost

    def __init__(self, message: str, *, cost: Cost | None = None, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.cost = cost or Cost()


def paid_for(error: ProposalError) -> Cost:
    """Return the cost of a proposal that was not made."""
    return error.cost or Cost()


class Researcher(ABC):
    """Proposes the next edit. Subclasses give a name and `propose`; the defaults below suit a fast researcher."""

    name: str
    """Name in the ledger and in messages."""
    proposes: bool = True
    """False for one that is never asked: every experiment is handed in from outside, as a submission."""
    thinks_ahead: bool = False
    """True when a proposal takes so long that it is best made while trials run.

    Then `propose` is called in threads of its own, as many at once as there are devices, and the history holds the
    experiments in flight. False: it is called in the loop's thread when a device is idle and all results are known.
    """

    reads_profiles: bool = False
    """True when a proposal gains from knowing where a step's time goes: the loop then profiles the incumbent."""

    @abstractmethod
    def propose(self, history: History) -> Proposal:
        """Propose the next edit of `history.incumbent.source`.

        Must be deterministic given `history` where it needs no model, so that a resumed run goes on as it would have.
        Raises `ProposalError` when there is nothing to propose, `FailedProposalError` when that had a price.
        """

    def batch_size(self, history: History, wanted: int) -> int:
        """Return how many of `wanted` proposals one call of `propose_batch` should make, where that is cheaper.

        At least 1, at most `wanted`. Called only for a researcher that thinks ahead.
        """
        return 1

    def propose_batch(self, history: History, count: int) -> Sequence[Proposal]:
        """Propose up to `count` edits that differ, at least one; each carries its own cost.

        Raises what `propose` raises.
        """
        return [self.propose(history)]

    def cancel(self) -> bool:
        """End proposals in the making, from another thread: nobody waits for them any more.

        Returns True when that takes a moment and is worth waiting for; the default ends nothing.
        """
        return False

    def next(self, history: History) -> Researcher:
        """Return the researcher that would make the next proposal: by default this one."""
        return self

    def preview(self, history: History) -> CallPreview | None:
        """Describe the call to a model that the next proposal needs; None, the default, when it needs none."""
        return None
