"""The worth of a trial: the gain that may be expected of a change, against what trying it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoresearch.core.proposal import History

HURDLE = 1.5
"""Paired noises that a gain must have to be kept more often than not: two trials have to show it."""
SCORING_SHARE = 0.5
"""Assumed length of scoring and audit, as a share of the training, while no trial has told it."""
_GRID = np.linspace(-4.0, 4.0, 65)
_WEIGHTS = np.exp(-0.5 * _GRID**2) / np.exp(-0.5 * _GRID**2).sum()


@dataclass(frozen=True)
class Belief:
    """A belief about a change before it is tried: a normal distribution of its effect on val_bpb."""

    mean: float
    """Bits per byte; negative is better."""
    deviation: float
    """Its standard deviation, in bpb."""

    def after(self, measured: float, error: float) -> Belief:
        """Take a measured difference with its standard error into account, both in bpb."""
        if self.deviation <= 0.0:
            return self
        mine, new = self.deviation**-2, max(error, 1e-9) ** -2
        return Belief((self.mean * mine + measured * new) / (mine + new), (mine + new) ** -0.5)

    def weaker(self, factor: float) -> Belief:
        """Believe in less: scale the effect and its deviation."""
        return Belief(self.mean * factor, self.deviation * factor)


def expected_gain(belief: Belief, paired_noise: float) -> float:
    """Return the gain to be expected in bpb, 0 or more: E[max(0, -effect) P(the judge sees it)]."""
    gains = np.maximum(0.0, -(belief.mean + belief.deviation * _GRID))
    if paired_noise <= 0.0:
        return float(gains @ _WEIGHTS)
    seen = np.array([0.5 * math.erfc((HURDLE - gain / paired_noise) / math.sqrt(2)) for gain in gains])
    return float((gains * seen) @ _WEIGHTS)


def expected_seconds(history: History, belief: Belief, paired_noise: float) -> float:
    """Return the device's seconds that trying a change may be expected to take.

    A trial each; and where the first one looks good, a second one and one of the incumbent.
    """
    metrics = history.incumbent.metrics
    seconds = history.budget_seconds
    for name, assumed in (("startup_seconds", 0.0), ("eval_seconds", SCORING_SHARE * seconds)):
        value = metrics.get(name)
        seconds += float(value) if isinstance(value, int | float) and math.isfinite(value) else assumed
    spread = math.hypot(belief.deviation, paired_noise) or 1e-9
    promising = 0.5 * math.erfc((belief.mean + paired_noise) / spread / math.sqrt(2))
    return seconds * (1.0 + 2.0 * promising)
