"""Check that two backends compute the same: logits and a few optimizer steps, in float32, from the same weights."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.core.bench.work import Work
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.shards import open_shard
from autoresearch.core.errors import TrialError
from autoresearch.core.trainfile.constants import read_constants, write_constants
from autoresearch.core.trainfile.source_check import vocab_size_of
from autoresearch.core.trial import training
from autoresearch.core.trial.child.channel import Failed, StepLosses
from autoresearch.core.trial.context import WEIGHTS, TrialContext, failure, gone
from autoresearch.core.trial.evaluation import Evaluation
from autoresearch.core.trial.processes import ProcessSupervisor, TrialEnded
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.sandbox.environment import load_runtime
from autoresearch.core.trial.sandbox.levels import open_sandbox
from autoresearch.core.trial.supervisor import DISK_SHARE
from autoresearch.core.trial.weights import WeightsOnDisk, copy_weights

TRAIN_SECONDS = 2.0
"""Training time before the comparison. Right after initialization both heads are nearly zero and any logits agree."""
ROWS = 16
"""Number of rows whose logits are compared, at one random position each."""
STEPS = 20
"""Optimizer steps whose losses are compared."""
STEP_TOKENS = 2048
"""Tokens per step, in two micro-batches: enough to tell two optimizers apart, and a matter of seconds on a CPU."""
STEPS_SECONDS = 600.0
"""Longest wait for the steps, in seconds, after the start-up time."""
TOKENS = "tokens.u16"


@dataclass(frozen=True)
class Parity:
    """Differences between two backends where they should agree, in float32 with the same weights."""

    logits: float
    """Largest absolute difference of two logits at the same positions."""
    steps: list[int]
    """Optimizer steps after which both files logged their loss."""
    losses: tuple[list[float], list[float]]
    """Each side's losses at `steps`, on the same batches."""

    @property
    def losses_apart(self) -> float:
        """Largest difference of two losses, relative to the first side's."""
        first, second = (np.array(side) for side in self.losses)
        return float((np.abs(second - first) / np.abs(first)).max())


def find_parity(works: tuple[Work, Work], prepared: Prepared, cancel: threading.Event) -> Parity:
    """Train the first file for TRAIN_SECONDS, give its weights to both and compare.

    Raises `TrialError` when one of the two backends cannot run the other's work.
    """
    first, second = (changed(work, PRECISION="fp32") for work in works)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            weights = _trained(first, prepared, folder, cancel)
            answers = [_logits(work, prepared, folder / work.backend, weights, cancel) for work in (first, second)]
            losses = [_losses(work, prepared, folder / f"{work.backend}-steps", weights, cancel) for work in works]
        except TrialEnded as end:
            raise TrialError(f"the two backends cannot be compared: {end.reason}.") from end
    steps = sorted(losses[0].keys() & losses[1].keys())
    if not steps:
        raise TrialError("the two backends cannot be compared: they log the loss of no step in common.")
    apart = float(np.abs(answers[0] - answers[1]).max())
    return Parity(apart, steps, ([losses[0][step] for step in steps], [losses[1][step] for step in steps]))


def changed(work: Work, **constants: str | int) -> Work:
    """Return the work with other values for those of the constants that its file has."""
    known = read_constants(work.source)
    wanted = {name: value for name, value in constants.items() if name in known}
    return replace(work, source=write_constants(work.source, wanted)) if wanted else work


def _trained(work: Work, prepared: Prepared, folder: Path, cancel: threading.Event) -> WeightsOnDisk:
    """Train for TRAIN_SECONDS and copy the weights to where no child can change them."""
    with Record(folder / "train", work.source) as record, _supervisor(record, cancel) as processes:
        frozen = training.train(_context(work, prepared, record, processes), lambda: None, 0.0)
        with contextlib.closing(frozen):
            frozen.keep(folder / WEIGHTS)
            return WeightsOnDisk(folder / WEIGHTS, frozen.sha256)


def _logits(
    work: Work, prepared: Prepared, folder: Path, weights: WeightsOnDisk, cancel: threading.Event
) -> np.ndarray:
    """Compute the logits, float32 (ROWS, V), at the same rows and positions for every backend."""
    scored = prepared.scored_rows("val", vocab_size_of(work.source), work.data.eval_seq_len)
    rng = np.random.default_rng(0)
    take = rng.choice(len(scored.rows), ROWS, replace=len(scored.rows) < ROWS)
    tokens = np.ascontiguousarray(scored.rows[take, :-1])
    positions = rng.integers(0, tokens.shape[1], ROWS).astype(np.int32)
    with Record(folder, work.source) as record, _supervisor(record, cancel) as processes:
        evaluation = Evaluation(_context(work, prepared, record, processes))
        return evaluation.logits(tokens, positions, [np.arange(ROWS)], weights)


def _losses(
    work: Work, prepared: Prepared, folder: Path, weights: WeightsOnDisk, cancel: threading.Event
) -> Mapping[int, float]:
    """Run the file's own training steps on the first shard's text, from `weights`. Returns the loss by step."""
    seq_len = read_constants(work.source).get("SEQ_LEN")
    rows = max(1, STEP_TOKENS // 2 // seq_len) if isinstance(seq_len, int) else 1
    step_tokens = 2 * rows * seq_len if isinstance(seq_len, int) else STEP_TOKENS
    sizes = {"DEVICE_BATCH_ROWS": rows, "BATCH_TOKENS": step_tokens}
    work = changed(work, PRECISION="fp32", LOG_EVERY=1, **sizes)
    known = set(sizes) <= read_constants(work.source).keys()
    text = open_shard(prepared.train_shards(vocab_size_of(work.source))[0]).values[: STEPS * step_tokens + 1]
    with Record(folder, work.source) as record, _supervisor(record, cancel) as processes:
        context = _context(work, prepared, record, processes)
        job = {
            "tokens": context.inside("steps", TOKENS),
            "steps": STEPS,
            "step_tokens": step_tokens if known else None,
        }
        launch = context.launch("steps", job, ())
        copy_weights(weights.path, launch.work / WEIGHTS, sha256=weights.sha256)
        np.asarray(text, np.uint16).tofile(launch.work / TOKENS)
        return _answer(processes, launch, time.monotonic() + work.startup_seconds + STEPS_SECONDS)


def _answer(processes: ProcessSupervisor, launch: Any, limit: float) -> Mapping[int, float]:
    child = processes.start(launch)
    while time.monotonic() < limit:
        ended = child.returncode() is not None
        for _, message in processes.step(limit):
            if isinstance(message, Failed):
                raise failure(message)
            if isinstance(message, StepLosses):
                return {int(step): float(loss) for step, loss in message.losses.items()}
        if ended:
            raise gone(child)
    raise TrialEnded("timeout", f"{STEPS} optimizer steps took too long")


def _supervisor(record: Record, cancel: threading.Event) -> ProcessSupervisor:
    return ProcessSupervisor(record, memory_limit_mb=None, disk_limit_mb=DISK_SHARE * 8192, cancel=cancel)


def _context(work: Work, prepared: Prepared, record: Record, processes: ProcessSupervisor) -> TrialContext:
    terms = replace(work.terms(prepared.folder, TRAIN_SECONDS), score_rows=ROWS)
    request = terms.request(work.source, record.folder)
    runtime = load_runtime(work.backend)
    sandbox = open_sandbox(None, (prepared.folder.absolute(), record.folder))
    environment = dict(runtime.launch_environment())
    return TrialContext(request, vocab_size_of(work.source), prepared, environment, sandbox, record, processes)
