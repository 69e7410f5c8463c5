"""Predicted changes against what came out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoresearch.core.report.trial_events import is_number
from autoresearch.core.store.rows import ExperimentRow


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
