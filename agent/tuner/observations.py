"""A run's history as arrays: which points of the search space were measured, and with which result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoresearch.agent.syntax.constant_priors import footprint, idle_in
from autoresearch.agent.syntax.constants import constants_of, numbers_of
from autoresearch.agent.syntax.source_keys import structure_key
from autoresearch.agent.tuner.space import Dimension
from autoresearch.core.proposal import Attempt, History

FAILED = ("crash", "timeout", "invalid")
"""Verdicts of attempts that ended without a score by a fault of theirs."""


@dataclass(frozen=True)
class Failure:
    """A move of constants that ended in a crash, a timeout or an invalid trial."""

    before: np.ndarray
    """float64 (D,), coordinates of the file that was changed."""
    after: np.ndarray
    """float64 (D,), coordinates of the file that failed."""


@dataclass(frozen=True)
class Observations:
    """Every attempt of a run as a point, whoever proposed it.

    For the samplers an experiment in flight counts as a middling result until there is a real one (a constant liar,
    Ginsbourger et al. 2010); the surrogate takes it for a point that will be known, whatever it shows.
    """

    points: np.ndarray
    """float64 (N, D), coordinates 0..1; experiments in flight come last."""
    groups: np.ndarray
    """int (N,): attempts of one number differ only in numeric constants. The incumbent's is 0."""
    values: np.ndarray
    """float64 (N,): bits per byte, at the level of the incumbent's code.

    An attempt that was stopped early is censored: all that is known is that it would not have been better than the
    best, so it counts as its prediction, and never as better than a middling result.
    """
    incumbent: np.ndarray
    """float64 (D,), coordinates of the incumbent."""
    measured: int
    """Number of attempts with a score."""
    present: np.ndarray
    """bool (N, D): True where the attempt's file has the constant and something reads it."""
    failures: tuple[Failure, ...]
    penalty: float
    """Cost of a failure in bpb."""
    pending: int = 0
    """Number of experiments in flight among the points."""

    def risk(self, points: np.ndarray) -> np.ndarray:
        """Estimate the chance that points (M, D) fail, (M,), from what has failed.

        A failure blames the constants that it moved, all alike, but for those that a success has moved as far. A point
        is suspect as far as it goes the same way.
        """
        fine, ended = np.ones(len(points)), self.points[: len(self.points) - self.pending]
        for failure in self.failures:
            step = failure.after - failure.before
            moved = np.flatnonzero(np.abs(step) > 1e-9)
            if not len(moved):
                continue
            went = (ended[:, moved] - failure.before[moved]) / step[moved]
            blamed = moved[(went < 0.999).all(axis=0)] if len(went) else moved
            blamed = blamed if len(blamed) else moved
            share = np.clip((points[:, blamed] - failure.before[blamed]) / step[blamed], 0.0, 1.0)
            fine *= 1.0 - 0.9 * (share**4).mean(axis=1)
        return 1.0 - fine


def score(attempt: Attempt) -> float | None:
    """Return the attempt's value for the search in bits per byte, or None when it has none."""
    value = attempt.estimate if attempt.estimate is not None else attempt.val_bpb
    if attempt.status not in ("keep", "discard") or value is None or not math.isfinite(value):
        return None
    return value


def _censored(attempt: Attempt, parent: Attempt, usual: float, worst: float) -> float:
    """Return the value of an attempt that was stopped early: its prediction, `worst` where there is none."""
    predicted, before = attempt.metrics.get("predicted_bpb"), score(parent)
    if not isinstance(predicted, int | float) or not math.isfinite(predicted) or before is None:
        return worst
    return max(float(predicted), usual)


