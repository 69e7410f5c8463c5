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
train file's own word. A lie can cost the file its trial or spare it from being ended, and it never brings a score: a
trial that was ended is never kept, and one that was not is scored as always.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoresearch.core.judge.posterior import normal_cdf, normal_score

BINS = 20
"""Parts of the budget in which a curve is kept."""
EARLIEST = 4
"""Parts of the budget before the first forecast: warm-ups differ, and say little."""
WINDOW = 3
"""Parts over which a gap is averaged: one part holds few batches."""
EPSILON = 0.03
"""Chance of being worth more trials below which a trial is ended. Every part of the budget is another look."""
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
SILENT_BINS = 2
"""Parts of the budget without any finite loss, after finite ones, that count as divergence."""
EXPLODED = 2.0
"""Factor above its first loss at which a loss counts as exploded."""
STALL_SHARE, STALL_SECONDS = 0.5, 10.0
"""Share of the budget, and least seconds, without a batch or a logged loss that count as a stall."""
CRAWL_FROM, CRAWL_SECONDS, CRAWL = 0.3, 5.0, 0.05
"""Progress and seconds of training from which the speed is looked at, and the share of the incumbent's tokens that is
hopeless. In less time a busy machine can keep any file from its first step."""

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
    def seen(self) -> tuple[tuple[float, float], ...]:
        """Return gap and closing part in each part of the budget from EARLIEST on, in bits per byte; NaN for none."""
        found = []
        for at in range(EARLIEST, BINS):
            here = gap(self.curve, self.incumbent, at)
            ahead = 0.0 if here is None else closing(self.curve, self.incumbent, at)
            found.append((math.nan, math.nan) if here is None else (self.unit * here, self.unit * ahead))
        return tuple(found)


@dataclass(frozen=True)
class Forecast:
    """The regression for one part of the budget. Gaps and differences are in bits per byte."""

    coefficients: tuple[float, ...]
    """Coefficients of 1, the gap and its closing part."""
    covariance: tuple[tuple[float, ...], ...]
    """Their covariance, in units of the squared spread."""
    spread: float
    growth: float
    curl: float
    """Growth of the error with the gap and its closing part, in units of the spread."""
    dof: float

    def difference(self, gap: float, closing: float) -> tuple[float, float]:
        """Predict the difference at the end: its mean and the scale of its t distribution."""
        x = (1.0, gap, closing)
        mean = sum(one * value for one, value in zip(self.coefficients, x, strict=True))
        known = sum(
            a * b * value for a, row in zip(x, self.covariance, strict=True) for b, value in zip(x, row, strict=True)
        )
        return mean, self.spread * math.sqrt(
            1.0 + (self.growth * gap) ** 2 + (self.curl * closing) ** 2 + max(0.0, known)
        )


@dataclass(frozen=True)
class Target:
    """The score that a trial needs to be worth more than its own time."""

    val_bpb: float | None
    """The val_bpb from which on it is worthless; None where only its own health counts."""
    noise: float
    """Paired noise in bits per byte."""


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
    forecasts: tuple[Forecast, ...] = ()
    """One for each part of the budget from EARLIEST on."""
    tokens: int | None = None
    """Tokens that the incumbent saw at that seed."""
    epsilon: float = EPSILON


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
    return score / last if last is not None and last > 0.0 and score > 0.0 else None


def gap(mine: Curve, theirs: Curve, at: int) -> float | None:
    """Return how far a loss is above another at part `at` of the budget, in nats, averaged over the last WINDOW parts.

    None where the trial logged nothing in them, or the other one nothing before and after.
    """
    found = []
    for i in range(max(0, at - WINDOW + 1), at + 1):
        own = mine[i] if i < len(mine) else None
        other = _at(theirs, i)
        if own is not None and other is not None:
            found.append(own - other)
    return sum(found) / len(found) if found else None


def closing(mine: Curve, theirs: Curve, at: int) -> float:
    """Return how much of the gap at part `at` its trend would close until the end, in nats.

    The trend since half the time is carried on as the other curve's own fall goes on; 0 where there is none.
    """
    half = at // 2
    now, before = gap(mine, theirs, at), gap(mine, theirs, half)
    here, there, last = _at(theirs, at), _at(theirs, half), _at(theirs, BINS - 1)
    if now is None or before is None or here is None or there is None or last is None:
        return 0.0
    fallen, left = there - here, here - last
    if fallen <= 0.0 or left <= 0.0:
        return 0.0
    return (before - now) * min(MOST_AHEAD, left / fallen)


def roughness(curve: Curve) -> float:
    """Estimate the standard deviation of one part's mean about a smooth curve, in nats, from second differences."""
    values = [_at(curve, i) for i in range(EARLIEST, BINS)]
    bends = [
        here - 0.5 * (before + after)
        for before, here, after in zip(values, values[1:], values[2:], strict=False)
        if before is not None and here is not None and after is not None
    ]
    return math.sqrt(sum(one * one for one in bends) / (1.5 * len(bends))) if bends else 0.0


