"""Compare two backends on the same work. They take turns, so that a machine that slows down slows both."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoresearch.core.bench.measure import BackendBench, BackendMeasurement, Tell, describe, find_peak
from autoresearch.core.bench.parity import Parity, find_parity
from autoresearch.core.bench.work import Work
from autoresearch.core.data.manifest import Prepared

TAIL = 0.1
"""Share of a curve's tokens, at its end, over which the loss is averaged for the comparison."""


@dataclass(frozen=True)
class Comparison:
    """The measurements of two backends and their comparison."""

    sides: tuple[BackendMeasurement, BackendMeasurement]
    parity: Parity
    equal_tokens: float
    """Number of tokens that the slower side saw in its shortest trial."""
    losses: tuple[float, float]
    """Training loss of each side after `equal_tokens`. Schedules follow the remaining time, not the tokens, so the
    faster side's learning rates are still high at this point."""

    def as_json(self) -> dict[str, Any]:
        """Return the object that --json prints."""
        names = [side.backend for side in self.sides]
        return {
            "backends": {side.backend: side.as_json() for side in self.sides},
            "parity": {
                "precision": "fp32",
                "logits_max_abs": self.parity.logits,
                "losses_max_relative": self.parity.losses_apart,
                "steps": self.parity.steps,
                "losses": dict(zip(names, self.parity.losses, strict=True)),
            },
            "at_equal_tokens": {"tokens": self.equal_tokens, "loss": dict(zip(names, self.losses, strict=True))},
        }


def compare(
    works: tuple[Work, Work],
    prepared: Prepared,
    bench: BackendBench,
    seconds: float,
    seeds: list[int],
    tell: Tell,
    cancel: threading.Event,
) -> Comparison:
    """Measure both backends, one trial each per seed. Raises `TrialError` when a trial does not end well.

    `seconds` is the training time of a trial; `tell` is called with a line for each step.
    """
    tell("parity: the same weights and batches through both")
    parity = find_parity(works, prepared, cancel)
    peaks = []
    for work in works:
        tell(f"{work.backend}: measuring matrix products")
        peaks.append(find_peak(work.backend))
    done: list[list[Any]] = [[], []]
    for seed in seeds:
        for work, (device, peak), mine in zip(works, peaks, done, strict=True):
            tell(f"{work.backend}: training for {seconds:g} s, seed {seed}")
            mine.append(bench.trial(work, seconds, seed, device, peak))
    first, second = (
        BackendMeasurement(
            work.backend, device, describe(device), peak, [row for row, _ in mine], [curve for _, curve in mine]
        )
        for work, (device, peak), mine in zip(works, peaks, done, strict=True)
    )
    tokens = min((curve.tokens[-1] for side in (first, second) for curve in side.curves if curve.tokens), default=0.0)
    return Comparison((first, second), parity, tokens, (loss_at(first, tokens), loss_at(second, tokens)))


def loss_at(side: BackendMeasurement, tokens: float) -> float:
    """Average a side's loss over its trials and over the last TAIL of `tokens` tokens. NaN without points.

    Between two points of a curve the loss is interpolated linearly.
    """
    places = np.linspace((1 - TAIL) * tokens, tokens, 11)
    curves = [curve for curve in side.curves if curve.tokens]
    return float(np.mean([np.interp(places, curve.tokens, curve.loss) for curve in curves])) if curves else float("nan")
