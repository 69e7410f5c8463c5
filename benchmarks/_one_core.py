"""One trial of a `cuda` train file on one core, in a forked process, by a clock that counts the processor's time."""

from __future__ import annotations

import importlib.util
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from autoresearch.backends.contract import BatchInfo, Spec
from autoresearch.backends.cuda import runtime
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.data.packing import Packer
from autoresearch.core.data.shards import open_shard
from autoresearch.core.data.shuffle_buffer import ShuffleBuffer
from autoresearch.core.trial.evaluation import bits_per_byte, row_batches

SECONDS = 3.0
"""Of training."""
LIMIT_SECONDS = 60
"""Of a trial, the processor's."""
VOCABULARY, SEQ_LEN, SCORE_ROWS = 2048, 256, 32


class OneCore:
    """Implements `contract.Data` and `contract.Clock`."""

    def __init__(self, prepared: Prepared, seed: int) -> None:
        shards = [open_shard(path) for path in prepared.train_shards(VOCABULARY)]
        self._buffer, self._rng = ShuffleBuffer(Packer(shards, seed), seed), np.random.default_rng(seed)
        self._started: float | None = None
        self.tokens = self.steps = 0
        self.budget = SECONDS

    @property
    def elapsed(self) -> float:
        """Seconds of the processor since the first batch."""
        return 0.0 if self._started is None else time.process_time() - self._started

    @property
    def progress(self) -> float:
        """0..1."""
        return min(1.0, self.elapsed / SECONDS)

    @property
    def remaining(self) -> float:
        """Seconds."""
        return max(0.0, SECONDS - self.elapsed)

    def log(self, *, step: int, **scalars: float) -> None:
        """Of the live curve only the number of steps is looked at."""
        self.steps = int(step)

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Any, Any]]:
        """Random tokens."""
        while True:
            yield _pair(self._rng.integers(0, VOCABULARY, (batch, seq + 1)).astype(np.uint16))

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Iterator[tuple[Any, Any, BatchInfo]]:
        """The feed's rows, until the next batch would pass the deadline."""
        self._started = time.process_time()
        intervals: list[float] = []
        while True:
            before = self.elapsed
            if before + (statistics.median(intervals[-9:]) if intervals else 0.0) > SECONDS:
                return
            rows = self._buffer.rows(packing, batch, seq)
            self.tokens += batch * seq
            yield *_pair(rows), BatchInfo(epoch=self._buffer.epoch, tokens=self.tokens)
            intervals.append(self.elapsed - before)


def _pair(rows: np.ndarray) -> tuple[Any, Any]:
    return runtime.to_device(np.ascontiguousarray(rows[:, :-1])), runtime.to_device(np.ascontiguousarray(rows[:, 1:]))


def trial(source: str, prepared: Prepared, seed: int) -> dict[str, Any]:
    """`status`, `val_bpb` (None unless it is "ok"), `tokens`, `steps`, `params` and `seconds` of a train file."""
    import torch

    torch.set_num_threads(1)  # before the fork: threads do not survive one
    context = multiprocessing.get_context("fork")
    near, far = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(source, prepared, seed, far), daemon=True)
    process.start()
    far.close()
    try:
        return dict(near.recv())
    except EOFError:
        return {"status": "crash", **dict.fromkeys(("val_bpb", "tokens", "steps", "params", "seconds"))}
    finally:
        process.join()


def _child(source: str, prepared: Prepared, seed: int, answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS))
    sys.stdout = sys.stderr
    runtime.seed(seed)
    train_file, data = _load(source), OneCore(prepared, seed)
    model = train_file.build(Spec(vocab_size=VOCABULARY, eval_seq_len=SEQ_LEN, seed=seed, device="cpu", tier="demo"))
    model = train_file.train(model, data, data)
    seconds = data.elapsed
    scored = prepared.scored_rows("val", VOCABULARY, SEQ_LEN)
    losses = []
    with runtime.inference(model):
        for rows in row_batches(scored.rows, SCORE_ROWS):
            inputs, targets = _pair(rows)
            losses.append(runtime.nll(train_file.logits(model, inputs), targets))
    nll = np.concatenate(losses).reshape(-1, SEQ_LEN)[: len(scored.rows)]
    bpb = bits_per_byte(nll, scored.mask, scored.total_bytes)
    figures = {"tokens": data.tokens, "steps": data.steps, "params": runtime.parameter_count(model)}
    answer.send({"status": "ok", "val_bpb": bpb, **figures, "seconds": round(seconds, 3)})


def _load(source: str) -> ModuleType:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("task_train", path)
        if spec is None or spec.loader is None:
            raise ImportError("the train file cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module
