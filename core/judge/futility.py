"""Ending a trial early: its training loss so far says that it will not be kept, or it diverges, stalls or crawls.

While a trial runs, its training loss is compared with the incumbent's at the same seed and at equal progress. The gap
now, and the part of it that its trend would close by the end, predict the difference of the two scores. The relation is
a linear regression, learnt from the finished trials of the run and a prior, for each part of the budget on its own:

    difference = offset + a gap - b closing + error,
    variance of the error = spread^2 (1 + (GROWTH gap / expected spread)^2 + (CURL closing / expected spread)^2).

Small gaps tell more than large ones, and steady gaps more than those that change: a trial that is far off, or whose
curve has another shape, may end anywhere. The prior is conjugate (normal-inverse-gamma: Gelman et al., "Bayesian Data
Analysis", chapter 14), so that a prediction is Student's t.

Everything here is plain data, so a rule travels with a trial's request to whatever machine runs it. The loss is the
train file's own word. A lie can cost the file its trial or spare it from being ended; told by the best file, it can
cost others theirs. It never brings a score: a trial that was ended is never kept, and one that was not is scored as
always.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from autoresearch.core.judge.posterior import Number, normal_cdf, normal_score, t_scale

BINS = 20
"""Parts of the budget in which a curve is kept."""
EARLIEST = 3
"""Parts of the budget before the first forecast: warm-ups differ, and say little."""
FORECAST_SECONDS = 5.0
"""Seconds of training before the first forecast: what a file does once at its start, such as reading a text for its
memory, is a large part of less, and its loss at equal progress that of a file which began late."""
WINDOW = 3
"""Parts over which a gap is averaged: one part holds few batches."""
EPSILON = (0.01, 0.06)
"""Chance of being worth more trials below which a trial is ended, for a whole budget left: the least, and the most.
With less left it is as much smaller: what an end would save is weighed against what it may lose."""
QUIET = 0.0008
"""Noise between seeds, as a share of the score, up to which the most is right. With more noise curves tell improvements
apart less well, and the same chance would lose more of them, so it falls with the square of the noise, down to the
least."""
SLOPE, SLOPE_SPREAD = (0.7, 1.0), (0.25, 0.05)
"""Expected slope of the gap at the budget's start and end, and its standard deviation: an early gap partly closes."""
OFFSET = 0.5
"""Standard deviation of the expected offset, in spreads: one odd trial does not condemn the next ones."""
CLOSING, CLOSING_SPREAD = 0.7, 0.4
"""Expected slope of the closing part, and its standard deviation."""
GROWTH = (0.3, 0.05)
"""Growth of the error with the gap at the budget's start and end: its standard deviation is about this share of a
large gap."""
MOST_AHEAD = 3.0
"""Largest factor by which a trend is carried on."""
WANDER = 0.03
"""Expected spread of the error, as a share of what the incumbent's loss still falls until the end."""
FLOOR = 0.8
"""Least expected spread of the error, in paired noises: the score is not the training loss."""
CURL = 0.7
"""Growth of the error with the closing part, likewise."""
PRIOR_DOF = 8.0
"""Degrees of freedom of the prior's spread."""
LESSONS = 60
"""Number of the latest finished trials that are learnt from."""
MOST_UNIT = 1e6
"""Bits per byte for one nat of training loss, at most: what is logged below a millionth of the score is no loss."""
SILENT_BINS = 2
"""Parts of the budget without any finite loss, after finite ones, that count as divergence."""
EXPLODED = 2.0
"""Factor above its first loss at which a loss counts as exploded."""
STALL_SHARE, STALL_SECONDS = 0.5, 10.0
"""Share of the budget, and least seconds, without a batch or a logged loss that count as a stall."""
CRAWL_FROM, CRAWL_SECONDS, CRAWL = 0.3, 5.0, 0.05
"""Progress and seconds of training from which the speed is looked at, and the share of the incumbent's tokens that is
hopeless. In less time a busy machine can keep any file from its first step."""
UNDISTURBED = 0.85
"""Share of the usual processor time from which on a trial on a CPU was not disturbed. With less, its loss at equal
progress is the machine's doing, and no reason to end it."""

Curve = Sequence[float | None]
"""Mean training loss in each of BINS equal parts of the budget, in nats a token; None where none was logged."""


