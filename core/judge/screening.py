"""Short trials as screens, on plain numbers: the short difference above which a change is let go.

A change is first trained for a fraction of the budget, beside the incumbent at the same seed and for the same time. A
short trial says something about the full one, and how much is measured: by the rank correlation of the differences of
changes that had both. Ranks, because a schedule that ends early stretches differences by a factor that nobody knows.

The cut follows from a bound on what is lost. Short and full differences are taken as a Gaussian copula (Kruskal 1958,
"Ordinal measures of association", JASA 53: the correlation of normal scores is 2 sin(pi rho / 6) for Spearman's rho).
Of the changes that would look good after a full trial, the share that lies above the cut is LOSS:

    P(short > cut | full is good) = LOSS.

A low correlation puts the cut so high that only what is far off is let go, a high one close to the incumbent's own
score. It is never below that: a change that looks better is never let go.

Most changes that are let go have no full trial, so a share of them, drawn at random, is measured in full all the same.
They stand for the others, by the inverse of their chance (Horvitz and Thompson 1952, JASA 47).
"""

from __future__ import annotations

import functools
import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoresearch.core.judge.posterior import normal_cdf

LOSS = 0.1
"""Largest share of the changes that would look good after a full trial, and are let go."""
PRIOR_RANK, PRIOR_PAIRS = 0.6, 6.0
"""Rank correlation expected before the run has measured any, and the number of changes that it is worth."""
CAUTION = 1.0
"""Standard deviations by which the correlation that is believed lies below the likeliest one."""
GOOD, GOOD_PRIOR, ALL_PRIOR = 1.0, 2.0, 10.0
"""Paired noises by which a full trial has to be below the incumbent's to look good, and the share of changes expected
to: so many of so many."""
EXPECTED_SPREAD, EXPECTED_POINTS = 3.0, 9
"""Standard deviation of short differences expected before the run has any, in paired noises, and their weight in
changes."""
LATEST = 60
"""Number of the latest changes that the cut is learnt from."""
FIRST_SHARE, FIRST_MEASURED, SHARE = 1 / 3, 6, 1 / 8
"""Share of the changes to let go that are measured in full all the same: the first until so many are, then the last."""
FEWEST = 4
"""Fewest changes measured both ways for which a rank correlation is told."""


@dataclass(frozen=True)
class Pair:
    """A change measured both ways: differences from the incumbent in bits per byte; negative is better."""

    short: float
    full: float
    weight: float = 1.0
    """Number of changes that it stands for: the inverse of its chance to be measured in full."""


@dataclass(frozen=True)
class Agreement:
    """A measure of how well short trials of a run tell the order of full ones."""

    rank: float | None
    """Measured rank correlation (Spearman), each change by its weight; None with less than FEWEST."""
    pairs: int
    """Number of changes measured both ways."""
    believed: float
    """Correlation of normal scores that the cut rests on: cautious, with the prior."""

    def describe(self) -> str:
        """Say it for people."""
        changes = f"{self.pairs} change{'' if self.pairs == 1 else 's'} measured both ways"
        if self.rank is None:
            return f"no rank correlation of short and full trials yet ({changes})"
        return f"rank correlation of short and full trials {self.rank:.2f} ({changes})"


def rank_correlation(pairs: Sequence[Pair]) -> float | None:
    """Return Spearman's correlation with weights; None with less than FEWEST changes, or one side all equal."""
    if len(pairs) < FEWEST:
        return None
    weights = np.array([one.weight for one in pairs])
    sides = [_ranks(np.array(some), weights) for some in ([p.short for p in pairs], [p.full for p in pairs])]
    one, two = (side - np.average(side, weights=weights) for side in sides)
    scale = math.sqrt(float((weights * one * one).sum() * (weights * two * two).sum()))
    return float((weights * one * two).sum()) / scale if scale > 0.0 else None


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of the weight below each value, and half of what is equal to it."""
    below = (values[None, :] < values[:, None]) @ weights
    equal = (values[None, :] == values[:, None]) @ weights
    return np.asarray(below + 0.5 * equal)


def agreement(pairs: Sequence[Pair], expected: float = PRIOR_RANK) -> Agreement:
    """Learn from the latest changes that were measured both ways, and the prior, whose correlation is `expected`."""
    latest = pairs[-LATEST:]
    rank = rank_correlation(latest)
    precision, mean = PRIOR_PAIRS, math.atanh(_normal_scores(expected))
    if rank is not None:
        total = sum(one.weight for one in latest)
        effective = total**2 / sum(one.weight**2 for one in latest)
        # The variance of Fisher's z of a rank correlation: Fieller, Hartley, Pearson 1957, Biometrika 44.
        own = max(0.0, effective - 3.0) / 1.06
        mean = (precision * mean + own * math.atanh(_normal_scores(rank))) / (precision + own)
        precision += own
    return Agreement(rank, len(latest), max(0.0, math.tanh(mean - CAUTION / math.sqrt(precision))))


def _normal_scores(rank: float) -> float:
    return min(0.99, max(-0.99, 2.0 * math.sin(math.pi * rank / 6.0)))


def cut(shorts: Sequence[float], pairs: Sequence[Pair], believed: float, sigma: float) -> float:
    """Return the short difference above which a change is let go, in bits per byte; 0 at least.

    `shorts` are the short differences of the run's changes, those that were let go included; `sigma` is the paired
    noise; `believed` is the agreement's.
    """
    latest = pairs[-LATEST:]
    good = sum(one.weight for one in latest if one.full < -GOOD * sigma)
    share = (GOOD_PRIOR + good) / (ALL_PRIOR + sum(one.weight for one in latest))
    level = normal_cdf(_cut_score(round(believed, 2), round(min(0.5, max(0.02, share)), 2)))
    inner = [(i + 0.5) / EXPECTED_POINTS for i in range(EXPECTED_POINTS)]
    expected = [EXPECTED_SPREAD * sigma * statistics.NormalDist().inv_cdf(one) for one in inner]
    return max(0.0, float(np.quantile([*shorts[-LATEST:], *expected], level)))


@functools.lru_cache(maxsize=256)
def _cut_score(correlation: float, share: float) -> float:
    """Return the normal score of the short difference above which LOSS of the best `share` by full trials lie."""
    worst = statistics.NormalDist().inv_cdf(share)
    grid = np.linspace(-6.0, worst, 200)
    weights = np.exp(-0.5 * grid**2)
    weights = weights / weights.sum()
    spread = math.sqrt(1.0 - min(0.99, correlation) ** 2)
    low, high = -6.0, 6.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        lost = sum(
            float(weight) * normal_cdf((correlation * float(z) - middle) / spread)
            for z, weight in zip(grid, weights, strict=True)
        )
        low, high = (middle, high) if lost > LOSS else (low, middle)
    return high


def measured_anyway(seed: int, experiment: int, measured: int) -> tuple[bool, float]:
    """Draw whether a change that could be let go is measured in full all the same; return it with its chance.

    `measured` counts those of the run so far. The draw follows from the run's seed and the experiment's number, so a
    resumed run draws the same, and nothing that the train file says has a part in it.
    """
    share = FIRST_SHARE if measured < FIRST_MEASURED else SHARE
    digest = hashlib.sha256(f"measured anyway {seed} {experiment}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share, share
