"""How sure a kept change is: the measured difference and the shrunken one, each with an interval.

Predicted changes against what came out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoresearch.core.judge.posterior import SLAB, normal_cdf
from autoresearch.core.report.trial_events import is_number
from autoresearch.core.store.rows import ExperimentRow

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


@dataclass(frozen=True)
class Prediction:
    """One experiment that had both. Bits per byte against the incumbent of its time; negative is better."""

    experiment: int
    researcher: str
    predicted: float
    outcome: float
    """As measured: with fresh seeds where it was raced, and not shrunken."""


@dataclass(frozen=True)
class PredictionScore:
    """How good some predictions were. Errors are in bits per byte."""

    researcher: str
    count: int
    right_sign: float
    """Share whose sign came true."""
    error: float
    """Mean absolute error."""
    error_of_zero: float
    """What always predicting "no change" would have had: predictions are worth something below it."""
    bias: float
    """Mean of outcome less prediction; above 0 is too hopeful."""
    rank_correlation: float | None
    """Spearman's, None below three predictions or where all are equal: is the bigger promise the bigger gain?"""


def predictions_of(decided: Iterable[ExperimentRow]) -> list[Prediction]:
    """Every experiment with a prediction and a result, in order."""
    found = []
    for row in decided:
        outcome = row.judged.get("measured", row.delta)
        if row.number and row.predicted_delta is not None and is_number(outcome):
            found.append(Prediction(row.number, row.researcher, row.predicted_delta, outcome))
    return found


def scores(predictions: Sequence[Prediction]) -> list[PredictionScore]:
    """One for every researcher, the one with the most predictions first."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for one in predictions:
        groups[one.researcher].append(one)
    return sorted((score(name, some) for name, some in groups.items()), key=lambda one: (-one.count, one.researcher))


def score(researcher: str, some: Sequence[Prediction]) -> PredictionScore:
    """Of at least one prediction."""
    count = len(some)
    return PredictionScore(
        researcher=researcher,
        count=count,
        right_sign=sum((one.predicted < 0) == (one.outcome < 0) for one in some) / count,
        error=sum(abs(one.outcome - one.predicted) for one in some) / count,
        error_of_zero=sum(abs(one.outcome) for one in some) / count,
        bias=sum(one.outcome - one.predicted for one in some) / count,
        rank_correlation=spearman([one.predicted for one in some], [one.outcome for one in some]),
    )


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation with ties at their mean rank; None where it is not defined."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    x, y = _ranks(first), _ranks(second)
    middle = (len(x) - 1) / 2.0
    both = sum((a - middle) * (b - middle) for a, b in zip(x, y, strict=True))
    spread = sum((a - middle) ** 2 for a in x) * sum((b - middle) ** 2 for b in y)
    return float(both / spread**0.5)


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for i in order[start:end]:
            ranks[i] = (start + end - 1) / 2.0
        start = end
    return ranks
