"""The request for a trial, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from autoresearch.core.config import WEIGHTS_LIMIT_MB
from autoresearch.core.judge.futility import StopRule

if TYPE_CHECKING:
    from autoresearch.core.config import Preset

TrialStatus = Literal["ok", "stopped", "crash", "invalid", "timeout"]
"""End of a trial. A trial that was ended early, by its request's rule, is `stopped`: it has no score."""
IsolationLevel = Literal["bubblewrap", "landlock", "seatbelt", "process"]


WEIGHTS_BYTES_PER_SECOND = 200e6
"""Slowest rate at which weights are written and hashed, or read into a model: a network disk's."""
WEIGHTS_SHARE = 0.02
"""Largest allowance for moving weights, as a share of the training time: a file could buy time with fat weights."""
STEP_SHARE = 0.01
"""Largest allowance for the step that is under way at the deadline, as a share of the training time: a file could take
its batches in one."""
ANSWER_FLOOR_SECONDS = 1.0
"""Seconds that one batch may always take to score: a busy machine stalls a process for as long."""
ANSWER_FLOOR_SHARE = 0.005
"""Share of the training time that one batch may always take, where that is longer than ANSWER_FLOOR_SECONDS."""
ANSWER_SLACK = 1.5
"""Factor by which scoring may be slower than training, token for token. A forward pass is a third of a training step,
so an honest file has a margin of 4.5."""
ANSWER_SHARE = 0.02
"""Largest allowance that `ANSWER_SLACK` gives one batch, as a share of the training time: a file could train slowly to
buy time."""
ANSWER_MOST_SECONDS = 2.0
"""Least value of that largest allowance in seconds, for short trials."""


@dataclass(frozen=True)
class Budget:
    """The time limits of a trial, in seconds. The clock of `train_seconds` starts at the first real batch.

    Whatever is allowed beyond it could be used to train, so every allowance is as small as an honest file bears.
    """

    train_seconds: float = 300.0
    startup_seconds: float = 300.0
    """Longest time from a child's start to its first real batch, or to its built model: import, build, compile."""
    grace_floor_seconds: float = 1.0
    """Seconds after the budget that the weights may always take."""

    def grace_seconds(self, weights_bytes: int, step_seconds: float) -> float:
        """Return the time after the budget within which weights of that size must have arrived.

        max(grace_floor, step) + time to write them, where the step under way at the deadline counts as STEP_SHARE of
        the budget at most.
        """
        step = min(step_seconds, STEP_SHARE * self.train_seconds)
        return max(self.grace_floor_seconds, step) + self.weights_seconds(weights_bytes)

    def weights_seconds(self, weights_bytes: int) -> float:
        """Return the time that weights of that size may take to be written, or to be loaded."""
        most = max(self.grace_floor_seconds, WEIGHTS_SHARE * self.train_seconds)
        return min(weights_bytes / WEIGHTS_BYTES_PER_SECOND, most)

    @property
    def hard_seconds(self) -> float:
        """Time after the first batch at which a child without weights is killed: twice the longest grace too late."""
        most = max(self.grace_floor_seconds, STEP_SHARE * self.train_seconds)
        return self.train_seconds + 2.0 * (most + max(self.grace_floor_seconds, WEIGHTS_SHARE * self.train_seconds))

    def answer_seconds(self, tokens: int, tokens_per_second: float | None) -> float:
        """Return the time that one batch of so many tokens may take to score, with the speed of the training.

        max(ANSWER_FLOOR, its share) + min(ANSWER_SLACK * tokens / tokens_per_second, most). Without a limit, computing
        at test time would be free of the clock.
        """
        most = max(ANSWER_MOST_SECONDS, ANSWER_SHARE * self.train_seconds)
        slack = ANSWER_SLACK * tokens / tokens_per_second if tokens_per_second else most
        return max(ANSWER_FLOOR_SECONDS, ANSWER_FLOOR_SHARE * self.train_seconds) + min(slack, most)


