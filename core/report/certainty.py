"""How sure a kept change is: the measured difference and the shrunken one, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.core.judge.posterior import SLAB, normal_cdf
from autoresearch.core.report.trial_events import is_number

Z95 = 1.959964
"""Half the width of a normal's central 95 %, in standard deviations."""


@dataclass(frozen=True)
class Span:
    """A difference in bits per byte with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Certainty:
    """About one difference against the incumbent of its time."""

    raw: Span
    """As measured, with a confidence interval that allows for what is not known of the noise."""
    shrunken: Span
    """The posterior under the judge's prior on effects: its mean and its central 95 %."""


def certainty_of(judged: Mapping[str, Any]) -> Certainty | None:
    """From the numbers behind a decision; None where the judge left none, as the greedy one does."""
    measured, error, sigma = (judged.get(name) for name in ("measured", "error", "sigma"))
    if not (is_number(measured) and is_number(error) and is_number(sigma) and error > 0.0 and sigma > 0.0):
        return None
    raw = Span(measured, measured - Z95 * error, measured + Z95 * error)
    return Certainty(raw, posterior_span(measured, error, sigma))


def posterior_span(difference: float, error: float, sigma: float) -> Span:
    """Mean and 2.5 % and 97.5 % points of the posterior mixture: each normal of SLAB is conjugate."""
    parts: list[tuple[float, float, float]] = []  # logarithm of the weight, mean, standard deviation
    for weight, scale in SLAB:
        prior = (scale * sigma) ** 2
        spread = prior + error**2
        logarithm = math.log(weight) - 0.5 * difference**2 / spread - 0.5 * math.log(spread)
        parts.append((logarithm, difference * prior / spread, math.sqrt(prior * error**2 / spread)))
    top = max(logarithm for logarithm, _, _ in parts)
    weights = [math.exp(logarithm - top) for logarithm, _, _ in parts]
    mixture = [
        (weight / sum(weights), mean, deviation) for weight, (_, mean, deviation) in zip(weights, parts, strict=True)
    ]
    mean = sum(weight * mean for weight, mean, _ in mixture)
    return Span(mean, _quantile(mixture, 0.025), _quantile(mixture, 0.975))


def _quantile(mixture: list[tuple[float, float, float]], share: float) -> float:
    """By bisection, between where every part of the mixture is below and above it."""
    low = min(mean - 8.0 * deviation for _, mean, deviation in mixture)
    high = max(mean + 8.0 * deviation for _, mean, deviation in mixture)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = sum(weight * normal_cdf((middle - mean) / deviation) for weight, mean, deviation in mixture)
        low, high = (middle, high) if below < share else (low, middle)
    return 0.5 * (low + high)
