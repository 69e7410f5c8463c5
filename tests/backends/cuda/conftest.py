"""The cuda backend's train file as a fresh module at a tiny size, and synthetic data."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from autoresearch.backends.contract import BatchInfo, Spec

TRAIN_FILE = Path(__file__).parents[3] / "backends" / "cuda" / "train.py"

TINY = {
    "VOCAB_SIZE": 64,
    "DEPTH": 3,
    "NGRAM_ROWS": 0,
    "DIM": 32,
    "HEAD_DIM": 16,
    "SEQ_LEN": 32,
    "WINDOW_PATTERN": "SL",
    "SHORT_WINDOW": 8,
    "BATCH_TOKENS": 256,
    "DEVICE_BATCH_ROWS": 4,
    "LOSS_CHUNK_TOKENS": 48,
    "EMBED_LR": 0.1,
    "VALUE_EMBED_LR": 0.1,
    "MUON_LR": 0.02,
    "PRECISION": "fp32",
    "COMPILE": "off",
    "WARMUP_STEPS": 2,
    "LOG_EVERY": 1,
}


@pytest.fixture
def load_train() -> Iterator[Callable[..., ModuleType]]:
    """A fresh train module with the tiny constants, and those given, in place."""
    names: list[str] = []

    def load(**constants: object) -> ModuleType:
        name = f"cuda_train_{len(names)}"
        spec = importlib.util.spec_from_file_location(name, TRAIN_FILE)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        names.append(name)
        spec.loader.exec_module(module)
        for key, value in {**TINY, **constants}.items():
            getattr(module, key)
            setattr(module, key, value)
        return module

    yield load
    for name in names:
        del sys.modules[name]


@pytest.fixture
def tiny() -> dict[str, object]:
    """The tiny constants, for a train file in a process of its own."""
    return dict(TINY)


@pytest.fixture
def spec() -> Spec:
    return Spec(vocab_size=64, eval_seq_len=32, seed=0, device="cpu", tier="demo")


class CountingClock:
    """Progress by batches instead of seconds."""

    budget = 20.0

    def __init__(self, batches: int) -> None:
        self.batches, self.seen, self.points = batches, 0, []

    @property
    def progress(self) -> float:
        return self.seen / self.batches

    @property
    def remaining(self) -> float:
        return self.budget * (1 - self.progress)

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        self.points.append((step, loss))


class CountingUp:
    """Text in which every token is the one before plus one: easy to learn."""

    def __init__(self, clock: CountingClock, vocab: int = 64) -> None:
        self.clock, self.vocab, self.random, self.warmups = clock, vocab, np.random.default_rng(0), 0
        self.first_batch_at: float | None = None

    def _rows(self, batch: int, seq: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.random.integers(0, self.vocab, (batch, 1))
        rows = torch.from_numpy((start + np.arange(seq + 1)) % self.vocab)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            self.warmups += 1
            yield self._rows(batch, seq)

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Iterator:
        self.first_batch_at = time.monotonic()
        for index in range(self.clock.batches):
            self.clock.seen = index
            yield (*self._rows(batch, seq), BatchInfo(epoch=0, tokens=(index + 1) * batch * seq))


@pytest.fixture
def make_data() -> Callable[[int], tuple[CountingUp, CountingClock]]:
    def make(batches: int) -> tuple[CountingUp, CountingClock]:
        clock = CountingClock(batches)
        return CountingUp(clock), clock

    return make