def observe(history: History, dimensions: Sequence[Dimension]) -> Observations:
    """Place every attempt in the space of these dimensions, whoever proposed it.

    A value is the incumbent's score plus a difference that was measured against the incumbent of the time, and a change
    of the code counts as none: scores of two programs differ by what their code is worth, which would make any constant
    look good that was first tried late. So attempts that change the code and were not kept are left out. Those that
    failed are too: how bad they are is not known (see `Failure`). A constant that an attempt lacks is taken to stand
    where the incumbent has it, and marked as not present.
    """
    incumbent = _coordinates(history.incumbent.source, dimensions, np.full(len(dimensions), 0.5))
    attempts = history.attempts or (history.incumbent,)
    levels, failures = _levels(attempts), []
    known = {one.experiment: one for one in attempts}
    # A stack under way stands in for the incumbent, whose figures it has: then the level is that of the incumbent.
    best = history.incumbent
    now = levels.get(best.experiment if best.experiment in levels else best.parent) or 0.0
    offset = (score(best) or 0.0) - now
    scored = [offset + level for one in attempts if (level := levels[one.experiment]) is not None]
    # A far miss teaches no more than a miss does, and would flatten the differences between good results.
    usual = float(np.median(scored)) if scored else 0.0
    reach = max(usual - min(scored, default=0.0), 1e-3 * abs(usual), 1e-6)
    worst = usual + 2 * reach
    sources, values = [], []
    for one in attempts:
        level, parent = levels[one.experiment], known.get(one.parent)
        if level is not None:
            values.append(min(offset + level, worst))
        elif one.status == "stopped" and parent is not None and _same_structure(one, parent):
            values.append(min(_censored(one, parent, usual, worst), worst))
        else:
            if one.status in FAILED and parent is not None and _same_structure(one, parent):
                before, after = (_coordinates(each.source, dimensions, incumbent) for each in (parent, one))
                failures.append(Failure(before, after))
            continue
        sources.append(one.source)
    if not sources:  # nothing is measured yet, as where a run only shows what it would do
        sources, values = [history.incumbent.source], [usual]
    sources += [one.source for one in history.in_flight]
    values += [usual] * len(history.in_flight)
    points = np.array([_coordinates(source, dimensions, incumbent) for source in sources])
    points = points.reshape(len(sources), len(dimensions))
    names = {structure_key(history.incumbent.source): 0}
    groups = np.array([names.setdefault(structure_key(source), len(names)) for source in sources], dtype=int)
    present = np.array([_present(source, dimensions) for source in sources], dtype=bool).reshape(points.shape)
    return Observations(
        points,
        groups,
        np.array(values),
        incumbent,
        len(scored),
        present,
        tuple(failures),
        2 * reach,
        len(history.in_flight),
    )


def _same_structure(one: Attempt, other: Attempt) -> bool:
    return structure_key(one.source) == structure_key(other.source)


def _levels(attempts: Sequence[Attempt]) -> dict[int, float | None]:
    """Sum up each attempt's differences from the baseline, those of changes of the code left out.

    None for an attempt without a score, and for a change of the code that was not kept.
    """
    known: dict[int, Attempt] = {}
    levels: dict[int, float | None] = {}
    for one in attempts:
        value, parent = score(one), known.get(one.parent)
        known[one.experiment] = one
        below = None if parent is None else levels.get(parent.experiment)
        if value is None:
            levels[one.experiment] = None
        elif parent is None or below is None:
            levels[one.experiment] = value
        elif _same_structure(one, parent):
            levels[one.experiment] = below + (difference(one, parent) or 0.0)
        else:
            levels[one.experiment] = below if one.status == "keep" else None
    return levels


def difference(attempt: Attempt, parent: Attempt) -> float | None:
    """Return an attempt's score less its parent's, in bpb: paired at equal seeds where that was measured."""
    for found in (attempt.standing, attempt.raw):
        if found is not None and found.against == parent.experiment:
            return found.value
    value, before = score(attempt), score(parent)
    return None if value is None or before is None else value - before


def _present(source: str, dimensions: Sequence[Dimension]) -> list[bool]:
    constants, idle = constants_of(source), idle_in(source)
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