@dataclass(frozen=True)
class Carried:
    """The compile caches that a trial is given (see `core.trial.compile_cache`)."""

    source: str
    """The incumbent's train file, which the caches are made from."""
    folder: Path
    """The run's folder for caches; made if missing."""


@dataclass(frozen=True)
class UpstreamForm:
    """The settings of a source that is a script in upstream's form instead of a train file (see `core.adopt`)."""

    vocab_size: int
    """Vocabulary that the script is given: it names none itself."""


@dataclass(frozen=True)
class TrialRequest:
    """Everything that a trial depends on. The results of two equal requests differ only by the machine's noise."""

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
    device_kind: str | None = None
    """Kind of device that its children must compute on ("cuda", "metal", "cpu"); None accepts any."""
    split: Literal["val", "test"] = "val"
    memory_limit_mb: int | None = None
    """Host memory that a child may take, in MiB; None is a share of the machine's (`processes.MEMORY_SHARE`)."""
    isolation: IsolationLevel | None = None
    """Isolation level of the children; None takes the best one here."""
    audit: bool = True
    audit_below: float | None = None
    """Threshold of the audit: only a val_bpb below it can be kept, and is audited. None audits every score."""
    audit_share: float | None = None
    """Rows of the audit as a share of the scored ones; None takes what `core.trial.audit` allows."""
    weights_limit_mb: int = WEIGHTS_LIMIT_MB
    """Largest file that a child may write, in MiB."""
    tolerances: Path | None = None
    """File with the run's calibrated tolerances (see `core.trial.audit`); None takes the defaults."""
    calibrate: bool = False
    """True for the honest baseline, whose audit widens what `tolerances` holds for later trials."""
    profile: bool = False
    """True to trace a few batches: the trial then trains on a little less."""
    score: bool = True
    """False to train alone: the result has no val_bpb. For profiles."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables for every child beside the backend's own: the device that it may see, how many threads it may use."""
    carried: Carried | None = None
    """Compile caches for the train child, or None."""
    gate: bool = True
    """True to read the train file with the static gate first; without it the sandbox and the audit stand alone."""
    baseline: str | None = None
    """The source that the run started from: what the train file may add to it is limited (see
    `core.trainfile.contamination`). None for a baseline itself, and outside of a run."""
    stop: StopRule | None = None
    """Rule by which the trial is ended early; None trains to the end of the budget."""
    upstream: UpstreamForm | None = None
    """Set where `source` is a script in upstream's form; None for a train file."""
    keep_weights: bool = False
    """True to leave the weights of a trial that ends well in its folder, if no later train file can read them there."""


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
    device_kind: str | None = None
    """Kind of device that the trials must compute on; None accepts any."""
    weights_limit_mb: int = WEIGHTS_LIMIT_MB
    """Largest weights file, in MiB."""

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
            device_kind=config.get("device_kind") or None,
            weights_limit_mb=config.get("weights_limit_mb", WEIGHTS_LIMIT_MB),
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
            weights_limit_mb=preset.weights_limit_mb,
        )

    def request(self, source: str, folder: Path, seed: int = 0) -> TrialRequest:
        """Make the request for a trial of `source` under these terms. Use `dataclasses.replace` for anything more."""
        return TrialRequest(source=source, folder=folder, seed=seed, **vars(self))


class AuditDraw(BaseModel):
    """The positions that an audit has asked about, and the random bytes that they were drawn from."""

    model_config = ConfigDict(frozen=True)
    entropy: str
    """16 bytes of the system's generator, in hexadecimal."""
    positions: str
    """Drawn indices n * T + t of the scored rows (N, T), ascending, each four bytes, least first, in base64."""


