"""What a difference of two means says about the truth: probability of improvement, and a shrunken estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

SLAB = ((0.5, 0.5), (0.3, 2.0), (0.2, 10.0))
"""Prior on effect sizes: (weight, scale in sigmas) of normals centred at zero. Most edits do next to nothing, a few do
a lot; a mixture shrinks the first kind and leaves the second alone (adaptive shrinkage: Stephens 2017, "False
discovery rates: a new deal", Biostatistics 18(2))."""


@dataclass(frozen=True)
class Belief:
    """About a true difference, candidate minus incumbent: negative is better."""

    better: float
    """Probability that the difference is below `margin`, by the data alone (flat prior)."""
    shrunken: float
    """Posterior mean of the difference under SLAB, in bits per byte."""
    standard_error: float
    """Of the measured difference, widened for what is not known of sigma."""


def believe(difference: float, sigma: float, dof: float, n_candidate: float, n_incumbent: float) -> Belief:
    """From a measured difference of two means. `n_*` are (effective) numbers of trials, `dof` of the sigma."""
    error = sigma * math.sqrt(1.0 / n_candidate + 1.0 / n_incumbent)
    z = normal_score(difference / error, dof)
    widened = error if z == 0.0 else difference / z
    return Belief(normal_cdf(-z), shrink(difference, widened, sigma), widened)


def better_than(margin: float, difference: float, error: float, dof: float) -> float:
    """Probability that the true difference is below `margin`."""
    return normal_cdf(-normal_score((difference - margin) / error, dof))


def shrink(difference: float, error: float, sigma: float) -> float:
    """Posterior mean of the true difference: each normal of SLAB is conjugate, weighed by how well it predicts."""
    total, mean = 0.0, 0.0
    for weight, scale in SLAB:
        prior = (scale * sigma) ** 2
        spread = prior + error**2
        likelihood = weight * math.exp(-0.5 * difference**2 / spread) / math.sqrt(spread)
        total += likelihood
        mean += likelihood * difference * prior / spread
    # So far out that every likelihood is 0.0, the widest normal has the say.
    return mean / total if total > 0.0 else difference


def normal_cdf(z: float) -> float:
    """Standard normal distribution function."""
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def normal_score(t: float, dof: float) -> float:
    """The z with nearly the same tail as Student's t with `dof` degrees of freedom (Wallace 1959)."""
    scale = (8.0 * dof + 1.0) / (8.0 * dof + 3.0)
    return math.copysign(scale * math.sqrt(dof * math.log1p(t * t / dof)), t)
