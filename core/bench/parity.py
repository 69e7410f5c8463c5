"""Do two backends compute the same function? One file's weights, the same rows, both files' logits in float32."""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoresearch.core.bench.work import Work
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import SourceError, TrialError
from autoresearch.core.store.constants import write_constants
from autoresearch.core.trial import training
from autoresearch.core.trial.environment import load_runtime
from autoresearch.core.trial.evaluation import Evaluation
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.result import Budget, TrialRequest
from autoresearch.core.trial.sandbox import open_sandbox
from autoresearch.core.trial.setting import WEIGHTS, Setting
from autoresearch.core.trial.source import vocab_size_of
from autoresearch.core.trial.supervisor import DISK_SHARE
from autoresearch.core.trial.watch import TrialEnded, Watch

TRAIN_SECONDS = 2.0
"""A little, so that no weight is what it was drawn as: where both heads are nearly zero, all logits agree."""
ROWS = 16
"""Compared at one position each, drawn from the whole row."""


def logits_apart(works: tuple[Work, Work], prepared: Prepared, cancel: threading.Event) -> float:
    """The largest difference of two logits, weights trained by the first file.

    Raises `TrialError` when one of the two cannot do the other's work.
    """
    first, second = (in_float32(work) for work in works)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / WEIGHTS
        try:
            sha256 = _trained(first, prepared, Path(folder) / "train", kept, cancel)
            answers = [
                _logits(work, prepared, Path(folder) / work.backend, (kept, sha256), cancel) for work in (first, second)
            ]
        except TrialEnded as end:
            raise TrialError(f"the logits of the two backends cannot be compared: {end.reason}.") from end
    return float(np.abs(answers[0] - answers[1]).max())


def in_float32(work: Work) -> Work:
    """The same work, computed in float32."""
    try:
        return replace(work, source=write_constants(work.source, {"PRECISION": "fp32"}))
    except SourceError:
        return work


def _trained(work: Work, prepared: Prepared, folder: Path, kept: Path, cancel: threading.Event) -> str:
    with Record(folder, work.source) as record, _watch(record, cancel) as watch:
        weights, sha256 = training.train(_setting(work, prepared, record, watch), lambda: None, 0.0)
        shutil.copyfile(weights, kept)
    return sha256


def _logits(
    work: Work, prepared: Prepared, folder: Path, weights: tuple[Path, str], cancel: threading.Event
) -> np.ndarray:
    """float32 (ROWS, V), the same rows and positions for every backend."""
    scored = prepared.scored_rows("val", vocab_size_of(work.source), work.data.eval_seq_len)
    rng = np.random.default_rng(0)
    take = rng.choice(len(scored.rows), ROWS, replace=len(scored.rows) < ROWS)
    tokens = np.ascontiguousarray(scored.rows[take, :-1])
    positions = rng.integers(0, tokens.shape[1], ROWS).astype(np.int32)
    with Record(folder, work.source) as record, _watch(record, cancel) as watch:
        evaluation = Evaluation(_setting(work, prepared, record, watch))
        return evaluation.logits(tokens, positions, [np.arange(ROWS)], *weights)


def _watch(record: Record, cancel: threading.Event) -> Watch:
    return Watch(record, memory_limit_mb=None, disk_limit_mb=DISK_SHARE * 8192, cancel=cancel)


def _setting(work: Work, prepared: Prepared, record: Record, watch: Watch) -> Setting:
    request = TrialRequest(
        source=work.source,
        backend=work.backend,
        preset=work.preset,
        prepared=prepared.folder,
        eval_seq_len=work.data.eval_seq_len,
        score_rows=ROWS,
        folder=record.folder,
        budget=Budget(TRAIN_SECONDS, work.startup_seconds),
    )
    runtime = load_runtime(work.backend)
    sandbox = open_sandbox(None, (prepared.folder.absolute(), record.folder))
    environment = dict(runtime.launch_environment())
    return Setting(request, vocab_size_of(work.source), prepared, environment, sandbox, record, watch)
