"""A claim against fresh trials: does the gain show here, and is it as large as was claimed?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from autoresearch.core.followup.pairs import PairedInterval, RunNoise, interval_of
from autoresearch.core.followup.remeasure import Remeasurer
from autoresearch.core.judge.decision import Measured
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.posterior import Z_95, t_quantile
from autoresearch.core.judge.racing import Racing
from autoresearch.core.store.headline import Headline, gain_error

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
    """Half the 95 % interval of the claim's trials, by the noise that is found here."""

    @property
    def allowed(self) -> float:
        """Return the difference of the two gains that both noises explain, with 95 %."""
        return math.hypot(self.found.width / 2.0, self.claimed_half)

    @property
    def verdict(self) -> Verdict:
        """Return what the trials say."""
        if self.found.verdict == "worse":
            return "does not hold"
        better = self.found.verdict == "better"
        if self.claimed is None:
            return "holds" if better else "not certain"
        fits = abs(self.found.difference - self.claimed) <= self.allowed
        if fits:
            return "holds" if better else "not certain"
        return "better by another amount" if better else "does not hold"


def noise_here(preset: str, level: float, *files: Mapping[int, float]) -> RunNoise:
    """Return the noise by fresh scores of `files` by seed, and the preset's prior; `level` is in bits per byte.

    The certificate's own noise is not taken: a claim must not decide how strictly it is checked.
    """
    judge = Racing(JudgeOptions(preset))
    trials = [[Measured("candidate", seed, "ok", score) for seed, score in scores.items()] for scores in files]
    between = judge.pool(trials, level)
    return RunNoise(between, judge.pool_pairs([], between))


def half_of(claim: Headline, noise: RunNoise) -> float:
    """Return half the 95 % interval of a claimed gain by that noise, in bits per byte; 0 where no trial is known."""
    between, paired = noise.between, noise.paired
    facts = {"sigma": between.sigma, "dof": between.dof, "paired": paired.sigma, "paired_dof": paired.dof}
    error = None if claim.baseline is None else gain_error(claim.best, claim.baseline, facts)
    return 0.0 if error is None else t_quantile(Z_95, error[1]) * error[0]


def measure(
    remeasurer: Remeasurer,
    baseline: str,
    best: str,
    seeds: int,
    preset: str,
    claim: Headline | None,
) -> Comparison:
    """Train both files at the same fresh seeds, in turn. Raises `ArError` when a trial does not end well.

    `claim` is the certificate's headline; None where only the sign can be compared.
    """
    scores: dict[str, dict[int, float]] = {"baseline": {}, "best": {}}
    for k in range(seeds):
        for name, source in (("baseline", baseline), ("best", best)):
            seed = remeasurer.first_seed + k
            scores[name][seed] = remeasurer.measure(f"{name}-{k + 1}", source, seed)
    first, second = scores["baseline"], scores["best"]
    level = sum(first.values()) / seeds
    found = interval_of(first, second, noise_here(preset, level))
    if claim is None:
        return Comparison(found, first, second, None, 0.0)
    fresh = RunNoise(noise_here(preset, level, first, second).between, found.paired)
    return Comparison(found, first, second, claim.gain, half_of(claim, fresh))
