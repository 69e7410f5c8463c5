"""The numeric search space of a train file: which constants move, on which scale, and how far.

Most of it follows from a constant's value: positive floats move on a log scale, powers of two stay powers of two, small
whole numbers move by one. What the value cannot tell (a momentum is searched as 1 - x, an epsilon is left alone)
stands in `syntax/constant_priors.py`, by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoresearch.agent.syntax.constant_priors import ConstantPrior, Scale, idle_constants, is_switch, prior_of
from autoresearch.agent.syntax.constants import Number, constants_of, unread_constants
from autoresearch.core.proposal import History
from autoresearch.core.trainfile.constants import ConstantValue, is_number

SMALLEST, LARGEST = math.ulp(0.0), 1e290
"""Smallest positive number, and the largest magnitude that moves: a span beyond it is still no infinity. An int may be
larger than any float."""


@dataclass(frozen=True)
class Dimension:
    """One constant that may move. A coordinate is its place between `low` (0) and `high` (1) on its scale."""

    name: str
    category: str
    scale: Scale
    low: float
    high: float
    integer: bool = False
    negative: bool = False
    """True for a negative constant: its magnitude is searched, its sign stays."""
    weight: float = 1.0
    towards: int = 0
    """Direction to try first: 1, -1, or 0 when neither is known to be better."""
    choices: tuple[Number, ...] = ()

    def coordinate(self, value: Number) -> float:
        """Turn a value into a coordinate, 0..1; beyond an end it is that end."""
        if self.scale == "choice":
            nearest = min(range(len(self.choices)), key=lambda i: abs(self.choices[i] - value))
            return nearest / (len(self.choices) - 1)
        low, high = self._ends
        return min(1.0, max(0.0, (self._warp(-value if self.negative else value) - low) / (high - low)))

    def value(self, coordinate: float) -> Number:
        """Turn a coordinate into a value that is tidy to read: whole, a power of two, or of three digits."""
        coordinate = min(1.0, max(0.0, coordinate))
        if self.scale == "choice":
            return self.choices[round(coordinate * (len(self.choices) - 1))]
        low, high = self._ends
        position = low + coordinate * (high - low)
        magnitude: Number
        if self.scale == "power_of_two":
            magnitude = int(2 ** round(position))
        elif self.scale == "complement":
            magnitude = round(1.0 - float(f"{math.exp(-position):.2g}"), 6)
        elif self.integer:
            magnitude = round(math.exp(position) if self.scale == "log" else position)
        else:
            magnitude = float(f"{math.exp(position) if self.scale == 'log' else position:.3g}")
        return -magnitude if self.negative else magnitude

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """`low` and `high` on the scale."""
        return self._warp(self.low), self._warp(self.high)

    def _warp(self, value: Number) -> float:
        if self.scale == "log":
            return math.log(max(value, SMALLEST))
        if self.scale == "power_of_two":
            return math.log2(max(value, 1.0))
        if self.scale == "complement":
            return -math.log(max(1.0 - value, 1e-9))
        return float(value)


def space_of(history: History, widen: float = 1.0) -> tuple[Dimension, ...]:
    """Find the dimensions of a run's incumbent.

    The box of a constant that a kept change has brought or switched on is drawn around the value that it came with.
    """
    now = constants_of(history.incumbent.source)
    start = constants_of(history.attempts[0].source) if history.attempts else dict(now)
    for attempt in history.attempts:
        if attempt.status != "keep":
            continue
        for name, value in constants_of(attempt.source).items():
            before = start.get(name)
            if before is None or (is_number(before) and not before and value and is_switch(name)):
                start[name] = value
    unread = unread_constants(history.incumbent.source)
    return tuple(one for one in search_space(now, start, history.vocabularies, widen) if one.name not in unread)


def search_space(
    constants: Mapping[str, ConstantValue],
    start: Mapping[str, ConstantValue],
    vocabularies: Sequence[int] = (),
    widen: float = 1.0,
) -> tuple[Dimension, ...]:
    """Find the dimensions of a file with these constants.

    `start` are the constants of the run's first file: the box is drawn around its values, so it does not drift with
    the incumbent. `widen` raises every span to that power.
    """
    dimensions = []
    idle = idle_constants(constants)
    for name, now in constants.items():
        if name in idle or not is_number(now):
            continue
        origin = start.get(name, now)
        if not is_number(origin) or (origin < 0) != (now < 0) or (not origin and now and is_switch(name)):
            origin = now
        dimension = _dimension(name, now, origin, vocabularies, widen)
        if dimension is not None:
            dimensions.append(dimension)
    return tuple(dimensions)


def _dimension(name: str, now: Number, origin: Number, vocabularies: Sequence[int], widen: float) -> Dimension | None:
    prior = prior_of(name)
    if prior.scale == "choice":
        choices = tuple(sorted({*vocabularies, int(now)}))
        if len(choices) < 2:
            return None
        return Dimension(name, prior.category, "choice", 0, 1, choices=choices, weight=prior.weight)
    if max(abs(now), abs(origin)) > LARGEST:
        return None
    scale = prior.scale or _natural_scale(now, prior)
    if origin == 0 and prior.low == 0.0 and isinstance(now, float):
        scale = "linear"  # the box is drawn around the start, and around zero no other scale has one
    if scale == "linear" and not (isinstance(now, float) and prior.low <= now <= prior.high):
        scale = _natural_scale(now, prior)
    if scale == "complement" and not (isinstance(now, float) and 0 < now < 1 and 0 < origin < 1):
        scale = _natural_scale(now, prior)
    if scale == "power_of_two" and not (_is_power_of_two(now) and _is_power_of_two(origin)):
        scale = _natural_scale(now, prior)
    if scale == "log" and now == 0:
        scale = "linear" if prior.high < math.inf else "held"
    if scale == "held":
        return None
    low, high = _bounds(scale, abs(origin), prior, prior.span**widen)
    low, high = min(low, abs(now)), max(high, abs(now))
    if isinstance(now, int) and scale in ("log", "whole"):
        low, high = max(1.0, math.floor(low)), math.ceil(high)
    if not low < high:
        return None
    return Dimension(name, prior.category, scale, low, high, isinstance(now, int), now < 0, prior.weight, prior.towards)


def _natural_scale(value: Number, prior: ConstantPrior) -> Scale:
    if isinstance(value, int):
        if value == 0:
            return "held"
        if _is_power_of_two(value) and abs(value) >= 16:
            return "power_of_two"
        return "whole" if abs(value) < 16 else "log"
    if value == 0:
        # Nothing says how large it should be, except that a decay is a small share.
        return "linear" if prior.low == 0.0 else "held"
    return "log"


def _bounds(scale: Scale, origin: float, prior: ConstantPrior, span: float) -> tuple[float, float]:
    if scale == "complement":
        return max(prior.low, 1 - (1 - origin) * span), min(prior.high, 1 - (1 - origin) / span)
    if scale == "linear":
        return max(prior.low, 0.0), prior.high if prior.high < math.inf else max(0.2, 2 * origin)
    return max(prior.low, origin / span), min(prior.high, origin * span)


def _is_power_of_two(value: Number) -> bool:
    return isinstance(value, int) and value > 0 and not value & (value - 1)
