"""Two samples compared: Welch's interval for the difference of their means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959964


@dataclass(frozen=True)
class Interval:
    """A difference of means, second minus first, with its 95 % interval."""

    difference: float
    low: float
    high: float
    dof: float

    @property
    def verdict(self) -> str:
        """Of lower-is-better values: better, worse, or not certain."""
        if self.high < 0.0:
            return "better"
        return "worse" if self.low > 0.0 else "not certain"


def welch(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Unequal variances allowed (Welch 1947). Needs two values of each; `ValueError` otherwise."""
    if min(len(first), len(second)) < 2:
        raise ValueError("an interval needs two values of each")
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    difference = statistics.fmean(second) - statistics.fmean(first)
    variance = sum(parts)
    if variance == 0.0:
        return Interval(difference, difference, difference, math.inf)
    shares = zip(parts, (first, second), strict=True)
    dof = variance**2 / sum(part**2 / (len(values) - 1) for part, values in shares)
    half = t_quantile(Z_95, dof) * math.sqrt(variance)
    return Interval(difference, difference - half, difference + half, dof)


def t_quantile(z: float, dof: float) -> float:
    """The t with `dof` degrees of freedom that has the tail of the normal quantile z: the inverse of `normal_score`."""
    scale = (8.0 * dof + 1.0) / (8.0 * dof + 3.0)
    return math.sqrt(dof * math.expm1((z / scale) ** 2 / dof))
