"""Real trials of both backends on the work of `ar compare`: depth 4, width 256, T 256, 8,192 tokens a step.

Short ones; for a comparison to rely on: `ar compare --seconds 60 --trials 3`.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.bench import work
from autoresearch.core.bench.measure import BackendBench, BackendMeasurement, measure
from autoresearch.core.config import load_presets
from benchmarks._backends import loadable
from benchmarks.trial_overhead import prepared_for

SECONDS = 20.0
FIGURES = (
    ("tokens a second", "tokens_per_second", 1.0, "tokens/s"),
    ("step", "step_seconds", 1e3, "ms"),
    ("MFU, counted from the weights' shapes", "mfu", 1e2, "%"),
    ("MFU, by the train file's own count", "claimed_mfu", 1e2, "%"),
    ("peak host memory", "peak_host_memory_mb", 1.0, "MiB"),
    ("all outside training", "outside", 1.0, "s"),
    ("val_bpb", "val_bpb", 1.0, "bits/byte"),
)


def run() -> list[dict[str, Any]]:
    """One trial of each backend that runs here, and the ratio of their speeds."""
    measured = [measure_one(name) for name, _ in loadable(("cuda", "mlx"))]
    rows = [row for one in measured for row in rows_of(one)]
    if len(measured) == 2:
        speeds = [one.median("tokens_per_second") or float("nan") for one in measured]
        rows.append(
            {"name": "cuda over mlx, tokens a second", "median": speeds[0] / speeds[1], "unit": "x", "note": ""}
        )
    return rows


def measure_one(name: str) -> BackendMeasurement:
    """The peak of its products and one trial."""
    folder = Path(backends.__path__[0]) / name
    preset = load_presets(folder / "presets.toml")["cpu"]
    wanted = work.common(name, work.train_source(folder / "train.py"), preset)
    with tempfile.TemporaryDirectory() as trials:
        bench = BackendBench(Path(trials), prepared_for(preset), None, threading.Event())
        return measure(wanted, bench, SECONDS, [0], lambda line: print(f"  {line}", file=sys.stderr))


def rows_of(one: BackendMeasurement) -> list[dict[str, Any]]:
    """What is known of one backend."""
    note = f"{SECONDS:g} s of training, one trial"
    rows = [
        {"name": f"{one.backend}: products, {name}", "median": flops / 1e9, "unit": "GFLOP/s", "note": "the best block"}
        for name, flops in one.peak.items()
    ]
    for title, name, scale, unit in FIGURES:
        if (value := one.median(name)) is not None:
            rows.append({"name": f"{one.backend}: {title}", "median": scale * value, "unit": unit, "note": note})
    return rows
