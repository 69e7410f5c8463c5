from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from train_modules import module_of

from autoresearch.backends import cuda
from autoresearch.backends.contract import Spec
from autoresearch.core.trainfile.constants import read_constants, write_constants

pytest.importorskip("torch", reason="both frameworks are needed: pip install torch")
pytest.importorskip("mlx.core", reason="both frameworks are needed: pip install 'mlx[cpu]'")

SMALL = {
    "VOCAB_SIZE": 97,
    "DEPTH": 4,
    "NGRAM_ROWS": 0,
    "DIM": 64,
    "HEAD_DIM": 16,
    "SEQ_LEN": 48,
    "WINDOW_PATTERN": "SSL",
    "SHORT_WINDOW": 7,
    "QK_GAIN": 1.2,
    "LOSS_CHUNK_TOKENS": 40,
    "PRECISION": "fp32",
    "COMPILE": "off",
}
"""Small, with short windows, value embeddings on layers 1 and 3, and a loss in several chunks."""


def source_of(backend: str) -> str:
    return (Path(cuda.__path__[0]).parent / backend / "train.py").read_text(encoding="utf-8")


@dataclass
class Side:
    """One backend: its runtime and its train file, at the small size and with the other's optimizer constants."""

    runtime: Any
    train_file: types.ModuleType
    published: dict[str, Any]
    """The constants of the file as it is published."""

    def build(self, seed: int) -> Any:
        spec = Spec(vocab_size=97, eval_seq_len=48, seed=seed, device="cpu", tier="test")
        return self.train_file.build(spec)


@pytest.fixture
def sides() -> Callable[..., dict[str, Side]]:
    """Both backends under one set of constants: those of the PyTorch file, changed as asked."""
    return lambda **constants: dict(_sides(tuple(constants.items())))


@functools.cache  # reading two train files takes longer than most of what is compared in them
def _sides(constants: tuple[tuple[str, object], ...]) -> dict[str, Side]:
    shared = {**read_constants(source_of("cuda")), **SMALL, **dict(constants)}
    found = {}
    for backend in ("cuda", "mlx"):
        own = read_constants(source_of(backend))
        source = write_constants(source_of(backend), {name: shared[name] for name in own if name in shared})
        module = module_of(source, f"parity_{backend}_train_file_{len(constants)}_{abs(hash(constants))}")
        runtime = importlib.import_module(f"autoresearch.backends.{backend}.runtime")
        found[backend] = Side(runtime, module, own)
    return found
