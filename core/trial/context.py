"""The context that the phases of one trial share: its request, its sandbox, and the measurements so far."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.backends.contract import Device
from autoresearch.core.adopt.script import ScriptFault
from autoresearch.core.judge.futility import Stop
from autoresearch.core.printable import printable_line
from autoresearch.core.trial.child.channel import DeviceMismatchError, Failed, LogitsShapeError, WeightsMismatchError
from autoresearch.core.trial.device import known_peak
from autoresearch.core.trial.processes import (
    KILLED,
    Child,
    Launch,
    ProcessSupervisor,
    TrialEnded,
    how_it_ended,
    worker_argv,
)
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.request import AuditResult, ProfileResult, TrialRequest, TrialResult, TrialStatus
from autoresearch.core.trial.sandbox.levels import Sandbox
from autoresearch.core.trial.weights import WEIGHTS

if TYPE_CHECKING:
    from autoresearch.core.data.manifest import Prepared

REASON_LIMIT = 500
"""Characters of an exception's message in a reason; the whole of it is in run.log."""
WHOLE_REASON_LIMIT = 1000
"""Characters of a reason, at most: it goes into the ledger, onto terminals and to researchers, and may hold names that
the train file chose, such as those of the tensors in its weights."""
MOST_LINES = 10**6
"""Line numbers from here on are made up: no train file may be so long."""
NAME_LIMIT = 100
"""Characters of an exception's class, or of what the child was doing, in a reason."""

SCORE_STAGES = ("start-up", "import", "build", "loading the weights", "logits")
"""Steps of a score or audit child that a reason may name."""
KNOWN_ERRORS = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
) | {"AcceleratorError", "BackendCompilerFailed", "InductorError", "LinAlgError", "OutOfMemoryError", "SafetensorError",
     "TorchRuntimeError", "Unsupported"}  # fmt: skip
"""Exceptions of Python and of the frameworks. The name of any other class is the train file's to choose."""


@dataclass
class Measurements:
    """The numbers of one trial, filled in as it goes on. A phase that was never reached leaves None."""

    device: Device | None = None
    isolation: str | None = None
    val_bpb: float | None = None
    train_seconds: float | None = None
    startup_seconds: float | None = None
    startup_cpu_seconds: float | None = None
    eval_seconds: float | None = None
    tokens: int | None = None
    batches: int | None = None
    steps: int | None = None
    params: int | None = None
    peak_memory_mb: float | None = None
    peak_host_memory_mb: float | None = None
    flops_per_token: float | None = None
    claimed_flops_per_token: float | None = None
    claimed_bpb: float | None = None
    audit: AuditResult | None = None
    profile: ProfileResult | None = None
    curve: tuple[float | None, ...] = ()
    stop: Stop | None = None
    """Why the trial was ended early."""
    cpu_seconds: float | None = None
    weights_sha256: str | None = None

    def result(
        self, request: TrialRequest, status: TrialStatus, reason: str | None, wall_seconds: float, log: Path
    ) -> TrialResult:
        """Return the trial's result, with the numbers that follow from the others, and the reason on one line."""
        speed = self.tokens / self.train_seconds if self.tokens and self.train_seconds else None
        peak = known_peak(self.device) if self.device else None
        return TrialResult(
            status=status,
            reason=None if reason is None else printable_line(reason)[:WHOLE_REASON_LIMIT],
            val_bpb=self.val_bpb if status == "ok" else None,
            train_seconds=self.train_seconds,
            startup_seconds=self.startup_seconds,
            startup_cpu_seconds=self.startup_cpu_seconds,
            eval_seconds=self.eval_seconds,
            wall_seconds=wall_seconds,
            tokens=self.tokens,
            batches=self.batches,
            steps=self.steps if self.steps is not None else self.batches,
            tokens_per_second=speed,
            params=self.params,
            peak_memory_mb=self.peak_memory_mb,
            peak_host_memory_mb=self.peak_host_memory_mb,
            flops_per_token=self.flops_per_token,
            claimed_flops_per_token=self.claimed_flops_per_token,
            claimed_bpb=self.claimed_bpb,
            mfu=self.flops_per_token * speed / peak if self.flops_per_token and speed and peak else None,
            seed=request.seed,
            backend=request.backend,
            device=self.device.name if self.device else None,
            device_kind=self.device.kind if self.device else None,
            machine=self.device.description() if self.device else None,
            preset=request.preset,
            isolation=self.isolation,
            audit=self.audit,
            weights_sha256=self.weights_sha256,
            profile=self.profile,
            curve=self.curve if any(loss is not None for loss in self.curve) else (),
            predicted_bpb=self.stop.predicted if self.stop else None,
            predicted_low=self.stop.interval[0] if self.stop and self.stop.interval else None,
            predicted_high=self.stop.interval[1] if self.stop and self.stop.interval else None,
            cpu_seconds=self.cpu_seconds,
            log=str(log),
        )


