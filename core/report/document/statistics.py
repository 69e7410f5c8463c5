"""Statistics of the report: intervals of the kept changes, and scores of the researchers' predictions.

A change's effect is shown twice: as measured, and as the judge's cautious estimate, each with a 95 % interval.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, correlation
from typing import Any

from autoresearch.core.events import is_number
from autoresearch.core.judge.posterior import SLAB
from autoresearch.core.store.rows import ExperimentRow

Z95 = NormalDist().inv_cdf(0.975)
"""Half the width of a normal's central 95 %, in standard deviations: 1.96."""
BISECTIONS = 60
"""Halvings of an interval after which it is as narrow as a float can tell."""


@dataclass(frozen=True)
class Interval:
    """A difference in bits per byte with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Certainty:
    """One difference against the incumbent of its time with its uncertainty, in bits per byte."""

    raw: Interval
    """The measured difference, with a confidence interval that allows for the uncertainty of the noise."""
    shrunken: Interval
    """The cautious estimate: mean and central 95 % of the posterior under the judge's prior on effects."""


def certainty_of(judged: Mapping[str, Any]) -> Certainty | None:
    """Compute it from the numbers behind a decision; None where the judge left none, as the greedy one does."""
    measured, error, sigma = (judged.get(name) for name in ("measured", "error", "sigma"))
    if not (is_number(measured) and is_number(error) and is_number(sigma) and error > 0.0 and sigma > 0.0):
        return None
    raw = Interval(measured, measured - Z95 * error, measured + Z95 * error)
    return Certainty(raw, posterior_interval(measured, error, sigma))


def posterior_interval(difference: float, error: float, sigma: float) -> Interval:
    """Compute the mean and the 2.5 % and 97.5 % points of the posterior.

    The prior is SLAB, a mixture of normals. Each is conjugate to the normal error, so the posterior is a mixture too:
    of normals weighed by how well each predicts the difference.
    """
    parts: list[tuple[float, NormalDist]] = []  # logarithm of the weight, and the normal
    for weight, scale in SLAB:
        prior = (scale * sigma) ** 2
        spread = prior + error**2
        logarithm = math.log(weight) - 0.5 * difference**2 / spread - 0.5 * math.log(spread)
        parts.append((logarithm, NormalDist(difference * prior / spread, math.sqrt(prior * error**2 / spread))))
    # Far out every weight underflows, so they are taken relative to the largest.
    top = max(logarithm for logarithm, _ in parts)
    total = sum(math.exp(logarithm - top) for logarithm, _ in parts)
    mixture = [(math.exp(logarithm - top) / total, normal) for logarithm, normal in parts]
    mean = sum(weight * normal.mean for weight, normal in mixture)
    return Interval(mean, _quantile(mixture, 0.025), _quantile(mixture, 0.975))


def _quantile(mixture: list[tuple[float, NormalDist]], share: float) -> float:
    """Find by bisection the point below which `share` of the mixture lies: a mixture's quantile has no formula."""
    low = min(normal.mean - 8.0 * normal.stdev for _, normal in mixture)
    high = max(normal.mean + 8.0 * normal.stdev for _, normal in mixture)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        below = sum(weight * normal.cdf(middle) for weight, normal in mixture)
        low, high = (middle, high) if below < share else (low, middle)
    return 0.5 * (low + high)


@dataclass(frozen=True)
class Prediction:
    """A prediction and its outcome, in bits per byte against the incumbent of its time; negative is better."""

    experiment: int
    researcher: str
    predicted: float
    outcome: float
    """The measured difference: not the cautious estimate, and with fresh seeds where there were more trials."""


@dataclass(frozen=True)
class PredictionScore:
    """Score of one researcher's predictions. Errors are in bits per byte."""

    researcher: str
    count: int
    right_sign: float
    """Share of predictions whose sign came true, 0 to 1."""
    error: float
    """Mean absolute error."""
    error_of_zero: float
    """Mean absolute error of always predicting "no change". Predictions with a lower error are worth something."""
    bias: float
    """Mean of outcome less prediction; above 0, the predictions were too hopeful."""
    rank_correlation: float | None
    """Spearman's rank correlation: is the bigger promise the bigger gain? None below three predictions or where all are
    equal."""


def predictions_of(decided: Iterable[ExperimentRow]) -> list[Prediction]:
    """List every experiment with a prediction and a result, in order."""
    found = []
    for row in decided:
        outcome = row.change
        if row.number and row.predicted_delta is not None and is_number(outcome):
            found.append(Prediction(row.number, row.researcher, row.predicted_delta, outcome))
    return found


def scores(predictions: Sequence[Prediction]) -> list[PredictionScore]:
    """Score every researcher, the one with the most predictions first."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for one in predictions:
        groups[one.researcher].append(one)
    return sorted((score(name, some) for name, some in groups.items()), key=lambda one: (-one.count, one.researcher))


def score(researcher: str, some: Sequence[Prediction]) -> PredictionScore:
    """Score at least one prediction."""
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
    """Compute the rank correlation with ties at their mean rank; None where it is not defined."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return correlation(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    # statistics.correlation(method="ranked") does this too, but only from Python 3.12 on.
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
