"""A run's history as arrays: which points of the search space were measured, and with which result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoresearch.agent.syntax.constant_priors import footprint, idle_constants
from autoresearch.agent.syntax.constants import constants_of, numbers_of
from autoresearch.agent.syntax.source_keys import structure_key
from autoresearch.agent.tuner.space import Dimension
from autoresearch.core.proposal import Attempt, History


@dataclass(frozen=True)
class Observations:
    """Every attempt of a run as a point, whoever proposed it.

    An experiment in flight counts as a middling result until there is a real one (a constant liar, Ginsbourger et al.
    2010), so that proposals made at the same time differ.
    """

    points: np.ndarray
    """float64 (N, D), coordinates 0..1; experiments in flight come last."""
    groups: np.ndarray
    """int (N,): attempts of one number differ only in numeric constants. The incumbent's is 0."""
    values: np.ndarray
    """float64 (N,): bits per byte; an attempt that failed counts as worse than any that did not.

    An attempt that was stopped early is censored: all that is known is that it would not have been better than the
    best, so it counts as its prediction, and never as better than a middling result.
    """
    incumbent: np.ndarray
    """float64 (D,), coordinates of the incumbent."""
    measured: int
    """Number of attempts with a score."""
    present: np.ndarray
    """bool (N, D): True where the attempt's file has the constant and something reads it."""


def score(attempt: Attempt) -> float | None:
    """Return the attempt's value for the search in bits per byte, or None when it has none."""
    value = attempt.estimate if attempt.estimate is not None else attempt.val_bpb
    if attempt.status not in ("keep", "discard") or value is None or not math.isfinite(value):
        return None
    return value


def _censored(attempt: Attempt, usual: float, worst: float) -> float:
    """Return the value of an attempt without a score: a stopped one's prediction, `worst` for one that failed."""
    predicted = attempt.metrics.get("predicted_bpb")
    if attempt.status != "stopped" or not isinstance(predicted, int | float) or not math.isfinite(predicted):
        return worst
    return max(float(predicted), usual)


def observe(history: History, dimensions: Sequence[Dimension]) -> Observations:
    """Place every attempt in the space of these dimensions, whoever proposed it.

    A constant that an attempt does not have is taken to stand where the incumbent has it, and marked as not present.
    """
    incumbent = _coordinates(history.incumbent.source, dimensions, np.full(len(dimensions), 0.5))
    attempts = history.attempts or (history.incumbent,)
    sources = [*(one.source for one in attempts), *(one.source for one in history.in_flight)]
    points = np.array([_coordinates(source, dimensions, incumbent) for source in sources])
    points = points.reshape(len(sources), len(dimensions))
    names = {structure_key(history.incumbent.source): 0}
    groups = np.array([names.setdefault(structure_key(source), len(names)) for source in sources])
    scores = [score(attempt) for attempt in attempts]
    known = [value for value in scores if value is not None]
    # A far miss teaches no more than a miss does, and would flatten the differences between good results.
    usual = float(np.median(known)) if known else 0.0
    reach = max(usual - min(known, default=0.0), 1e-3 * abs(usual), 1e-6)
    worst = usual + 2 * reach
    told = [
        min(_censored(attempt, usual, worst) if value is None else value, worst)
        for attempt, value in zip(attempts, scores, strict=True)
    ]
    values = np.array([*told, *[usual] * len(history.in_flight)])
    present = np.array([_present(source, dimensions) for source in sources], dtype=bool).reshape(points.shape)
    return Observations(points, groups, values, incumbent, len(known), present)


def _present(source: str, dimensions: Sequence[Dimension]) -> list[bool]:
    constants = constants_of(source)
    idle = idle_constants(constants)
    return [dimension.name in constants and dimension.name not in idle for dimension in dimensions]


def _coordinates(source: str, dimensions: Sequence[Dimension], default: np.ndarray) -> np.ndarray:
    values = numbers_of(source)
    return np.array(
        [
            dimension.coordinate(values[dimension.name]) if dimension.name in values else float(default[i])
            for i, dimension in enumerate(dimensions)
        ]
    )


def footprint_ceiling(history: History) -> float:
    """Find the smallest footprint that failed after growing; infinity while none has.

    A larger file may not fit the device either, so it is not tried.
    """
    sources = {attempt.experiment: attempt.source for attempt in history.attempts}
    ceiling = math.inf
    for attempt in history.attempts:
        parent = sources.get(attempt.parent)
        if attempt.status not in ("crash", "timeout") or parent is None:
            continue
        size, before = (footprint(numbers_of(source)) for source in (attempt.source, parent))
        if size > before:
            ceiling = min(ceiling, size)
    return ceiling