@dataclass(frozen=True)
class TrialContext:
    """One trial under way, as all its phases see it."""

    request: TrialRequest
    vocab_size: int
    """VOCAB_SIZE of the train file."""
    prepared: Prepared
    environment: Mapping[str, str]
    """Variables of the backend and the slot, for every worker."""
    sandbox: Sandbox
    record: Record
    processes: ProcessSupervisor
    """All processes of the trial."""
    upstream: Mapping[str, Any] | None = None
    """Terms that the workers of an adopted script are told (see `core.adopt.terms`); None for a train file."""
    facts: Measurements = field(default_factory=Measurements)

    def inside(self, role: str, name: str) -> str:
        """Return the path by which the child of that role knows a file in its work folder."""
        return self.sandbox.inside(self.record.folder / "work" / role, name)

    def launch(
        self, role: str, job: Mapping[str, Any], descriptors: tuple[int, ...], read_only: tuple[Path, ...] = ()
    ) -> Launch:
        """Prepare a worker of that role, in the sandbox and in an empty work folder of its own."""
        work = self.record.work_folder(role)
        request = self.request
        common = {
            "role": role,
            "backend": request.backend,
            "source": self.sandbox.inside(work, "train.py"),
            "weights": self.sandbox.inside(work, WEIGHTS),
            "vocab_size": self.vocab_size,
            "eval_seq_len": request.eval_seq_len,
            "seed": request.seed,
            "tier": request.preset,
        }
        if self.upstream is not None:
            tokenizer = self.prepared.tokenizer_path(self.vocab_size)
            read_only = (*read_only, tokenizer)
            common["upstream"] = {**self.upstream, "tokenizer": self.sandbox.inside(work, tokenizer.name)}
        return Launch(
            role=role,
            argv=worker_argv(),
            work=work,
            job={**common, **job},
            sandbox=self.sandbox,
            environment=self.environment,
            descriptors=descriptors,
            read_only=read_only,
            file_limit_mb=request.weights_limit_mb,
        )


def failure(failed: Failed) -> TrialEnded:
    """Turn what a child says of its failure into the end of the trial, without what could steer a terminal."""
    kind, message, stage = (printable_line(one) for one in (failed.type, failed.message, failed.stage))
    message = message[:REASON_LIMIT]
    kind, stage = kind[:NAME_LIMIT], stage[:NAME_LIMIT]
    words = f"{kind}: {message}" if message else kind
    if kind == ScriptFault.__name__ and message:
        return TrialEnded("crash", message)
    if failed.out_of_memory:
        words = f"out of memory: {words}"
    place = f"line {failed.line} of train.py, " if failed.line is not None and 0 < failed.line < MOST_LINES else ""
    return TrialEnded("crash", f"{words} ({place}in {stage})")


def closed_failure(failed: Failed, role: str, expected: tuple[int, int, int], lines: int) -> TrialEnded:
    """Turn what a score or audit child says of its failure into the end of the trial.

    The child has seen held-out text, and a reason is shown to researchers. So nothing of the train file's own words
    leaves: of the exception only its class, where that is Python's or the framework's, and a line number. `expected` is
    the shape of the logits, `lines` the number of lines of the train file.
    """
    if failed.type == LogitsShapeError.__name__:
        return TrialEnded("invalid", f"logits has the wrong shape; expected {expected}")
    if failed.type == DeviceMismatchError.__name__:
        return TrialEnded("crash", f"the {role} process computes on another kind of device than the train process did")
    if failed.type == WeightsMismatchError.__name__:
        return TrialEnded("crash", "the weights do not fit the model that is built in a new process")
    if failed.type == ScriptFault.__name__:
        return TrialEnded("crash", "the script, run again for scoring, does not come to its first batch with a model")
    words = failed.type if failed.type in KNOWN_ERRORS else "an exception of the train file's own"
    if failed.out_of_memory:
        words = f"out of memory: {words}"
    stage = failed.stage if failed.stage in SCORE_STAGES else "scoring"
    line = f"line {failed.line} of train.py, " if failed.line is not None and 1 <= failed.line <= lines else ""
    return TrialEnded("crash", f"{words} ({line}in {stage}, by the {role} process, whose messages are not shown)")


def closed_end(child: Child) -> TrialEnded:
    """Return the end of a trial whose score or audit child ended without saying why; its exit status is not shown."""
    how = KILLED if how_it_ended(child.returncode() or 0) == KILLED else "ended by itself"
    return TrialEnded("crash", f"the {child.role} process {how}")


def gone(child: Child) -> TrialEnded:
    """Return the end of a trial whose child ended without saying why."""
    return TrialEnded("crash", f"the {child.role} process {how_it_ended(child.returncode() or 0)}; see run.log")
