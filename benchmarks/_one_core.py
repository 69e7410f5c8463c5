"""One trial of a train file on one core, in a forked process, by a clock that counts the processor's time.

By the wall's clock, a trial on a machine that others use too would be a fraction of one. There is no sandbox, no audit
and no early end.
"""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import sys
import tempfile
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from autoresearch.backends.contract import Spec
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trainfile.constants import read_constants
from autoresearch.core.trial.evaluation import bits_per_byte, row_batches
from autoresearch.core.trial.request import TrialRequest, TrialResult
from benchmarks.train_files import ProcessorTime, load

LIMIT_SECONDS = 120
"""Of a trial, the processor's."""


def run_trial(request: TrialRequest) -> TrialResult:
    """Train and score on one core. A process that ends without a score is a crash."""
    # Before the fork: threads do not survive one.
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
        data = ProcessorTime(prepared, runtime, vocabulary, request.seed, request.budget.train_seconds)
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
    answer.send({"val_bpb": bpb, "train_seconds": seconds, "cpu_seconds": seconds, **figures})