@dataclass(frozen=True)
class Lesson:
    """A finished trial of a candidate, beside the incumbent's at the same seed."""

    curve: tuple[float | None, ...]
    incumbent: tuple[float | None, ...]
    unit: float
    """Bits per byte for one nat of training loss (see `unit_of`)."""
    difference: float
    """Difference of the two scores in bits per byte; negative is better."""

    @functools.cached_property
    def seen(self) -> np.ndarray:
        """Return gap and closing part in each part of the budget from EARLIEST on, in bits per byte (see `see`)."""
        return self.unit * see(as_array(self.curve), as_array(self.incumbent))[EARLIEST:]


@dataclass(frozen=True)
class Forecast(Generic[Number]):
    """The regression for one part of the budget, or arrays of them. Gaps and differences are in bits per byte."""

    coefficients: tuple[Number, ...]
    """Coefficients of 1, the gap and its closing part."""
    covariance: tuple[tuple[Number, ...], ...]
    """Their covariance, in units of the squared spread."""
    spread: Number
    growth: Number
    curl: Number
    """Growth of the error with the gap and its closing part, in units of the spread."""
    dof: Number

    def difference(self, gap: Number, closing: Number) -> tuple[Number, Number]:
        """Predict the difference at the end: its mean and the scale of its t distribution."""
        level, slope, bend = self.coefficients
        (one, by_gap, by_closing), (_, gaps, both), (_, _, closings) = self.covariance
        known = one + 2.0 * (gap * by_gap + closing * (by_closing + gap * both)) + gap**2 * gaps + closing**2 * closings
        # A variance, below zero by rounding at most.
        scale = (1.0 + (self.growth * gap) ** 2 + (self.curl * closing) ** 2 + abs(known)) ** 0.5
        return level + slope * gap + bend * closing, self.spread * scale


@dataclass(frozen=True)
class Target:
    """The score that a trial needs to be worth more than its own time."""

    val_bpb: float | None
    """The val_bpb from which on it is worthless; None where only its own health counts."""
    noise: float
    """Paired noise in bits per byte."""
    epsilon: float = EPSILON[0]
    """See `epsilon_for`."""


@dataclass(frozen=True)
class StopRule:
    """The conditions under which a trial is ended early. Without a curve only its own health counts."""

    curve: tuple[float | None, ...] = ()
    """The incumbent's curve at the trial's seed."""
    score: float | None = None
    """The incumbent's val_bpb at that seed."""
    unit: float = 1.0
    """Bits per byte for one nat of training loss."""
    needs: float | None = None
    """The val_bpb from which on the trial is worthless."""
    forecasts: tuple[Forecast[float], ...] = ()
    """One for each part of the budget from EARLIEST on."""
    tokens: int | None = None
    """Tokens that the incumbent saw at that seed."""
    processors: float | None = None
    """Processors that the incumbent kept busy at that seed; None where they are not the device, or nobody knows."""
    epsilon: float = EPSILON[0]
    """See `epsilon_for`."""


@dataclass(frozen=True)
class Stop:
    """The end of a trial before its time."""

    reason: str
    predicted: float | None = None
    """Predicted val_bpb; None where it ended for another reason than its prospects."""
    interval: tuple[float, float] | None = None
    """Interval that holds it with about 95 %."""
    chance: float | None = None
    """Chance that the trial would have been worth more trials."""


def unit_of(curve: Curve, score: float) -> float | None:
    """Return the bits per byte for one nat of training loss, from a finished trial's; None without a usable curve."""
    last = next((loss for loss in reversed(curve) if loss is not None), None)
    if last is None or last <= 0.0 or score <= 0.0:
        return None
    # A file may log 1e-300 for a loss; squares of such a unit overflow.
    unit = score / last
    return unit if unit <= MOST_UNIT else None


def as_array(curve: Curve) -> np.ndarray:
    """Return a curve as an array of BINS values, NaN where it has none."""
    found = np.full(BINS, np.nan)
    found[: len(curve)] = np.array(curve[:BINS], dtype=float)
    return found