def learn(lessons: Sequence[Lesson], curve: Curve, unit: float, noise: float) -> tuple[Forecast, ...]:
    """Return the regression of each part of the budget from EARLIEST on; `curve` is the present incumbent's."""
    last, rough = _at(curve, BINS - 1), unit * roughness(curve)
    expected = []
    for at in range(EARLIEST, BINS):
        here = _at(curve, at)
        left = max(0.0, here - last) if here is not None and last is not None else 0.0
        # Two curves, each averaged over WINDOW parts; what is rough in one part is so in the others.
        expected.append(math.hypot(WANDER * unit * left, FLOOR * noise, rough * math.sqrt(2.0 / WINDOW)))
    latest = lessons[-LESSONS:]
    return _regress(
        np.array([one.seen for one in latest]).reshape(-1, BINS - EARLIEST, 2),
        np.array([one.difference for one in latest]),
        np.array(expected),
    )


def _regress(seen: np.ndarray, differences: np.ndarray, expected: np.ndarray) -> tuple[Forecast, ...]:
    """Fit the conjugate regression of each part of the budget from EARLIEST on, all at once.

    `seen` holds gap and closing part by lesson and part, NaN where a lesson has none; `expected` the spread expected in
    each part.
    """
    progress = (np.arange(EARLIEST, BINS) + 1) / BINS
    slope, loose, share = (early + (late - early) * progress for early, late in (SLOPE, SLOPE_SPREAD, GROWTH))
    growth, curl = share / expected, CURL / expected
    prior = np.column_stack([np.zeros_like(slope), slope, np.full_like(slope, -CLOSING)])
    # Precisions in units of the spread.
    precision = np.column_stack(
        [np.full_like(slope, OFFSET**-2), (expected / loose) ** 2, (expected / CLOSING_SPREAD) ** 2]
    )
    known = ~np.isnan(seen[:, :, 0])
    gaps, closings = (np.where(known, seen[:, :, i], 0.0) for i in (0, 1))
    x = np.stack([np.ones_like(gaps), gaps, closings], axis=2)
    weights = known / (1.0 + (growth * gaps) ** 2 + (curl * closings) ** 2)
    weighted = x * weights[:, :, None]
    after = np.einsum("lbi,lbj->bij", weighted, x)
    after[:, range(3), range(3)] += precision
    covariance = np.linalg.inv(after)
    mean = np.einsum("bij,bj->bi", covariance, precision * prior + np.einsum("lbi,l->bi", weighted, differences))
    dof = PRIOR_DOF + known.sum(axis=0)
    errors = differences[:, None] - np.einsum("lbi,bi->lb", x, mean)
    squares = (
        PRIOR_DOF * expected**2 + (weights * errors**2).sum(axis=0) + (precision * (mean - prior) ** 2).sum(axis=1)
    )
    spread = np.sqrt(squares / dof)
    return tuple(
        Forecast(tuple(line), tuple(map(tuple, matrix)), *rest)
        for line, matrix, *rest in zip(
            *(part.tolist() for part in (mean, covariance, spread, growth, curl, dof.astype(float))), strict=True
        )
    )


def _at(curve: Curve, i: int) -> float | None:
    """Return a curve's value, between its neighbours where that part has none; None outside what it holds."""
    if i < len(curve) and curve[i] is not None:
        return curve[i]
    before = next((j for j in range(min(i, len(curve)) - 1, -1, -1) if curve[j] is not None), None)
    after = next((j for j in range(i + 1, len(curve)) if curve[j] is not None), None)
    if before is None or after is None:
        return None
    low, high = curve[before], curve[after]
    assert low is not None and high is not None
    return low + (high - low) * (i - before) / (after - before)


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
    seen = gap(curve, rule.curve, at)
    if seen is None:
        return None
    regression = rule.forecasts[at - EARLIEST]
    mean, scale = regression.difference(rule.unit * seen, rule.unit * closing(curve, rule.curve, at))
    dof = regression.dof
    chance = normal_cdf(normal_score((rule.needs - rule.score - mean) / scale, dof))
    predicted, wide = rule.score + mean, scale * _quantile(dof)
    reason = (
        f"its training loss is {seen:+.3f} nats from the best file's at {(at + 1) / BINS:.0%} of the time: "
        f"about {predicted:.4f} bpb at the end ({predicted - wide:.4f} to {predicted + wide:.4f}), "
        f"{100 * chance:.2g} % likely to be worth a second trial"
    )
    return Stop(reason, predicted, (predicted - wide, predicted + wide), chance)


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

    def look(self, progress: float, tokens: int) -> Stop | None:
        """Return the reason to end the trial now, or None. Cheap enough to be called several times a second."""
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
            found = forecast(rule, self.curve, done - 1)
        return found if found is not None and found.chance is not None and found.chance < rule.epsilon else None

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
            ahead = gap(self.curve, rule.curve, done) if done >= 0 else None
            if ahead is None or ahead >= 0.0:
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
        if found is not None and found.chance is not None and found.chance < rule.epsilon:
            return at, found
    return BINS - 1, None
