"""From logits to likelihoods to bits per byte: the frozen part of scoring, every backend that runs here.

One batch of 32 rows of 256 tokens with 2048 logits each; then the parent's sum over a whole split.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from autoresearch import backends
from autoresearch.core.trial.evaluation import bits_per_byte
from benchmarks._backends import loadable

B, T, V = 32, 256, 2048
RUNS = 7
SPLIT_ROWS = 4000


def run() -> list[dict[str, Any]]:
    """Milliseconds of `nll` by backend, and of the sum."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((B, T, V), dtype=np.float32)
    targets = rng.integers(0, V, (B, T)).astype(np.uint16)
    rows = []
    for name, runtime in loadable(backends.names()):
        on_device, wanted = array_of(name, logits), runtime.to_device(targets)
        rows.append(row(f"{name}: likelihoods of {B * T} tokens", lambda r=runtime, x=on_device, y=wanted: r.nll(x, y)))
    nll = rng.random((SPLIT_ROWS, T), dtype=np.float32)
    mask = rng.random((SPLIT_ROWS, T)) < 0.9
    return [*rows, row(f"bits per byte of {SPLIT_ROWS * T} tokens", lambda: bits_per_byte(nll, mask, 10**6))]


def array_of(name: str, values: np.ndarray) -> Any:
    """The framework's own array, on the device that its runtime uses."""
    if name == "cuda":
        torch = importlib.import_module("torch")
        return torch.from_numpy(values).to("cuda" if torch.cuda.is_available() else "cpu")
    if name == "mlx":
        return importlib.import_module("mlx.core").array(values)
    return values


def row(name: str, work: Callable[[], object]) -> dict[str, Any]:
    """The median of several calls, after one that sets things up."""
    work()
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    note = f"{1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f} over {RUNS} runs"
    return {"name": name, "median": 1e3 * statistics.median(seconds), "unit": "ms", "note": note}
