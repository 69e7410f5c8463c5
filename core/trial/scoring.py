"""Bits per byte from the negative log-likelihoods that the score child returns."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

NEGATIVE_TOLERANCE = 1e-3
"""Nats. Rounding in float32 can make the loss of a certain token slightly negative."""


class ScoreFault(ValueError):  # noqa: N818
    """Why a score is no score, in words."""


def bits_per_byte(nll: np.ndarray, mask: np.ndarray, total_bytes: int) -> float:
    """`sum of nll in nats / (ln 2 * bytes)` over the masked targets, summed in float64.

    nll float32 (N, T), mask bool (N, T); `total_bytes` are the raw UTF-8 bytes of the split's documents. Raises
    `ScoreFault` when a scored value is not finite or below zero: no probability exceeds one.
    """
    scored = nll[mask].astype(np.float64)
    bad = int(np.count_nonzero(~np.isfinite(scored)))
    if bad:
        raise ScoreFault(f"the loss is not a finite number at {bad} of {scored.size} scored tokens")
    if scored.size and scored.min() < -NEGATIVE_TOLERANCE:
        raise ScoreFault(f"the loss is negative ({scored.min():.3g} nats), which no probability allows")
    return float(scored.sum() / (math.log(2) * total_bytes))


def row_batches(rows: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """(N, W) -> arrays (batch, W); the last is filled up with the first rows, so that every batch has one shape."""
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        if len(part) < batch:
            part = np.concatenate([part, np.resize(rows, (batch - len(part), rows.shape[1]))])
        yield np.ascontiguousarray(part)


def batch_count(rows: int, batch: int) -> int:
    """How many batches `row_batches` yields."""
    return -(-rows // batch)
