"""Packing alone, without sockets or a second process: tokens a second into rows of T = 2048, in batches of 64.

Short documents (about 200 tokens) cost most, because every row holds many of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autoresearch.core.data.documents import offsets_of
from autoresearch.core.data.packing import Packer
from autoresearch.core.data.shards import Shard

BATCH, SEQ = 64, 2048
RUNS, BATCHES = 7, 60
MEAN_TOKENS = {"short": 200, "long": 4000}


def shard(mean_tokens: int, tokens: int = 8_000_000) -> Shard:
    """Made-up documents with geometric lengths around the mean."""
    random = np.random.default_rng(0)
    lengths = 2 + random.geometric(1.0 / mean_tokens, size=tokens // mean_tokens)
    offsets = offsets_of(lengths)
    values = random.integers(2, 8192, size=int(offsets[-1]), dtype=np.uint16)
    values[offsets[:-1]] = 1
    return Shard(Path("made-up"), values, offsets)


def speed(draw: Callable[[int, int], np.ndarray], batches: int) -> float:
    """Million tokens a second over some batches."""
    started = time.perf_counter()
    for _ in range(batches):
        draw(BATCH, SEQ)
    return batches * BATCH * SEQ / (time.perf_counter() - started) / 1e6


def run(quick: bool = False) -> list[dict[str, str | float]]:
    """Every packing on every kind of text."""
    runs, batches = (3, 10) if quick else (RUNS, BATCHES)
    rows: list[dict[str, str | float]] = []
    for kind, mean_tokens in MEAN_TOKENS.items():
        corpus = shard(mean_tokens)
        for name in ("best_fit", "stream"):
            packer = Packer([corpus], seed=0)
            draw = packer.best_fit if name == "best_fit" else packer.stream
            draw(BATCH, SEQ)
            speeds = [speed(draw, batches) for _ in range(runs)]
            rows.append(
                {
                    "name": f"{name}, {kind} documents",
                    "median": statistics.median(speeds),
                    "unit": "M tokens/s",
                    "note": f"{min(speeds):.1f} to {max(speeds):.1f} over {runs} runs; mean length {mean_tokens}",
                }
            )
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
