"""The headline of a run: the measured mean of its best file with its interval, and the cautious estimate beside it.

Every view takes the best score from here, so that all of them agree. The mean is the one that the judge compares
candidates with: of the trials that nothing selected. A change that was just kept has none yet; its own trials stand in.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoresearch.core.judge.decision import Measured, Side
from autoresearch.core.judge.posterior import Z_95, believe, t_quantile
from autoresearch.core.judge.racing import standing_trials
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, TrialRow, machine_of, processors, ran_on

ABSURD = 1e9
"""Bits per byte, and degrees of freedom, that no run can have: a ledger may hold anything."""


@dataclass(frozen=True)
class Mean:
    """The measured mean of one file, in bits per byte."""

    value: float
    trials: int
    """Number of trials that it is the mean of."""
    selected: bool
    """True when these are the trials by which the change was kept: their mean is low by selection."""
    points: tuple[tuple[int, float], ...] = ()
    """Seed and bits per byte of each."""
    half: float | None = None
    """Half the width of its 95 % interval; None where the judge estimates no noise."""

    @property
    def low(self) -> float | None:
        """Return the lower end of the interval."""
        return None if self.half is None else self.value - self.half

    @property
    def high(self) -> float | None:
        """Return the upper end of the interval."""
        return None if self.half is None else self.value + self.half


@dataclass(frozen=True)
class Headline:
    """A run's best file against its baseline, in bits per byte. Negative gains are better."""

    experiment: int
    best: Mean
    baseline: Mean | None
    cautious: float | None
    """The judge's cautious estimate of the best file, drawn towards no change; never better than what was measured."""
    gain_half: float | None = None
    """Half the width of the gain's 95 % interval; None where the judge estimates no noise."""

    @property
    def gain(self) -> float | None:
        """Return the difference of the measured means, best less baseline; None for the baseline itself."""
        return None if self.baseline is None or self.experiment == 0 else self.best.value - self.baseline.value

    def plain(self) -> dict[str, Any]:
        """Return it as the keys that `--json` prints."""
        gain, half = self.gain, self.gain_half
        return {
            "baseline_bpb": self.baseline.value if self.baseline else None,
            "best_experiment": self.experiment,
            "best_bpb": self.best.value,
            "best_low": self.best.low,
            "best_high": self.best.high,
            "best_trials": self.best.trials,
            "best_estimate": self.cautious,
            "delta": gain,
            "delta_low": None if gain is None or half is None else gain - half,
            "delta_high": None if gain is None or half is None else gain + half,
        }


NO_HEADLINE = dict.fromkeys(Headline(0, Mean(0.0, 0, selected=False), None, None).plain())
"""Facts of a run without a result, under the same keys."""


def headline_of(reader: LedgerReader) -> Headline | None:
    """Read the headline; None before the baseline is decided, or where its best file has no score."""
    best = reader.incumbent()
    if best is None:
        return None
    trials = reader.trials(subject=best.number)
    machine = machine_of(trials)
    facts = reader.noise_facts()
    mean = mean_of(best, trials, facts, machine)
    if mean is None:
        return None
    first = best if best.number == 0 else reader.experiment(0)
    baseline = mean if best.number == 0 else mean_of(first, reader.trials(subject=0), facts, machine)
    error = None if baseline is None or best.number == 0 else gain_error(mean, baseline, facts)
    if baseline is None or error is None:
        return Headline(best.number, mean, baseline, best.estimate)
    half = t_quantile(Z_95, error[1]) * error[0]
    # The judge's estimate dates from the decision. Trials since then can be worse, and the more cautious of the two
    # stands: that one, or today's difference from the baseline, drawn towards none.
    gain = mean.value - baseline.value
    today = baseline.value + believe(gain, *error, _noise(facts, "sigma", "dof")[0] or error[0]).shrunken
    return Headline(best.number, mean, baseline, None if best.estimate is None else max(best.estimate, today), half)


