"""A run's history as numbers: what was measured where in the search space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoresearch.agent.constants import Constant, read_constants
from autoresearch.agent.space import Dimension, Number, footprint
from autoresearch.agent.tried import structure_key
from autoresearch.core.proposal import Attempt, History


@dataclass(frozen=True)
class Observations:
    """Every attempt of a run as a point, whoever proposed it."""

    points: np.ndarray
    """float64 (N, D), coordinates 0..1."""
    groups: np.ndarray
    """int (N,): attempts of one number differ only in numeric constants. The incumbent's is 0."""
    values: np.ndarray
    """float64 (N,): bits per byte; an attempt that failed counts as worse than any that did not."""
    incumbent: np.ndarray
    """float64 (D,)."""
    measured: int
    """How many of the attempts have a score."""


def numbers(constants: dict[str, Constant]) -> dict[str, Number]:
    """The numeric ones among these constants."""
    return {
        name: constant.value
        for name, constant in constants.items()
        if isinstance(constant.value, int | float) and not isinstance(constant.value, bool)
    }


def score(attempt: Attempt) -> float | None:
    """The attempt's value for the search, or None when it has none."""
    value = attempt.estimate if attempt.estimate is not None else attempt.val_bpb
    if attempt.status not in ("keep", "discard") or value is None or not math.isfinite(value):
        return None
    return value


def observe(history: History, dimensions: Sequence[Dimension]) -> Observations:
    """Place every attempt in the space of these dimensions.

    A constant that an attempt does not have is taken to stand where the incumbent has it.
    """
    incumbent = _coordinates(history.incumbent.source, dimensions, np.full(len(dimensions), 0.5))
    attempts = history.attempts or (history.incumbent,)
    points = np.array([_coordinates(attempt.source, dimensions, incumbent) for attempt in attempts])
    names = {structure_key(history.incumbent.source): 0}
    groups = np.array([names.setdefault(structure_key(attempt.source), len(names)) for attempt in attempts])
    scores = [score(attempt) for attempt in attempts]
    known = [value for value in scores if value is not None]
    # Far misses say no more than misses do, and would flatten what lies among the good ones.
    usual = float(np.median(known)) if known else 0.0
    reach = max(usual - min(known, default=0.0), 1e-3 * abs(usual), 1e-6)
    worst = usual + 2 * reach
    values = np.array([worst if value is None else min(value, worst) for value in scores])
    return Observations(points.reshape(len(attempts), len(dimensions)), groups, values, incumbent, len(known))


def _coordinates(source: str, dimensions: Sequence[Dimension], default: np.ndarray) -> np.ndarray:
    values = numbers(read_constants(source))
    return np.array(
        [
            dimension.coordinate(values[dimension.name]) if dimension.name in values else float(default[i])
            for i, dimension in enumerate(dimensions)
        ]
    )


def footprint_ceiling(history: History) -> float:
    """The smallest footprint that failed after growing: what may not fit is not tried again."""
    sources = {attempt.experiment: attempt.source for attempt in history.attempts}
    ceiling = math.inf
    for attempt in history.attempts:
        parent = sources.get(attempt.parent)
        if attempt.status not in ("crash", "timeout") or parent is None:
            continue
        size, before = (footprint(numbers(read_constants(source))) for source in (attempt.source, parent))
        if size > before:
            ceiling = min(ceiling, size)
    return ceiling
