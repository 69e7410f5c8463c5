"""A training step of a backend on the work of `ar bench --common`, as a share of the measured peak.

One process, no feed and no scoring: what the train file itself can do. The peak is the best that square products of the
same precision reach in the same process, on the same threads, by the same clock. FLOPs are those that the model needs,
by the train file's `flops_per_token`: 6 for every weight of a matrix that is multiplied (2 forward, 4 backward;
embeddings are looked up and free) and 12 per channel for every key that a query sees (the causal half alone). The
optimizer's own products, norms, activations and the loss count as nothing. `--processor` counts the processor's time
instead of the wall's: on one thread it tells two versions apart on a busy machine too. The process starts
itself anew with a train child's environment: its allocator, and for `mlx` OpenBLAS.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from autoresearch import backends
from autoresearch.backends.contract import Spec
from autoresearch.core.bench.work import COMMON, common
from autoresearch.core.config import choose_preset, load_presets
from autoresearch.core.trainfile.constants import write_constants
from autoresearch.core.trial.sandbox.environment import ALLOCATOR, load_runtime

BACKENDS = Path(backends.__path__[0])
SECONDS = 10.0
"""Of steps, for one way to run them."""
SIZES = (1024, 2048, 4096)
"""Of the square products."""


def train_file(backend: str, path: Path, compiled: bool) -> ModuleType:
    """The train file at the common sizes, the rest from the `cpu` preset."""
    preset = choose_preset(load_presets(BACKENDS / backend / "presets.toml"), "cpu")
    source = common(backend, path.read_text(encoding="utf-8"), preset).source
    source = write_constants(source, {"COMPILE": "on" if compiled else "off"})
    module = ModuleType("common_work_train_file")
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


class Batches:
    """Implements `contract.Data` and `contract.Clock`: random tokens, and the time that each batch took."""

    budget = SECONDS

    def __init__(self, runtime: Any, seconds: float, now: Callable[[], float]) -> None:
        self._runtime = runtime
        self._seconds, self._now, self._rng = seconds, now, np.random.default_rng(0)
        self._asked: list[float] = []

    def warmup(self, batch: int, seq: int) -> Any:
        """Endless."""
        while True:
            rows = self._rng.integers(0, int(COMMON["VOCAB_SIZE"]), (batch, seq + 1)).astype(np.uint16)
            yield self._runtime.to_device(rows[:, :-1].copy()), self._runtime.to_device(rows[:, 1:].copy())

    def batches(self, batch: int, seq: int, packing: str = "best_fit") -> Any:
        """Until the time is over; at least four."""
        for pair in self.warmup(batch, seq):
            self._runtime.synchronize()
            self._asked.append(self._now())
            if len(self._asked) > 4 and self._asked[-1] - self._asked[0] > self._seconds:
                return
            yield *pair, None

    @property
    def step_seconds(self) -> list[float]:
        """Between one batch and the next: a step each, since the common work does not accumulate."""
        return [float(after - before) for before, after in zip(self._asked, self._asked[1:], strict=False)]

    @property
    def progress(self) -> float:
        """0..1."""
        return min(1.0, (self._now() - self._asked[0]) / self._seconds) if self._asked else 0.0

    @property
    def remaining(self) -> float:
        """Seconds."""
        return self._seconds * (1 - self.progress)

    def log(self, **scalars: float) -> None:
        """The live curve is not looked at."""


def measure(backend: str, path: Path, compiled: bool, seconds: float, now: Callable[[], float]) -> dict[str, Any]:
    """Step time, tokens a second, and seconds of build and warm-up."""
    runtime = load_runtime(backend)
    module, began = train_file(backend, path, compiled), time.perf_counter()
    model = module.build(Spec(2048, 256, seed=0, device=runtime.detect().kind, tier="cpu"))
    data = Batches(runtime, seconds, now)
    flops = module.flops_per_token(model)
    module.train(model, data, data)
    step = statistics.median(data.step_seconds)
    wall = time.perf_counter() - began
    return {
        "mode": "compiled" if compiled else "eager",
        "step_seconds": step,
        "steps": len(data.step_seconds),
        "tokens_per_second": float(COMMON["BATCH_TOKENS"]) / step,
        "start_up_seconds": wall - (seconds if now is time.perf_counter else sum(data.step_seconds)),
        "flops_per_token": flops,
    }


def peak_flops(runtime: Any, precision: str, now: Callable[[], float]) -> float:
    """FLOP/s of the fastest of some blocks of products over all sizes. A product of size n takes 2 n^3 FLOP."""
    fastest = 0.0
    for size in SIZES:
        multiply, count = runtime.products(size, precision), max(1, 4 * (2048 // size) ** 3)
        multiply(1)  # the first one also sets things up
        for _ in range(4):
            began = now()
            multiply(count)
            fastest = max(fastest, 2.0 * size**3 * count / (now() - began))
    return fastest


def measured(
    backend: str, path: Path, modes: list[bool], seconds: float, now: Callable[[], float]
) -> list[dict[str, Any]]:
    """One object per way to run the step, each with its share of the peak."""
    runtime = load_runtime(backend)
    precision = runtime.detect().precision
    peak = peak_flops(runtime, precision, now)
    found = [measure(backend, path, compiled, seconds, now) for compiled in modes]
    for row in found:
        row |= {"backend": backend, "precision": precision, "peak_flops": peak}
        row["share_of_peak"] = row["tokens_per_second"] * row["flops_per_token"] / peak
    return found


def run(quick: bool = False) -> list[dict[str, Any]]:
    """`cuda` uncompiled, as short trials on a processor run, and with this process's own allocator."""
    row = measured("cuda", BACKENDS / "cuda/train.py", [False], SECONDS / 3 if quick else SECONDS, time.perf_counter)[0]
    note = f"{row['mode']}, {row['precision']}, median of {row['steps']} steps of {COMMON['BATCH_TOKENS']} tokens"
    return [
        {"name": "training step", "median": row["tokens_per_second"], "unit": "tokens/s", "note": note},
        {"name": "of the peak", "median": 100 * row["share_of_peak"], "unit": "%", "note": ""},
        {"name": "peak of products", "median": row["peak_flops"] / 1e9, "unit": "GFLOP/s", "note": row["precision"]},
    ]


def start_anew(backend: str) -> None:
    """Replace this process by one with a train child's environment, unless it has that."""
    wanted = {**ALLOCATOR, **load_runtime(backend).launch_environment()}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        command = [sys.executable, "-m", "benchmarks.common_work", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **wanted})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.common_work", description=__doc__)
    parser.add_argument("--backend", default="cuda", choices=("cuda", "mlx"))
    parser.add_argument("--file", type=Path, help="another train file")
    parser.add_argument("--compiled", action="store_true", help="measure the compiled step too")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--processor", action="store_true", help="count the processor's time")
    chosen = parser.parse_args()
    start_anew(chosen.backend)
    file = chosen.file or BACKENDS / chosen.backend / "train.py"
    clock = time.process_time if chosen.processor else time.perf_counter
    for figures in measured(chosen.backend, file, [False, True][: 1 + chosen.compiled], chosen.seconds, clock):
        print(json.dumps(figures))
