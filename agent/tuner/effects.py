"""The effects of the constants, learned from a run's trials: which matter, and where the best values seem to be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from autoresearch.agent.syntax.constants import Number, numbers_of
from autoresearch.agent.tuner.numeric import fit_surrogate
from autoresearch.agent.tuner.observations import observe
from autoresearch.agent.tuner.space import space_of
from autoresearch.core.proposal import History

LEAST = 5
"""Least number of scores for any estimate."""
_GRID = 21
"""Points of a constant's tried range at which the fitted process is evaluated."""


@dataclass(frozen=True)
class ConstantEffect:
    """The effect of one constant, all others as in the incumbent."""

    name: str
    now: Number
    best: Number
    """Value at which the fitted process is lowest, within the tried range."""
    delta: float
    """Difference of the process there from the incumbent's value, in bpb; 0 or less."""
    deviation: float
    """Standard deviation of the process there, in bpb."""
    importance: float
    """Share of the range that all varied constants move the score by, 0..1."""
    low: Number
    high: Number
    """Ends of the tried range."""

    def __str__(self) -> str:
        where = "the incumbent's value is the best known" if self.best == self.now else f"best near {self.best}"
        gain = "" if self.best == self.now else f" ({self.delta:+.4f} bpb, give or take {self.deviation:.4f})"
        tried = f"tried {self.low} to {self.high}"
        return f"{self.name} = {self.now}: {where}{gain}; importance {self.importance:.0%}; {tried}"


def constant_effects(history: History) -> tuple[ConstantEffect, ...]:
    """Estimate the effect of every constant that was varied, the most important first.

    Empty while too little is known.
    """
    dimensions = space_of(history)
    if not dimensions:
        return ()
    seen, now = observe(history, dimensions), numbers_of(history.incumbent.source)
    varied = np.flatnonzero(np.ptp(seen.points, axis=0) > 0)
    if seen.measured < LEAST or not len(varied):
        return ()
    model, found = fit_surrogate(seen, dimensions), []
    for i in varied:
        tried = seen.points[:, i]
        grid = np.unique([*np.linspace(tried.min(), tried.max(), _GRID), seen.incumbent[i]])
        points = np.repeat(seen.incumbent[None, :], len(grid), axis=0)
        points[:, i] = grid
        mean, deviation = model.predict(points, group=0)
        at, here = int(mean.argmin()), int(np.flatnonzero(grid == seen.incumbent[i])[0])
        dimension = dimensions[i]
        value = now[dimension.name] if at == here else dimension.value(float(grid[at]))
        low, high = dimension.value(float(tried.min())), dimension.value(float(tried.max()))
        effect = ConstantEffect(
            name=dimension.name,
            now=now[dimension.name],
            best=value,
            delta=float(mean[at] - mean[here]),
            deviation=float(deviation[at]),
            importance=float(np.ptp(mean)),
            low=low,
            high=high,
        )
        found.append(effect)
    total = sum(one.importance for one in found) or 1.0
    ranked = sorted(found, key=lambda one: -one.importance)
    return tuple(replace(one, importance=one.importance / total) for one in ranked)
