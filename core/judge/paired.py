"""Comparing two sources by trials that share seeds: how alike such trials are, and the difference of two sources.

Trials of one seed begin with the same draw of the weights and read the text in the same order, so that

    val_bpb(source, seed) = source + seed + rest,

and the part of the seed falls out of a difference at one seed. The paired noise, the standard deviation of such a
difference, is learnt in the run. The difference of two sources is estimated by generalised least squares, which weighs
trials at shared seeds and at others as the two variances ask for (Searle, Casella, McCulloch 1992, "Variance
components", chapter 6).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoresearch.core.judge.noise import GRID, Noise, doubted, weigh

NULL = ((0.6, 0.3), (0.25, 1.5), (0.15, 6.0))
"""Assumed true differences of candidates: (weight, scale in paired noises) of normals centred at zero."""
INTERACTION = 0.3
"""Standard deviation of a change's true difference from seed to seed, as a share of its size. A large gain is large by
other amounts at other seeds, which says little of the noise of changes that do nothing."""
GROUP_WEIGHT = 0.5
"""Weight of one candidate's likelihood. Candidates are compared with the same trials of the incumbent, so that about
half of the variance of their differences is common to them and tells the same thing again and again (a composite
likelihood: Varin, Reid, Firth 2011, Statistica Sinica 21)."""


@dataclass(frozen=True)
class Raced:
    """Paired differences of one candidate to its incumbent, in bits per byte, in the order in which they came."""

    differences: tuple[float, ...]
    cut: float | None = None
    """The first difference led to more trials because it was below this; None where it did not matter."""


@dataclass(frozen=True)
class PairedNoise:
    """Standard deviation of the difference of two sources at one seed, in bits per byte, and how well it is known."""

    sigma: float
    dof: float
    """Degrees of freedom, the prior's included."""
    pairs: int
    """Number of candidates of this run that it was learnt from."""


def estimate_paired(raced: Sequence[Raced], noise: Noise, ratio: float) -> PairedNoise:
    """Learn the paired noise from candidates that were measured at several seeds.

    `ratio` is the paired noise expected before the run has any, in units of the noise between seeds.

    A candidate goes on to further seeds because its first difference is low, so differences of the first to the
    others are too large by selection. The likelihood holds for that: true differences are drawn from NULL, and the
    first difference is conditioned on being below its cut.
    """
    return _estimate_paired(tuple(one for one in raced if len(one.differences) > 1), ratio * noise.sigma)


@functools.lru_cache(maxsize=512)
def _estimate_paired(raced: tuple[Raced, ...], expected: float) -> PairedNoise:
    # The expectation hangs on the noise between seeds, so that a run on text or hardware with ten times the noise needs
    # no constants of its own.
    found = np.zeros_like(GRID)
    for one in raced:
        found = found + GROUP_WEIGHT * _log_likelihood(one, expected)
    sigma, dof = weigh(found, expected)
    return PairedNoise(sigma, dof, len(raced))


# Every new pair asks for the likelihoods of all pairs before it, and most often at the same expectation.
@functools.lru_cache(maxsize=512)
def _log_likelihood(one: Raced, expected: float) -> np.ndarray:
    """Return the log density of one candidate's differences for every paired noise of `expected` times GRID."""
    sigma = expected * GRID
    d = np.asarray(one.differences)
    m, mean = len(d), float(d.mean())
    within = float(((d - mean) ** 2).sum())
    logs, chance = [], np.zeros_like(sigma)
    for weight, scale in NULL:
        # Variances in units of sigma^2: of one difference about its candidate's true one, and m times that of the mean,
        # since all differences of a candidate share its true one.
        own = 1.0 + (INTERACTION * scale) ** 2
        wide = own + m * scale**2
        # The joint density of m normals with a common normal mean, in closed form: the deviations from the mean have m
        # - 1 degrees of freedom, the mean has variance sigma^2 wide / m. Constant factors cancel in `weigh`.
        factor = weight / math.sqrt(wide * own ** (m - 1))
        logs.append(math.log(factor) - 0.5 * (within / own + m * mean**2 / wide) / sigma**2 - m * np.log(sigma))
        if one.cut is not None:
            # A candidate that was raced was below its cut, whatever a record says: the impossible would weigh most.
            low = max(one.cut, one.differences[0]) / (sigma * math.sqrt(own + scale**2))
            # The normal distribution function, by the error function of the standard library: numpy has none.
            chance += weight * 0.5 * np.fromiter(map(math.erfc, (low / -math.sqrt(2.0)).tolist()), float, len(low))
    # In logarithms: of a difference far off, every density is zero in a float, and a sigma would follow from the cut.
    found = np.logaddexp.reduce(logs)
    if one.cut is not None:
        found -= np.log(np.maximum(chance, 1e-300))
    found = doubted(found)
    found.flags.writeable = False
    return found


@dataclass(frozen=True)
class Difference:
    """A measured difference, candidate minus incumbent, in bits per byte; negative is better."""

    value: float
    error: float
    """Its standard error."""
    dof: float
    """Degrees of freedom of that error (Satterthwaite 1946)."""


Trials = Sequence[tuple[int, float]]
"""Seed and val_bpb of each trial."""


def compare(candidate: Trials, incumbent: Trials, noise: Noise, paired: PairedNoise) -> Difference:
    """Estimate the difference of two sources by generalised least squares. Both need at least one trial.

    The variance of the rest is half of that of a paired difference; the seed has what the noise between seeds has
    more than that. Repeats of one source at one seed are taken as two measurements of the same seed.
    """
    if not candidate or not incumbent:
        raise ValueError("a comparison needs a trial of each source")
    rest = 0.5 * paired.sigma**2
    seed = max(0.0, noise.sigma**2 - rest)
    # Number and sum of each source's trials at each seed: the incumbent's, then the candidate's.
    groups: dict[int, list[float]] = {}
    for at, trials in ((2, candidate), (0, incumbent)):
        for number, value in trials:
            group = groups.setdefault(number, [0.0, 0.0, 0.0, 0.0])
            group[at] += 1.0
            group[at + 1] += value
    # Trials of one seed have the covariance rest I + seed J, whose inverse is (I - k J) / rest with the k below.
    # The coefficients are the level and the difference: the normal equations are two by two.
    one = both = own = 0.0
    shares = []
    for theirs, _, mine, _ in groups.values():
        n = theirs + mine
        k = seed / (rest + n * seed)
        shares.append((1.0 - k * n, k * mine))
        one += n - k * n * n
        both += mine - k * n * mine
        own += mine - k * mine * mine
    # The determinant of the normal equations. It is positive as soon as both sources have a trial: then the two columns
    # are not proportional.
    scale = one * own - both * both
    value = by_rest = by_seed = 0.0
    for (theirs, their_sum, mine, my_sum), (level, taken) in zip(groups.values(), shares, strict=True):
        weight, my_weight = (-one * taken - both * level) / scale, (one - one * taken - both * level) / scale
        value += weight * their_sum + my_weight * my_sum
        by_rest += rest * (theirs * weight * weight + mine * my_weight * my_weight)
        by_seed += seed * (theirs * weight + mine * my_weight) ** 2
    variance = by_rest + by_seed
    # Two variances, each known only so well, are added: Satterthwaite's formula gives the degrees of freedom of the
    # sum. Where all trials are paired, the seeds' part is 0 and the paired noise's own remain.
    dof = variance**2 / (by_rest**2 / paired.dof + by_seed**2 / noise.dof)
    return Difference(value, math.sqrt(variance), dof)
