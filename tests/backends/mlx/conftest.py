from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from autoresearch.backends import mlx as backend
from autoresearch.backends.contract import BatchInfo, Spec
from autoresearch.core.trainfile.constants import write_constants

pytest.importorskip("mlx.core", reason="pip install 'mlx[cpu]'")

TRAIN_FILE = Path(backend.__path__[0]) / "train.py"
TINY = {
    "VOCAB_SIZE": 61,
    "DEPTH": 2,
    "NGRAM_ROWS": 0,
    "DIM": 32,
    "HEAD_DIM": 16,
    "GATE_CHANNELS": 8,
    "MLP_RATIO": 2,
    "SEQ_LEN": 24,
    "BATCH_TOKENS": 96,
    "DEVICE_BATCH_ROWS": 4,
    "LOG_EVERY": 1,
}
SPEC = Spec(vocab_size=61, eval_seq_len=24, seed=7, device="cpu", tier="test")


@pytest.fixture
def train_file(request: pytest.FixtureRequest) -> Callable[..., types.ModuleType]:
    """The train file as a module, at a tiny size, with further constants changed."""

    def load(**constants: object) -> types.ModuleType:
        source = write_constants(TRAIN_FILE.read_text(encoding="utf-8"), {**TINY, **constants})
        module = types.ModuleType("tiny_mlx_train_file")
        request.addfinalizer(lambda: sys.modules.pop(module.__name__, None))
        sys.modules[module.__name__] = module
        exec(compile(source, str(TRAIN_FILE), "exec"), module.__dict__)
        return module

    return load


@pytest.fixture
def tokens() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets (rows, seq) of seeded random tokens."""

    def draw(rows: int = 4, seq: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        row = np.random.default_rng(seed).integers(0, 61, (rows, seq + 1))
        return row[:, :-1], row[:, 1:]

    return draw


class CountedClock:
    """A budget counted in batches instead of seconds."""

    def __init__(self, batches: int) -> None:
        self.total, self.used = batches, 0
        self.points: list[dict[str, float]] = []
        self.budget = 10.0

    @property
    def progress(self) -> float:
        return self.used / self.total

    @property
    def remaining(self) -> float:
        return self.budget * (1 - self.progress)

    def log(self, **point: float) -> None:
        self.points.append(point)


class CountedData:
    """Tokens that count up by three: learnable within a few steps. Calls `on_first` when real batches are asked for."""

    def __init__(self, clock: CountedClock, on_first: Callable[[], None] = lambda: None) -> None:
        self.clock, self.on_first = clock, on_first

    def _rows(self, batch: int, seq: int, draw: np.random.Generator) -> tuple:
        import mlx.core as mx

        start = draw.integers(0, 61, (batch, 1))
        row = (start + 3 * np.arange(seq + 1)) % 61
        return mx.array(row[:, :-1]), mx.array(row[:, 1:])

    def warmup(self, batch: int, seq: int) -> Iterator[tuple]:
        draw = np.random.default_rng(99)
        while True:
            yield self._rows(batch, seq, draw)

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Iterator[tuple]:
        self.on_first()
        draw = np.random.default_rng(1)
        while self.clock.used < self.clock.total:
            self.clock.used += 1
            yield *self._rows(batch, seq, draw), BatchInfo(epoch=0, tokens=self.clock.used * batch * seq)


@pytest.fixture
def counted() -> Callable[..., tuple[CountedData, CountedClock]]:
    """Data and clock that end after so many batches."""

    def make(batches: int, on_first: Callable[[], None] = lambda: None) -> tuple[CountedData, CountedClock]:
        clock = CountedClock(batches)
        return CountedData(clock, on_first), clock

    return make


@pytest.fixture
def spec() -> Spec:
    return SPEC