def steps_of(reader: LedgerReader, keeps: Iterable[ExperimentRow]) -> dict[int, float]:
    """Return the measured mean of every kept experiment that has one, by number."""
    rows = list(keeps)
    groups: dict[int, list[TrialRow]] = {}
    for trial in reader.trials_of_keeps():
        groups.setdefault(trial.subject, []).append(trial)
    found = {row.number: mean_of(row, groups.get(row.number, []), {}) for row in rows}
    return {number: mean.value for number, mean in found.items() if mean is not None}


def mean_of(
    row: ExperimentRow, trials: Sequence[TrialRow], facts: Mapping[str, Any], machine: str | None = None
) -> Mean | None:
    """Average an experiment's trials on `machine`, by default that of the last one; None without a score there.

    `facts` are the judge's last that state the noise: the interval rests on its noise between seeds.
    """
    wanted = machine_of(trials) if machine is None else machine
    some = [t for t in trials if t.status is not None and t.started >= row.created and ran_on(t, wanted)]
    side = Side(row.number, "", tuple(_measured(trial) for trial in some))
    counted = standing_trials(side)
    selected = not counted and row.number > 0
    if selected:
        counted = tuple(one for one in side.trials if one.good)
    points = tuple((one.seed, one.val_bpb) for one in counted if one.val_bpb is not None)
    if not points:
        if any(trial.val_bpb is not None for trial in trials):
            return None  # measured on another machine alone, whose scores do not compare
        # A ledger of another make, or a run that was written down by hand: the row's own score is all there is.
        return None if row.val_bpb is None else Mean(row.val_bpb, 1, row.number > 0, (), None)
    sigma, dof = _noise(facts, "sigma", "dof")
    half = None if sigma is None else t_quantile(Z_95, dof) * sigma / math.sqrt(len(points))
    return Mean(statistics.fmean(value for _, value in points), len(points), selected, points, half)


def gain_error(best: Mean, baseline: Mean, facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the standard error of the difference of two plain means, whose trials may share seeds, and its freedom.

    `facts` state the noise, as the judge's do. None where they state none.
    """
    sigma, dof = _noise(facts, "sigma", "dof")
    paired, paired_dof = _noise(facts, "paired", "paired_dof")
    if sigma is None or not best.points or not baseline.points:
        return None
    # Without a paired noise, trials at one seed are taken as if they shared nothing.
    rest = sigma**2 if paired is None else min(0.5 * paired**2, sigma**2)
    weights: dict[int, float] = {}
    for mean, sign in ((best, 1.0), (baseline, -1.0)):
        for seed, _ in mean.points:
            weights[seed] = weights.get(seed, 0.0) + sign / mean.trials
    by_rest = rest * (1.0 / best.trials + 1.0 / baseline.trials)
    by_seed = (sigma**2 - rest) * sum(weight**2 for weight in weights.values())
    variance = by_rest + by_seed
    if variance <= 0.0:
        return None
    known = variance**2 / (by_rest**2 / (dof if paired is None else paired_dof) + by_seed**2 / dof)
    return math.sqrt(variance), known


def _noise(facts: Mapping[str, Any], sigma: str, dof: str) -> tuple[float | None, float]:
    """Return a standard deviation and its degrees of freedom from the judge's facts; (None, 1) where it has none."""
    value, known = facts.get(sigma), facts.get(dof)
    if not isinstance(value, int | float) or not isinstance(known, int | float):
        return None, 1.0
    if not 0.0 < value < ABSURD or not known > 0.0:
        return None, 1.0
    return float(value), min(max(float(known), 1.0), ABSURD)


def _measured(trial: TrialRow) -> Measured:
    tokens = trial.result.get("tokens")
    own = trial.experiment == trial.subject
    return Measured(
        *(trial.role, trial.seed, trial.status or "crash", trial.val_bpb, None, tokens, own), processors(trial.result)
    )
