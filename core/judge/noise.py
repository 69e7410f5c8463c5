"""How much two trials of the same source differ: calibrated from repeats, and pooled with every later one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PRIOR_DOF = 4.0
"""The prior's weight: as if it came from that many repeats. A run's own repeats soon outweigh it."""
MIN_SPLIT_DOF = 4.0
"""Fewer repeats than this say nothing about where the noise comes from."""


@dataclass(frozen=True)
class Prior:
    """Noise as known before the run has repeats."""

    relative: float
    """Sigma as a share of val_bpb."""
    source: str
    """Where the figure is from."""


PUBLIC = Prior(0.0009, "public repeats of larger models: 0.0006 to 0.002 bpb, about 0.0009 in the geometric mean")
DEMO = Prior(0.02, "short trials on a CPU that does other work too")
PRIORS = {"demo": DEMO, "cpu": DEMO}
"""By preset; every other preset has PUBLIC."""


@dataclass(frozen=True)
class Repeat:
    """One trial of a source that has more than one."""

    val_bpb: float
    tokens: int | None = None


@dataclass(frozen=True)
class Noise:
    """One sigma of val_bpb between trials of the same source, and how well it is known."""

    sigma: float
    dof: float
    """Degrees of freedom, the prior's included."""
    repeats: int
    """Degrees of freedom from this run's own repeats."""
    source: str
    training: float | None = None
    """The part that stays when every trial sees the same number of tokens; None with too few repeats."""
    throughput: float | None = None
    """The part explained by how many tokens a trial saw."""

    @property
    def interval(self) -> tuple[float, float]:
        """About 95 % for sigma (Wilson-Hilferty quantiles of chi-square)."""
        low, high = (_chi_square(z, self.dof) for z in (-1.96, 1.96))
        return self.sigma * math.sqrt(self.dof / high), self.sigma * math.sqrt(self.dof / low)

    def words(self) -> str:
        """For people."""
        low, high = self.interval
        text = f"noise (1 sigma) {self.sigma:.5f} bpb, 95 % {low:.5f} to {high:.5f}, from {self.source}"
        if self.training is not None and self.throughput is not None:
            text += f"; training {self.training:.5f}, throughput {self.throughput:.5f}"
        return text


def estimate_noise(groups: Iterable[Sequence[Repeat]], prior: Prior, level: float) -> Noise:
    """Pool the groups' variances with the prior's: each group holds trials of one source. `level` is a typical val_bpb.

    The pooled variance is (dof0 * s0^2 + sum of squares) / (dof0 + dof): the scaled inverse chi-square posterior.
    """
    kept = [group for group in groups if len(group) > 1]
    squares, own = _within(kept)
    expected = prior.relative * abs(level)
    dof = PRIOR_DOF + own
    sigma = math.sqrt((PRIOR_DOF * expected**2 + squares) / dof)
    source = (
        f"{own} own repeat{'' if own == 1 else 's'} and a prior ({prior.source})"
        if own
        else f"a prior ({prior.source})"
    )
    training, throughput = _split(kept, own)
    return Noise(sigma, dof, own, source, training, throughput)


def _within(groups: Sequence[Sequence[Repeat]]) -> tuple[float, int]:
    """Sum of squares about each group's own mean, and its degrees of freedom."""
    squares = 0.0
    for group in groups:
        mean = sum(one.val_bpb for one in group) / len(group)
        squares += sum((one.val_bpb - mean) ** 2 for one in group)
    return squares, sum(len(group) - 1 for group in groups)


def _split(groups: Sequence[Sequence[Repeat]], own: int) -> tuple[float | None, float | None]:
    """(training, throughput): val_bpb regressed on log tokens within each group; the residual is training noise."""
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


def _chi_square(z: float, dof: float) -> float:
    """The quantile of chi-square that has the normal quantile z (Wilson and Hilferty 1931)."""
    part = 2.0 / (9.0 * dof)
    return dof * max(1e-3, 1.0 - part + z * math.sqrt(part)) ** 3
