"""A claim against fresh trials: does the gain show here, and is it as large as was claimed?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from autoresearch.core.followup.pairs import PairedInterval, RunNoise, interval_of
from autoresearch.core.followup.remeasure import Remeasurer
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing

Verdict = Literal["holds", "better by another amount", "not certain", "does not hold"]


@dataclass(frozen=True)
class Comparison:
    """Fresh trials of a certificate's two files, and what they say of its claim."""

    found: PairedInterval
    baseline: Mapping[int, float]
    """Bits per byte by seed."""
    best: Mapping[int, float]
    claimed: float | None
    """None where only the sign can be compared."""
    claimed_half: float
    """Half the claim's own 95 % interval; 0 where it has none."""

    @property
    def allowed(self) -> float:
        """Return the difference of the two gains that both noises explain, with 95 %."""
        return math.hypot(self.found.width / 2.0, self.claimed_half)

    @property
    def verdict(self) -> Verdict:
        """Return what the trials say."""
        better = self.found.verdict == "better"
        if self.claimed is None:
            return "holds" if better else "not certain" if self.found.verdict == "not certain" else "does not hold"
        fits = abs(self.found.difference - self.claimed) <= self.allowed
        if fits:
            return "holds" if better else "not certain"
        return "better by another amount" if better else "does not hold"


def prior_noise(preset: str, level: float) -> RunNoise:
    """Return the noise that is expected before any trial; `level` is the bits per byte of the file.

    The certificate's own noise is not taken: a claim must not decide how strictly it is checked.
    """
    judge = Racing(JudgeOptions(preset))
    between = judge.pool([], level)
    return RunNoise(between, judge.pool_pairs([], between))


def measure(
    remeasurer: Remeasurer,
    baseline: str,
    best: str,
    seeds: int,
    preset: str,
    claimed: float | None,
    claimed_half: float | None,
) -> Comparison:
    """Train both files at the same fresh seeds, in turn. Raises `ArError` when a trial does not end well."""
    scores: dict[str, dict[int, float]] = {"baseline": {}, "best": {}}
    for k in range(seeds):
        for name, source in (("baseline", baseline), ("best", best)):
            seed = remeasurer.first_seed + k
            scores[name][seed] = remeasurer.measure(f"{name}-{k + 1}", source, seed)
    level = sum(scores["baseline"].values()) / seeds
    found = interval_of(scores["baseline"], scores["best"], prior_noise(preset, level))
    return Comparison(found, scores["baseline"], scores["best"], claimed, claimed_half or 0.0)