class AuditResult(BaseModel):
    """Outcome of the causality audit. Differences are in nats."""

    model_config = ConfigDict(frozen=True)
    positions: int
    max_abs: float
    mean_diff: float
    ok: bool
    spread: float = 0.0
    """Standard deviation of the differences."""
    mean_limit: float | None = None
    """The tolerance's limit of the mean; None in results of earlier versions."""
    spread_limit: float | None = None
    """The spread of honest rounding that the limit of the mean makes room for."""
    draw: AuditDraw | None = None
    """The draw, by which somebody else can check where the audit has looked; None in results of earlier versions."""


class ProfileResult(BaseModel):
    """The time that a profiled train child spent on each part of a few batches, in the middle of its training."""

    model_config = ConfigDict(frozen=True)
    seconds: float
    """Length of the traced stretch."""
    batches: int
    sections: dict[str, float]
    """Seconds by part of a step."""
    operations: list[tuple[str, float, int]]
    """Name, seconds of its own, calls; the longest first."""
    note: str
    weights: list[tuple[str, float]] = []
    """Name and MiB in float32 of the largest weights."""


class TrialResult(BaseModel):
    """The result of a trial, as `ar train --json` prints it. A value that does not exist is None, never 0."""

    model_config = ConfigDict(frozen=True)
    status: TrialStatus
    reason: str | None = None
    """Reason in words, when the status is not ok."""
    val_bpb: Annotated[float, Field(allow_inf_nan=False)] | None = None
    train_seconds: float | None = None
    """Time from the first real batch to the end of `train`, by the parent's clock."""
    startup_seconds: float | None = None
    """Time until the first real batch; for a start-up that took too long, until it was ended."""
    startup_cpu_seconds: float | None = None
    """Processor time of the train child and all below it in that time."""
    eval_seconds: float | None = None
    """Time for scoring, the audit included."""
    wall_seconds: float | None = None
    tokens: int | None = None
    """Tokens trained on, as the feeder counts them. Documents count where the file has not asked for a row."""
    batches: int | None = None
    """Batches that the feeder has sent for training; None in results of earlier versions."""
    steps: int | None = None
    """Optimizer steps as the train file counts them, or the batches where it says nothing. A claim."""
    tokens_per_second: float | None = None
    params: int | None = None
    peak_memory_mb: float | None = None
    """Peak memory of the device in MiB where the framework can say, else of the host."""
    peak_host_memory_mb: float | None = None
    """Peak of the resident memory of the train child and all below it, in MiB."""
    flops_per_token: float | None = None
    """FLOP of forward and backward, counted from the shapes of the trained weights (see `core.trial.weights`)."""
    claimed_flops_per_token: float | None = None
    """FLOP as the train file itself counts them, attention included. A claim: nothing rests on it."""
    claimed_bpb: float | None = None
    """val_bpb as an adopted script has printed it. A claim, shown beside the score."""
    mfu: float | None = None
    """`flops_per_token` * `tokens_per_second` / the device's peak, 0..1. The peak is the data sheet's, or measured by
    `ar bench`."""
    seed: int
    backend: str
    device: str | None = None
    device_kind: str | None = None
    """Kind of that device, "cuda", "cpu", "metal" or "numpy"."""
    machine: str | None = None
    """Device, framework and driver. Scores of trials on different machines are not compared."""
    place: str | None = None
    """Slot that ran the trial, with its host on a fleet; None where there is only one."""
    preset: str
    isolation: str | None = None
    audit: AuditResult | None = None
    weights_sha256: str | None = None
    """SHA-256 of the frozen weights."""
    curve: tuple[float | None, ...] = ()
    """Training loss in equal parts of the budget (see `core.judge.futility.Curve`), as the train file counts it."""
    predicted_bpb: float | None = None
    """Prediction for a trial that was stopped early, never a score."""
    predicted_low: float | None = None
    predicted_high: float | None = None
    """Interval that holds the prediction with about 95 %."""
    cpu_seconds: float | None = None
    """Processor time of the train child and all below it, from the first batch to the end of training."""
    profile: ProfileResult | None = None
    """Set by `ar train --profile`. The trial's folder then also holds profile.md and the whole trace, trace.json.gz."""
    log: str | None = None
    """Path of run.log."""
