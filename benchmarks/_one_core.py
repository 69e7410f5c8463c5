"""Trials of a train file on one core, in forked processes, by a clock that counts the processor's time.

By the wall's clock, a trial on a machine that others use too would be a fraction of one. There is no sandbox, no audit
and no early end. The framework is imported before the fork, so that no trial's time holds an import.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from autoresearch.backends.contract import Spec
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.events import Observer
from autoresearch.core.fleet.local import LocalHandle
from autoresearch.core.judge.futility import CurveWatch
from autoresearch.core.trainfile.constants import read_constants
from autoresearch.core.trial.evaluation import bits_per_byte, row_batches
from autoresearch.core.trial.request import TrialRequest, TrialResult
from benchmarks.train_files import ProcessorTime, load

LIMIT_SECONDS = 120
"""Of a trial, the processor's."""


class OneCoreExecutor:
    """Implements `Executor` by forked processes on one core, one at a time."""

    def __init__(self) -> None:
        importlib.import_module("torch").set_num_threads(1)
        self._pool = ThreadPoolExecutor(max_workers=1)

    def capacity(self) -> int:
        """One trial at a time."""
        return 1

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> LocalHandle:
        """Start the trial as soon as the one before has ended."""
        return LocalHandle(self._pool.submit(run_trial, request), threading.Event())

    def close(self) -> None:
        """Wait for the trial under way."""
        self._pool.shutdown()


class Watched(ProcessorTime):
    """Keeps the curve of the training loss as a trial's supervisor does."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.watch = CurveWatch(None, self.budget)

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Note the loss at the share of the budget that is used up."""
        super().log(step=step, loss=loss, **scalars)
        self.watch.note(self.progress, float(loss) if math.isfinite(loss) else None)


def run_trial(request: TrialRequest) -> TrialResult:
    """Train and score on one core. A process that ends without a score is a crash."""
    # Threads do not survive a fork.
    importlib.import_module("torch").set_num_threads(1)
    context = multiprocessing.get_context("fork")
    near, far = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(request, far), daemon=True)
    process.start()
    far.close()
    facts: dict[str, Any] = {"seed": request.seed, "backend": request.backend, "preset": request.preset}
    try:
        facts |= {"status": "ok", **near.recv()}
    except EOFError:
        facts |= {"status": "crash", "reason": "the process ended without a score"}
    process.join()
    return TrialResult(**facts)


def _child(request: TrialRequest, answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS))
    sys.stdout = sys.stderr
    runtime = importlib.import_module(f"autoresearch.backends.{request.backend}.runtime")
    runtime.seed(request.seed)
    prepared, seq_len = Prepared.open(request.prepared), request.eval_seq_len
    vocabulary = int(read_constants(request.source)["VOCAB_SIZE"])
    with tempfile.TemporaryDirectory() as folder:
        train_file = load(request.source, folder)
        spec = Spec(vocab_size=vocabulary, eval_seq_len=seq_len, seed=request.seed, device="cpu", tier=request.preset)
        data = Watched(prepared, runtime, vocabulary, request.seed, request.budget.train_seconds)
        model = train_file.train(train_file.build(spec), data, data)
        seconds, losses = data.elapsed, []
        scored = prepared.scored_rows(request.split, vocabulary, seq_len)
        with runtime.inference(model):
            for rows in row_batches(scored.rows, request.score_rows):
                parts = (np.ascontiguousarray(part) for part in (rows[:, :-1], rows[:, 1:]))
                inputs, targets = (runtime.to_device(part) for part in parts)
                losses.append(runtime.nll(train_file.logits(model, inputs), targets))
    nll = np.concatenate(losses).reshape(-1, seq_len)[: len(scored.rows)]
    bpb = bits_per_byte(nll, scored.mask, scored.total_bytes)
    figures = {"tokens": data.tokens, "steps": data.steps, "params": runtime.parameter_count(model)}
    whole = time.process_time()  # a fork's own: it begins at 0
    times = {"train_seconds": seconds, "cpu_seconds": seconds, "wall_seconds": whole, "startup_seconds": data.startup}
    answer.send({"val_bpb": bpb, **times, **figures, "curve": data.watch.curve})
