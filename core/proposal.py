"""What passes between the loop and a researcher."""

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
"""What a change is about. A proposal names one."""

Status = Literal["keep", "discard", "crash", "invalid", "timeout"]
"""How an experiment ended."""

Outcome = Literal["untried", "in flight", "keep", "discard", "crash", "invalid", "timeout"]
"""What became here of what another run has found."""


@dataclass(frozen=True)
class Cost:
    """What a proposal cost. `usd` is None where the price is not known, never 0 for "unknown"."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0
    model: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where a proposal comes from: a change that another run, on another device, has kept."""

    run: str
    """That run's tag."""
    experiment: int
    backend: str
    device: str
    delta: float | None = field(default=None, compare=False)
    """What it gained there. Bits per byte there and here do not compare."""

    def __str__(self) -> str:
        return f"{self.run}#{self.experiment}"

    @property
    def identity(self) -> tuple[str, str, str]:
        """The run's tag, backend and device."""
        return self.run, self.backend, self.device


@dataclass(frozen=True)
class Proposal:
    """One edit of the train file, whole."""

    source: str
    """The complete train file."""
    hypothesis: str
    """One sentence: what changes and why it should help. Becomes the experiment's description."""
    category: str
    """One of CATEGORIES."""
    predicted_delta: float | None = None
    """Expected change of val_bpb against the incumbent; negative is better."""
    cost: Cost = field(default_factory=Cost)
    researcher: str = ""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """What the researcher wants back with the outcome (the tuner's own coordinates)."""
    origin: Origin | None = None
    """The finding of another run that it tries here."""


@dataclass(frozen=True)
class Attempt:
    """One decided experiment, as a researcher sees it."""

    experiment: int
    """1, 2, ...; the baseline is 0."""
    source: str
    status: Status
    reason: str
    """Why it was decided so, in words."""
    hypothesis: str
    category: str
    researcher: str
    predicted_delta: float | None
    val_bpb: float | None
    estimate: float | None
    """The judge's estimate of its true val_bpb."""
    delta: float | None
    """Against the incumbent of its time; negative is better."""
    parent: int
    """The experiment whose source it edited."""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    metrics: Mapping[str, float | int | str | None] = field(default_factory=dict)
    """tokens, steps, params, peak_memory_mb, tokens_per_second, startup_seconds ... of its first trial.

    The incumbent's have its `loss_curve` as well, in words, and the last `profile` that a person has taken, a page.
    """
    origin: Origin | None = None


@dataclass(frozen=True)
class InFlight:
    """An experiment that waits for a device or runs on one: nothing is known of it yet but what it tries."""

    experiment: int
    source: str
    hypothesis: str
    category: str
    researcher: str
    predicted_delta: float | None
    parent: int
    """The experiment whose source it edited."""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Finding:
    """A change that another run of this workspace, on another device, has kept and still keeps.

    It says nothing about this device: a researcher chooses whether it is worth a trial here, the judge what came of it.
    """

    origin: Origin
    hypothesis: str
    category: str
    before: str
    """The train file that it edited, of that run's backend."""
    after: str
    """The train file that was kept."""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """What its researcher left with it; "edit" is the name of an edit of the tuner's menu."""
    outcome: Outcome = "untried"
    """What became of it here."""
    experiment: int | None = None
    """Of this run, that tried it or tries it."""
    delta: float | None = None
    """Of that experiment."""


@dataclass(frozen=True)
class History:
    """All that a researcher may know when it proposes."""

    program: str
    """program.md as it is now."""
    backend: str
    device: str
    """The device's name."""
    preset: str
    budget_seconds: float
    seed: int
    """The run's seed, for researchers that draw at random."""
    vocabularies: tuple[int, ...]
    """Prepared vocabularies: the values VOCAB_SIZE may take."""
    incumbent: Attempt
    """The best so far; its `source` is what to edit."""
    attempts: tuple[Attempt, ...]
    """Every decided experiment in the order of the decisions, the baseline first."""
    in_flight: tuple[InFlight, ...] = ()
    """Every experiment that is not decided yet, the baseline left out."""
    thinking: int = 0
    """Other proposals that are being made at this moment."""
    findings: tuple[Finding, ...] = ()
    """What runs on other devices have kept, the largest gain first."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that was tried or is in flight, in order."""
        return (*(one.source for one in self.attempts), *(one.source for one in self.in_flight))

    @property
    def turn(self) -> int:
        """How many proposals came before this one, made or in the making: what draws at random should be seeded by."""
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
