"""The belief about a true difference after measuring it: probability of improvement, and a cautious estimate."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray)
SLAB = ((0.5, 0.5), (0.3, 2.0), (0.2, 10.0))
"""Prior on effect sizes: (weight, scale in sigmas) of normals centred at zero. Most edits do next to nothing, a few do
a lot. A mixture shrinks the first kind and leaves the second alone (adaptive shrinkage: Stephens 2017, "False
discovery rates: a new deal", Biostatistics 18(2))."""

Z_95 = statistics.NormalDist().inv_cdf(0.975)
"""Half-width of the normal distribution's central 95 %, in standard deviations: 1.96."""


@dataclass(frozen=True)
class Belief:
    """A belief about the true difference, candidate minus incumbent, in bits per byte; negative is better."""

    better: float
    """Probability that the difference is below `margin`, by the data alone (flat prior)."""
    shrunken: float
    """Cautious estimate: posterior mean of the difference under SLAB."""
    standard_error: float
    """Standard error of the measured difference, widened for the uncertainty of sigma."""


def believe(difference: float, error: float, dof: float, sigma: float) -> Belief:
    """Form a belief from a measured difference of two means.

    `error` is its standard error with `dof` degrees of freedom; `sigma` is the noise that effects are measured by.
    """
    # One error stands for both: a normal with the widened error has the same tail as Student's t with the original one.
    # So the mixture below, which is made of normals, can use it.
    z = normal_score(difference / error, dof)
    widened = error if z == 0.0 else difference / z
    return Belief(normal_cdf(-z), shrink(difference, widened, sigma), widened)


def better_than(margin: float, difference: float, error: float, dof: float) -> float:
    """Return the probability that the true difference is below `margin`, where `error` is the standard error."""
    return normal_cdf(-normal_score((difference - margin) / error, dof))


def shrink(difference: float, error: float, sigma: float) -> float:
    """Return the posterior mean of the true difference."""
    return moments(difference, error, sigma)[0]


def moments(difference: float, error: float, sigma: float) -> tuple[float, float]:
    """Return the posterior mean and variance of the true difference.

    Each normal of SLAB is conjugate, weighed by its prediction.
    """
    total, mean, square = 0.0, 0.0, 0.0
    for weight, scale in SLAB:
        prior = (scale * sigma) ** 2
        spread = prior + error**2
        likelihood = weight * math.exp(-0.5 * difference**2 / spread) / math.sqrt(spread)
        total += likelihood
        mean += likelihood * difference * prior / spread
        square += likelihood * ((difference * prior / spread) ** 2 + prior * error**2 / spread)
    # Every likelihood is 0.0 only so far out that even the widest normal hardly shrinks.
    if total <= 0.0:
        return difference, error**2
    return mean / total, max(0.0, square / total - (mean / total) ** 2)


def normal_cdf(z: float) -> float:
    """Return the standard normal distribution function at z."""
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def t_scale(dof: Number) -> Number:
    """Return the factor on the normal score of Student's t, of a number or an array (Wallace 1959)."""
    return (8.0 * dof + 1.0) / (8.0 * dof + 3.0)


def normal_score(t: float, dof: float) -> float:
    """Return the z with nearly the same tail as Student's t with `dof` degrees of freedom (Wallace 1959)."""
    return math.copysign(t_scale(dof) * math.sqrt(dof * math.log1p(t * t / dof)), t)


def t_quantile(z: float, dof: float) -> float:
    """Return the t with the tail of the normal quantile `z`: the inverse of `normal_score`.

    The standard library has no Student's t. Wallace's approximation (1959) is too large by 4 % at two degrees of
    freedom, by 1.1 % at three, by 0.5 % at four.
    """
    return math.sqrt(dof * math.expm1((z / t_scale(dof)) ** 2 / dof))


def chi_square_quantile(z: float, dof: float) -> float:
    """Return the quantile of chi-square at the normal quantile z (Wilson and Hilferty 1931)."""
    part = 2.0 / (9.0 * dof)
    return dof * max(1e-3, 1.0 - part + z * math.sqrt(part)) ** 3
