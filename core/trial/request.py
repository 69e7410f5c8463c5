"""What is asked of a trial and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from autoresearch.core.config import Preset

TrialStatus = Literal["ok", "crash", "invalid", "timeout"]
IsolationLevel = Literal["bubblewrap", "landlock", "seatbelt", "process"]


FIRST_ANSWER_SECONDS = 60.0
"""For the first batch that a process scores: what is compiled for it is compiled then."""
SCORE_FLOOR_SECONDS = 30.0
SCORE_SHARE = 3.0
SCORE_SLACK = 4.0


@dataclass(frozen=True)
class Budget:
    """Seconds. The clock of `train_seconds` starts at the first real batch."""

    train_seconds: float = 300.0
    startup_seconds: float = 300.0
    """From the child's start to its first real batch: import, build, compile."""
    grace_floor_seconds: float = 5.0
    """The fixed part of the grace: time to write weights on a slow disk."""

    @property
    def grace_seconds(self) -> float:
        """How much later than the budget the weights may arrive."""
        return 0.02 * self.train_seconds + self.grace_floor_seconds

    @property
    def hard_seconds(self) -> float:
        """After the first batch: when a child without weights is killed."""
        return self.train_seconds + 3.0 * self.grace_seconds

    def scoring_allowance(self, tokens: int, tokens_per_second: float | None) -> float:
        """How long the answers for so many tokens may take after the first batch's: no free computation at test time.

        A forward pass costs a third of a training step, so the speed of training leaves a margin of twelve. It never
        comes to more than `SCORE_SHARE` times the training time, however slowly a file chose to train.
        """
        most = SCORE_FLOOR_SECONDS + SCORE_SHARE * self.train_seconds
        if not tokens_per_second:
            return most
        return min(most, SCORE_FLOOR_SECONDS + SCORE_SLACK * tokens / tokens_per_second)


@dataclass(frozen=True)
class Carried:
    """Whose compile caches a trial is given (see core.trial.compile_cache)."""

    source: str
    """The incumbent's train file."""
    folder: Path
    """Where the caches of the run lie; made if missing."""


@dataclass(frozen=True)
class TrialRequest:
    """Everything that a trial depends on. Two equal requests differ only by the machine's noise."""

    source: str
    """The train file."""
    backend: str
    preset: str
    prepared: Path
    """Folder of the prepared corpus (see core.data.manifest)."""
    eval_seq_len: int
    score_rows: int
    """Rows per scoring batch, the same for every trial of a run."""
    folder: Path
    """The trial's own folder; made if missing. Holds train.py, run.log, events.jsonl, result.json."""
    seed: int = 0
    """Seeds the model and the order of the data."""
    budget: Budget = Budget()
    split: Literal["val", "test"] = "val"
    memory_limit_mb: int | None = None
    """Host memory that the child may take; None asks the supervisor for a sensible share of the machine's."""
    isolation: IsolationLevel | None = None
    """None takes the best level there is."""
    audit: bool = True
    audit_below: float | None = None
    """With `audit`: only a val_bpb below this is audited, because only that could become a keep. None audits all."""
    audit_share: float | None = None
    """Rows of the audit, as a share of the scored ones; None takes what `core.trial.audit` allows."""
    weights_limit_mb: int = 8192
    """The largest file that the child may write."""
    tolerances: Path | None = None
    """The run's calibrated tolerances of the audit (see core.trial.audit); None takes the defaults."""
    calibrate: bool = False
    """Whether this is the honest baseline, whose audit widens what `tolerances` holds for later trials."""
    profile: bool = False
    """Whether a few batches are traced: the trial then trains on a little less."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables for every child, beside the backend's own: which device of several it may see, how many threads."""
    carried: Carried | None = None
    """Compile caches for the train child; None gives it none."""
    gate: bool = True
    """Whether the static gate reads the train file first. Without it the sandbox and the audit stand alone."""


@dataclass(frozen=True)
class TrialTerms:
    """The settings that trials share when their results are compared. Every request is made from one."""

    backend: str
    preset: str
    prepared: Path
    """Folder of the prepared corpus."""
    eval_seq_len: int
    """Tokens per scored row."""
    score_rows: int
    """Rows per scoring batch."""
    budget: Budget

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> TrialTerms:
        """Take the terms from a run's configuration, as `RunConfig.plain` returns it and the ledger stores it."""
        return cls(
            backend=config["backend"],
            preset=config["preset"],
            prepared=Path(config["prepared"]),
            eval_seq_len=config["eval_seq_len"],
            score_rows=config["score_rows"],
            budget=Budget(config["train_seconds"], config["startup_seconds"]),
        )

    @classmethod
    def of_preset(cls, backend: str, preset: Preset, prepared: Path, train_seconds: float | None = None) -> TrialTerms:
        """Take the terms from a preset; `train_seconds` overrides its training time."""
        return cls(
            backend=backend,
            preset=preset.name,
            prepared=prepared,
            eval_seq_len=preset.data.eval_seq_len,
            score_rows=preset.score_rows,
            budget=Budget(train_seconds or preset.train_seconds, preset.startup_seconds),
        )

    def request(self, source: str, folder: Path, seed: int = 0) -> TrialRequest:
        """Make the request for a trial of `source` under these terms. Use `dataclasses.replace` for anything more."""
        return TrialRequest(source=source, folder=folder, seed=seed, **vars(self))


class AuditResult(BaseModel):
    """Outcome of the causality audit. Differences are in nats."""

    model_config = ConfigDict(frozen=True)
    positions: int
    max_abs: float
    mean_diff: float
    ok: bool


class ProfileResult(BaseModel):
    """Where a profiled train child's time went, over a few batches in the middle of its training."""

    model_config = ConfigDict(frozen=True)
    seconds: float
    batches: int
    sections: dict[str, float]
    """Seconds by part of a step."""
    operations: list[tuple[str, float, int]]
    """Name, seconds of its own, calls; the longest first."""
    note: str


class TrialResult(BaseModel):
    """What `ar train --json` prints. What does not exist is None, never 0."""

    model_config = ConfigDict(frozen=True)
    status: TrialStatus
    reason: str | None = None
    """In words, when the status is not ok."""
    val_bpb: float | None = None
    train_seconds: float | None = None
    """First real batch to the end of `train`, by the parent's clock."""
    startup_seconds: float | None = None
    eval_seconds: float | None = None
    """Start of the score child to its last number, the audit included."""
    wall_seconds: float | None = None
    tokens: int | None = None
    """Counted by the feeder."""
    steps: int | None = None
    tokens_per_second: float | None = None
    params: int | None = None
    peak_memory_mb: float | None = None
    """Of the device where the framework can say, else of the host."""
    peak_host_memory_mb: float | None = None
    """Resident memory of the train child and all below it."""
    flops_per_token: float | None = None
    """Forward and backward, counted by the core from the shapes of the trained weights (see core.trial.weights)."""
    claimed_flops_per_token: float | None = None
    """What the train file itself says, attention included. A claim: nothing rests on it."""
    mfu: float | None = None
    """`flops_per_token` times `tokens_per_second` over the device's peak, 0..1: the data sheet's, or what `ar bench`
    measured here."""
    seed: int
    backend: str
    device: str | None = None
    machine: str | None = None
    """Device, framework and driver. Scores of trials on different machines are not compared."""
    preset: str
    isolation: str | None = None
    audit: AuditResult | None = None
    weights_sha256: str | None = None
    """Of the frozen weights."""
    profile: ProfileResult | None = None
    """With `ar train --profile`; the trial's folder then holds profile.md and, whole, trace.json.gz."""
    log: str | None = None
    """Path of run.log."""
