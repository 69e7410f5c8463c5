"""The noise: how much trials of one source differ between seeds, estimated from all repeats of the run and a prior."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoresearch.core.judge.posterior import Z_95

PRIOR = ((0.9, 0.4), (0.1, 1.2))
"""Prior of a sigma's logarithm: (weight, standard deviation) of normals about the expected one. The narrow one is worth
about three degrees of freedom; the wide one lets a few repeats overrule an expectation that is far off."""
GRID = np.geomspace(1.0 / 60.0, 3000.0, 249)
"""Values of a sigma that are weighed, in units of the expected one. Far up, because a baseline of which one trial
diverges varies by half of its score: a sigma that lay beyond the end would be taken for the end, and for certain."""
DOUBT = 5.0
"""Logarithm of the largest factor by which the trials of one changed file may tell for one sigma against another. A
file that falls apart at one seed says nothing of what others do."""
MIN_SPLIT_DOF = 4.0
"""Least degrees of freedom from which the noise is split into its two parts."""


@dataclass(frozen=True)
class Prior:
    """The noise expected before the run has repeats."""

    relative: float
    """Sigma as a share of val_bpb."""
    source: str
    """Origin of the figure, in words."""
    paired: float = 1.1
    """Paired noise (see `paired`) in units of sigma. Two trials that share nothing would give 1.41."""


PUBLIC = Prior(0.0009, "public repeats of larger models: 0.0006 to 0.002 bpb, about 0.0009 in the geometric mean")
DEMO = Prior(0.015, "short trials on a CPU that does other work too")
CPU = replace(DEMO, paired=0.7)
"""After a minute of training, 46 changes at one seed differed by 0.6 sigmas, their effects included (docs/night.md)."""
PRIORS = {"demo": DEMO, "cpu": CPU}
"""Priors of presets; every other preset has PUBLIC."""


@dataclass(frozen=True)
class Repeat:
    """One trial of a source that has more than one."""

    val_bpb: float
    tokens: int | None = None


@dataclass(frozen=True)
class Noise:
    """Standard deviation of val_bpb between trials of one source, and how well it is known. Sigmas in bits per byte."""

    sigma: float
    dof: float
    """Degrees of freedom, the prior's included."""
    repeats: int
    """Degrees of freedom from this run's own repeats."""
    source: str
    training: float | None = None
    """Part that would remain if every trial saw equally many tokens; None with too few repeats."""
    throughput: float | None = None
    """Part explained by the number of tokens that a trial saw; None with too few repeats."""

    @property
    def interval(self) -> tuple[float, float]:
        """Return an interval that holds sigma with about 95 %: the same factor up and down."""
        # What `dof` is taken from: the logarithm's variance is 1 / (2 dof). Quantiles of chi-square have no sense below
        # two degrees of freedom, which is what the first repeat gives.
        factor = math.exp(Z_95 * math.sqrt(0.5 / self.dof))
        return self.sigma / factor, self.sigma * factor

    def describe(self) -> str:
        """Describe the noise in one line for people."""
        low, high = self.interval
        text = f"noise (1 sigma) {self.sigma:.5f} bpb, 95 % {low:.5f} to {high:.5f}, from {self.source}"
        if self.training is not None and self.throughput is not None:
            text += f"; training {self.training:.5f}, throughput {self.throughput:.5f}"
        return text


def weigh(log_likelihood: np.ndarray, expected: float) -> tuple[float, float]:
    """Return a sigma and its degrees of freedom from the log likelihood of every value of `expected` times GRID.

    The prior is PRIOR about `expected`. The logarithm of a standard deviation with n degrees of
    freedom has a variance of about 1 / (2 n).
    """
    # In logarithms, because an expectation may be wrong by a factor in either direction. The grid is even in them, so
    # sums over it are integrals without further weights.
    logs, prior = _prior()
    # The largest is subtracted first: likelihoods of many trials underflow.
    weights = prior * np.exp(log_likelihood - log_likelihood.max())
    weights /= weights.sum()
    mean = float(weights @ logs)
    # All weight can lie on one value, where a trial's score is absurd: more than the grid's step nobody knows then.
    spread = max(float(weights @ (logs - mean) ** 2), float(logs[1] - logs[0]) ** 2 / 12.0)
    return expected * math.exp(mean), max(1.0, 0.5 / spread)


@functools.cache
def _prior() -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of GRID and the density of PRIOR there, up to a factor."""
    logs = np.log(GRID)
    return logs, np.sum([weight / spread * np.exp(-0.5 * (logs / spread) ** 2) for weight, spread in PRIOR], axis=0)


def estimate_noise(groups: Iterable[Sequence[Repeat]], prior: Prior, level: float) -> Noise:
    """Estimate the noise from groups of trials, each of one source, and the prior; `level` is a typical val_bpb.

    Deviations from each group's mean are normal with the same sigma in every group. The first group is the baseline's,
    whom nobody proposed; what any other group may tell is limited (`doubted`).
    """
    every = list(groups)
    kept = [group for group in every if len(group) > 1]
    own = sum(len(group) - 1 for group in kept)
    expected = prior.relative * abs(level)
    found = np.zeros_like(GRID)
    for at, group in enumerate(every):
        # The log likelihood of a sigma after n squares about the group's mean, up to a constant: -n ln(sigma) - squares
        # / (2 sigma^2).
        one = -(len(group) - 1) * _prior()[0] - 0.5 * _squares(group) / (expected * GRID) ** 2
        if len(group) > 1:
            found = found + (doubted(one) if at else one)
    sigma, dof = weigh(found, expected)
    source = (
        f"{own} own repeat{'' if own == 1 else 's'} and a prior ({prior.source})"
        if own
        else f"a prior ({prior.source})"
    )
    training, throughput = _split(kept, own)
    return Noise(sigma, dof, own, source, training, throughput)


def doubted(log_likelihood: np.ndarray) -> np.ndarray:
    """Return a log likelihood less its highest value, and nowhere more than DOUBT below it."""
    # Subtracted first: beside the logarithms of an absurd score, those of all others would be rounded away.
    return np.asarray(np.logaddexp(log_likelihood - log_likelihood.max(), -DOUBT))


def _squares(group: Sequence[Repeat]) -> float:
    """Return the sum of squares about the group's own mean."""
    mean = sum(one.val_bpb for one in group) / max(1, len(group))
    return sum((one.val_bpb - mean) ** 2 for one in group)


def _split(groups: Sequence[Sequence[Repeat]], own: int) -> tuple[float | None, float | None]:
    """Split sigma into (training, throughput) by regressing val_bpb on log tokens within each group.

    The residual is the training noise; (None, None) with too few repeats or without token counts.
    """
    if own < MIN_SPLIT_DOF or any(one.tokens is None or one.tokens <= 0 for group in groups for one in group):
        return None, None
    xx = xy = yy = 0.0
    for group in groups:
        x = [math.log(one.tokens or 1) for one in group]
        mean_x = sum(x) / len(x)
        mean_y = sum(one.val_bpb for one in group) / len(group)
        for value, one in zip(x, group, strict=True):
            xx += (value - mean_x) ** 2
            xy += (value - mean_x) * (one.val_bpb - mean_y)
            yy += (one.val_bpb - mean_y) ** 2
    explained = xy * xy / xx if xx > 0.0 else 0.0
    return math.sqrt(max(0.0, yy - explained) / (own - 1)), math.sqrt(explained / own)
