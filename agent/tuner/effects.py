"""What the trials of a run say of the constants, in words: which matter, and where the best values seem to be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from autoresearch.agent.syntax.constants import read_constants
from autoresearch.agent.tuner.numeric import fit_surrogate
from autoresearch.agent.tuner.observations import numbers, observe
from autoresearch.agent.tuner.space import Number, search_space
from autoresearch.core.proposal import History

LEAST = 5
"""Scores before anything is said."""
_GRID = 21


@dataclass(frozen=True)
class Known:
    """One constant that was varied, all others standing as in the incumbent."""

    name: str
    now: Number
    best: Number
    """Where the fitted process is lowest, within what was tried."""
    delta: float
    """bpb there against the incumbent's value; 0 or less."""
    deviation: float
    """Of the process there, in bpb."""
    importance: float
    """Its share of what all varied constants move, 0..1."""
    low: Number
    high: Number
    """What was tried."""

    def __str__(self) -> str:
        where = "the incumbent's value is the best known" if self.best == self.now else f"best near {self.best}"
        gain = "" if self.best == self.now else f" ({self.delta:+.4f} bpb, give or take {self.deviation:.4f})"
        tried = f"tried {self.low} to {self.high}"
        return f"{self.name} = {self.now}: {where}{gain}; importance {self.importance:.0%}; {tried}"


def surface(history: History) -> tuple[Known, ...]:
    """The constants that were varied, the most important first; empty while too little is known."""
    constants = read_constants(history.incumbent.source)
    start = read_constants(history.attempts[0].source) if history.attempts else constants
    dimensions = search_space(constants, start, history.vocabularies)
    if not dimensions:
        return ()
    seen, now = observe(history, dimensions), numbers(constants)
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
        delta, spread = float(mean[at] - mean[here]), float(deviation[at])
        found.append(Known(dimension.name, now[dimension.name], value, delta, spread, float(np.ptp(mean)), low, high))
    total = sum(one.importance for one in found) or 1.0
    ranked = sorted(found, key=lambda one: -one.importance)
    return tuple(replace(one, importance=one.importance / total) for one in ranked)