def see(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Compare curves (shape (..., BINS), in nats): gap and closing part for every part of the budget (..., BINS, 2).

    The gap is how far a loss is above the other one, averaged over the last WINDOW parts; NaN where the trial logged
    nothing in them, or the other one nothing before and after. The closing part is how much of the gap its trend would
    close until the end: the trend since half the time is carried on as the other curve's own fall goes on, 0 where
    there is none. Both look back only.
    """
    theirs = _bridged(theirs)
    off = mine - theirs
    known = ~np.isnan(off)
    off = np.where(known, off, 0.0)
    total, count = off.copy(), known.astype(float)
    for back in range(1, WINDOW):
        total[..., back:] += off[..., :-back]
        count[..., back:] += known[..., :-back]
    half = np.arange(BINS) // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = total / count
        fallen, left = theirs[..., half] - theirs, theirs - theirs[..., -1:]
        closing = (gap[..., half] - gap) * np.minimum(MOST_AHEAD, left / fallen)
        closing = np.where((fallen > 0.0) & (left > 0.0) & ~np.isnan(closing), closing, 0.0)
    return np.stack([gap, np.where(count > 0.0, closing, np.nan)], axis=-1)


def _bridged(curve: np.ndarray) -> np.ndarray:
    """Return a curve with its gaps bridged by straight lines; NaN stays before its first value and after its last."""
    missing = np.isnan(curve)
    if not missing.any():
        return curve
    if curve.ndim > 1:
        return np.apply_along_axis(_bridged, -1, curve)
    if missing.all():
        return curve
    at = np.arange(BINS)
    return np.interp(at, at[~missing], curve[~missing], left=np.nan, right=np.nan)


def learn(lessons: Sequence[Lesson], curve: Curve, unit: float, noise: float) -> tuple[Forecast[float], ...]:
    """Return the regression of each part of the budget from EARLIEST on; `curve` is the present incumbent's."""
    latest = lessons[-LESSONS:]
    seen = np.array([one.seen for one in latest]).reshape(-1, BINS - EARLIEST, 2)
    fitted = fit(seen, np.array([one.difference for one in latest]), expected_spread(as_array(curve), unit, noise))
    rows = (
        fitted.spread,
        fitted.growth,
        fitted.curl,
        fitted.dof,
        *fitted.coefficients,
        *itertools.chain(*fitted.covariance),
    )
    return tuple(
        Forecast(tuple(line[4:7]), (tuple(line[7:10]), tuple(line[10:13]), tuple(line[13:])), *line[:4])
        for line in np.column_stack(rows).tolist()
    )


def expected_spread(curve: np.ndarray, unit: float, noise: float | np.ndarray) -> np.ndarray:
    """Return the spread expected in each part from EARLIEST on, in bits per byte.

    `curve` is the incumbent's, (..., BINS); `noise` is the paired noise in bits per byte.
    """
    curve = _bridged(curve)
    left = np.fmax(0.0, curve - curve[..., -1:])[..., EARLIEST:]
    # The roughness of one part's mean about a smooth curve, from second differences. Two curves, each averaged over
    # WINDOW parts, are compared; what is rough in one part is so in the others.
    bends = curve[..., EARLIEST + 1 : -1] - 0.5 * (curve[..., EARLIEST:-2] + curve[..., EARLIEST + 2 :])
    count = (~np.isnan(bends)).sum(axis=-1, keepdims=True)
    rough = np.nansum(bends**2, axis=-1, keepdims=True) / (1.5 * np.maximum(1, count))
    return np.sqrt((WANDER * unit * left) ** 2 + (FLOOR * noise) ** 2 + unit**2 * rough * 2.0 / WINDOW)


def fit(seen: np.ndarray, differences: np.ndarray, expected: np.ndarray) -> Forecast[np.ndarray]:
    """Fit the conjugate regression of each part of the budget from EARLIEST on, all at once, for one run or several.

    `seen` holds gap and closing part, shape (..., lessons, parts, 2), NaN where a lesson has none; `differences` has
    the shape (..., lessons), and `expected`, the spread expected in each part, (..., parts).
    """
    progress = (np.arange(EARLIEST, BINS) + 1) / BINS
    slope, loose, share = (early + (late - early) * progress for early, late in (SLOPE, SLOPE_SPREAD, GROWTH))
    growth, curl = share / expected, CURL / expected
    known = ~np.isnan(seen[..., 0])
    gap, closing = (np.where(known, seen[..., i], 0.0) for i in (0, 1))
    weights = known / (1.0 + (growth[..., None, :] * gap) ** 2 + (curl[..., None, :] * closing) ** 2)
    # A lie of 1e200 nats has no weight, and must not become 0 times infinity: no square of a gap stands alone.
    by_gap, by_closing, by_end = weights * gap, weights * closing, weights * differences[..., :, None]

    def moment(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.einsum("...lb,...lb->...b", a, b)

    # Precisions of the prior, in units of the spread; then the normal equations A x = b, three by three.
    on_gap, on_closing = (expected / loose) ** 2, (expected / CLOSING_SPREAD) ** 2
    a00, a01, a02 = OFFSET**-2 + weights.sum(axis=-2), by_gap.sum(axis=-2), by_closing.sum(axis=-2)
    a11, a12, a22 = on_gap + moment(by_gap, gap), moment(by_gap, closing), on_closing + moment(by_closing, closing)
    b0, b1, b2 = (
        by_end.sum(axis=-2),
        on_gap * slope + moment(by_end, gap),
        -on_closing * CLOSING + moment(by_end, closing),
    )
    # The inverse by cofactors.
    c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
    c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
    scale = a00 * c00 + a01 * c01 + a02 * c02
    c00, c01, c02, c11, c12, c22 = (one / scale for one in (c00, c01, c02, c11, c12, c22))
    mean = (c00 * b0 + c01 * b1 + c02 * b2, c01 * b0 + c11 * b1 + c12 * b2, c02 * b0 + c12 * b1 + c22 * b2)
    # What the prior expects, and the squares about the fit: those about zero less those that the fit explains.
    before = PRIOR_DOF * expected**2
    about_zero = on_gap * slope**2 + on_closing * CLOSING**2 + np.einsum("...lb,...l->...b", by_end, differences)
    about_fit = about_zero - (mean[0] * b0 + mean[1] * b1 + mean[2] * b2)
    dof = PRIOR_DOF + known.sum(axis=-2)
    spread = np.sqrt((before + np.maximum(0.0, about_fit)) / dof)
    return Forecast(mean, ((c00, c01, c02), (c01, c11, c12), (c02, c12, c22)), spread, growth, curl, dof)


def hopeless(
    fitted: Forecast[np.ndarray], seen: np.ndarray, needed: np.ndarray, epsilons: Sequence[float]
) -> np.ndarray:
    """Tell for curves (curves, parts, 2) in which parts the chance of a `needed` difference (curves, 1) is too small.

    As `forecast`, for many trials at once.
    """
    mean, scale = fitted.difference(seen[..., 0], seen[..., 1])
    inverse, parts = statistics.NormalDist().inv_cdf, range(EARLIEST, BINS)
    z = np.array([[inverse(least_chance(at, epsilon) or 1e-9) for at in parts] for epsilon in epsilons])
    far = np.sqrt(fitted.dof * np.expm1((z / t_scale(fitted.dof)) ** 2 / fitted.dof))
    return needed - mean < -far * scale


def epsilon_for(noise: float, score: float) -> float:
    """Return the chance, for a whole budget left, below which trials are ended at this noise and score, in one unit."""
    least, most = EPSILON
    return max(least, most * min(1.0, QUIET * score / noise) ** 2) if noise > 0.0 else most


def least_chance(at: int, epsilon: float) -> float:
    """Return the chance below which a trial is ended at part `at` of the budget."""
    return epsilon * (1.0 - (at + 1) / BINS)


def forecast(rule: StopRule, curve: Curve, at: int) -> Stop | None:
    """Predict the end of a trial from its curve up to part `at`; None where nothing can be said.

    The result's `chance` says whether it is worth going on; this function does not decide.
    """
    if rule.score is None or rule.needs is None or not EARLIEST <= at < EARLIEST + len(rule.forecasts):
        return None
    # A trial that began late, because it first reads much text or the machine was busy, still has its steep start in
    # the parts where the best file is past it: as many parts of its own are needed as of a trial that began at once.
    if sum(loss is not None for loss in curve[: at + 1]) <= EARLIEST:
        return None
    gap, closing = see(as_array(curve[: at + 1]), as_array(rule.curve))[at].tolist()
    if math.isnan(gap):
        return None
    regression = rule.forecasts[at - EARLIEST]
    mean, scale = regression.difference(rule.unit * gap, rule.unit * closing)
    dof = regression.dof
    chance = normal_cdf(normal_score((rule.needs - rule.score - mean) / scale, dof))
    predicted, wide = rule.score + mean, scale * _quantile(dof)
    reason = (
        f"its training loss is {gap:+.3f} nats from the best file's at {(at + 1) / BINS:.0%} of the time: "
        f"about {predicted:.4f} bpb at the end ({predicted - wide:.4f} to {predicted + wide:.4f}), "
        f"{100 * chance:.2g} % likely to be worth a second trial"
    )
    return Stop(reason, predicted, (predicted - wide, predicted + wide), chance)


def _too_small(found: Stop, rule: StopRule, at: int) -> bool:
    return found.chance is not None and found.chance < least_chance(at, rule.epsilon)


def _disturbed(rule: StopRule, busy: Callable[[], float | None]) -> bool:
    """Tell whether other work keeps the machine from a trial, by the processors that it has kept busy."""
    if rule.processors is None or (found := busy()) is None:
        return False
    return found < UNDISTURBED * rule.processors


def _quantile(dof: float) -> float:
    """Return the 97.5 % point of Student's t, by its first terms in 1 / dof (Abramowitz and Stegun 26.7.5)."""
    z = 1.96
    return z + (z**3 + z) / (4.0 * dof) + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * dof**2)


class CurveWatch:
    """Keeps the curve of one trial while it runs, and says when the trial is to be ended.

    Progress is the share of the budget by the parent's own clock, and tokens are the feeder's count. Only the losses
    are the train file's word.
    """

    def __init__(self, rule: StopRule | None, budget_seconds: float) -> None:
        """Watch by this rule; None keeps the curve and ends nothing."""
        self._rule, self._budget = rule, budget_seconds
        self._sums, self._counts = [0.0] * BINS, [0] * BINS
        self._first: float | None = None
        self._last_loss = 0.0
        """Progress at the last finite loss."""
        self._bad = False
        """True while the latest logged loss is not finite."""
        self._tokens, self._last_sign = 0, 0.0
        self._looked = 0

    @property
    def curve(self) -> tuple[float | None, ...]:
        """Return the curve so far."""
        return tuple(total / count if count else None for total, count in zip(self._sums, self._counts, strict=True))

    def note(self, progress: float, loss: float | None) -> None:
        """Take in one logged loss, None for one that is no finite number."""
        self._last_sign = max(self._last_sign, progress)
        if loss is None:
            # A file may log points without a loss; only after finite ones they mean something.
            self._bad = self._first is not None
            return
        self._bad, self._last_loss = False, progress
        self._first = loss if self._first is None else self._first
        at = min(BINS - 1, max(0, int(progress * BINS)))
        self._sums[at] += loss
        self._counts[at] += 1

    def look(self, progress: float, tokens: int, busy: Callable[[], float | None] = lambda: None) -> Stop | None:
        """Return the reason to end the trial now, or None. Cheap enough to be called several times a second.

        `busy` returns the processors that the trial has kept busy so far, None where nobody knows. It is asked only
        when the trial is about to be ended for its prospects.
        """
        if tokens > self._tokens:
            self._tokens, self._last_sign = tokens, max(self._last_sign, progress)
        rule = self._rule
        if rule is None or progress >= 1.0:
            return None
        ill = self._ill(rule, progress, tokens)
        if ill is not None:
            return Stop(ill)
        done = int(progress * BINS)
        found = None
        if done > self._looked:
            self._looked = done
            if progress * self._budget >= FORECAST_SECONDS:
                found = forecast(rule, self.curve, done - 1)
        if found is None or not _too_small(found, rule, done - 1):
            return None
        return None if _disturbed(rule, busy) else found

    def _ill(self, rule: StopRule, progress: float, tokens: int) -> str | None:
        """Return what is wrong with the trial whatever its prospects, or None."""
        silent = progress - self._last_loss
        if self._bad and silent >= SILENT_BINS / BINS:
            return f"diverged: its loss has not been a finite number since {self._last_loss:.0%} of the time"
        done = int(progress * BINS) - 1
        latest = self.curve[done] if done > 0 else None
        if latest is not None and self._first is not None and latest > EXPLODED * self._first > 0.0:
            return f"diverged: its loss went from {self._first:.4g} to {latest:.4g} nats"
        if (progress - self._last_sign) * self._budget >= max(STALL_SECONDS, STALL_SHARE * self._budget):
            return f"stalled: neither a batch nor a loss since {self._last_sign:.0%} of the time"
        long_enough = progress >= CRAWL_FROM and progress * self._budget >= CRAWL_SECONDS
        if long_enough and rule.tokens and tokens < CRAWL * progress * rule.tokens:
            ahead = see(as_array(self.curve), as_array(rule.curve))[done, 0] if done >= 0 else math.nan
            if not ahead < 0.0:
                return (
                    f"too slow: {tokens:,} tokens at {progress:.0%} of the time, "
                    f"where the best file saw {int(progress * rule.tokens):,}"
                )
        return None


def replay(rule: StopRule, curve: Curve) -> tuple[int, Stop | None]:
    """Return the part of the budget after which the rule ends a trial with this curve, and why; (BINS - 1, None) never.

    Only prospects are looked at.
    """
    for at in range(BINS - 1):
        found = forecast(rule, curve[: at + 1], at)
        if found is not None and _too_small(found, rule, at):
            return at, found
    return BINS - 1, None
