"""Two files measured at the same seeds: their difference with its interval, by the judge's paired estimate.

The run's paired noise is expected, and the differences of the two files themselves overrule it: two files that are far
from each other can be less alike at one seed than the small edits that the run has compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoresearch.core.judge.noise import GRID, Noise, weigh
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.paired import PairedNoise, compare
from autoresearch.core.judge.posterior import Z_95, chi_square_quantile, t_quantile
from autoresearch.core.judge.racing import Racing, level_of
from autoresearch.core.run.evidence import gather_raced, gather_repeats
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import machine_of

CONFLICT = (-1.96, 1.28)
"""Normal quantiles of chi-square between which the expected paired noise is believed. Files that are less alike than
expected are the danger: intervals would be too short."""

Scores = Mapping[int, float]
"""Bits per byte of one file by seed."""


@dataclass(frozen=True)
class RunNoise:
    """The noise of a run, as its judge would estimate it now."""

    between: Noise
    """Noise between seeds."""
    paired: PairedNoise
    """Noise of a difference at one seed."""

    def describe(self) -> str:
        """Describe both in one line for people."""
        pairs = self.paired.pairs
        learnt = f"{pairs} candidate{'' if pairs == 1 else 's'} and a prior" if pairs else "a prior alone"
        return f"{self.between.describe()}; paired noise {self.paired.sigma:.5f} bpb, from {learnt}"


@dataclass(frozen=True)
class PairedInterval:
    """A difference of two files, second less first, with its 95 % interval. Bits per byte; negative is better."""

    difference: float
    low: float
    high: float
    error: float
    """Standard error of the difference."""
    dof: float
    """Degrees of freedom of that error."""
    paired: PairedNoise
    """Paired noise that the interval rests on."""

    @property
    def width(self) -> float:
        """Return the length of the interval."""
        return self.high - self.low

    @property
    def verdict(self) -> str:
        """Say whether the second file is "better" (lower), "worse" or "not certain" (the interval holds zero)."""
        if self.high < 0.0:
            return "better"
        return "worse" if self.low > 0.0 else "not certain"


def noise_of_run(ledger: LedgerReader) -> RunNoise:
    """Estimate the noise from the repeats and races of a run on the machine where its best file was measured last.

    Scores of two machines do not compare, so those of an earlier one would pass for noise. A run without a score has
    the prior at 1 bpb.
    """
    best, judge = ledger.incumbent(), Racing(JudgeOptions(ledger.run().config["preset"]))
    machine = "" if best is None else machine_of(ledger.trials(subject=best.number))
    repeats = gather_repeats(ledger, machine)
    level = level_of(repeats[0])  # of the baseline, as the judge has it
    if level is None:
        level = 1.0 if best is None or best.val_bpb is None else best.val_bpb
    between = judge.pool(repeats, level)
    return RunNoise(between, judge.pool_pairs(gather_raced(ledger, machine), between))


def interval_of(first: Scores, second: Scores, noise: RunNoise) -> PairedInterval:
    """Estimate the difference, second less first. Raises `ValueError` when either has no score."""
    differences = [second[seed] - first[seed] for seed in sorted(set(first) & set(second))]
    paired = learn_paired(differences, noise.paired)
    found = compare(sorted(second.items()), sorted(first.items()), noise.between, paired)
    half = t_quantile(Z_95, found.dof) * found.error
    return PairedInterval(found.value, found.value - half, found.value + half, found.error, found.dof, paired)


def learn_paired(differences: Sequence[float], expected: PairedNoise) -> PairedNoise:
    """Learn the paired noise of two files from their differences at shared seeds, about the one that is expected.

    Nothing selected these differences, so their deviations from the mean are all that the likelihood needs. Where they
    differ from what is expected by more than chance, they alone count.
    """
    count = len(differences)
    if count < 2 or expected.sigma <= 0.0:
        return expected
    mean = statistics.fmean(differences)
    squares = sum((one - mean) ** 2 for one in differences)
    own = count - 1
    low, high = (chi_square_quantile(z, own) for z in CONFLICT)
    if not low < squares / expected.sigma**2 < high:
        # Files that ignore their seeds differ by the same every time; an interval still needs a width.
        return PairedNoise(max(math.sqrt(squares / own), expected.sigma * float(GRID[0])), float(own), count)
    sigma, dof = weigh(-own * np.log(GRID) - 0.5 * squares / (expected.sigma * GRID) ** 2, expected.sigma)
    return PairedNoise(sigma, dof, count)


def pairs_needed(gain: float, paired: PairedNoise, limit: int) -> int:
    """Return the number of seeds at which an interval should be narrower than the gain, `limit` at most."""
    for count in range(2, limit):
        dof = max(1.0, paired.dof)
        if 2.0 * t_quantile(Z_95, dof) * paired.sigma / math.sqrt(count) < abs(gain):
            return count
    return limit
