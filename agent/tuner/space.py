"""The numeric search space of a train file: which constants move, how far, and what holds them together.

Most of it follows from a constant's value: positive floats move on a log scale, powers of two stay powers of two, small
whole numbers move by one. What the value cannot tell (a momentum is searched as 1 - x, an epsilon is left alone)
stands in `facts.py`, by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoresearch.agent.syntax.constant_priors import Fact, Scale, fact_of
from autoresearch.agent.syntax.constants import Constant, Value

Number = int | float

_SIZES = {"DIM": 2.0, "DEPTH": 1.0, "MLP_RATIO": 0.7, "SEQ_LEN": 1.0, "DEVICE_BATCH_ROWS": 1.0, "VOCAB_SIZE": 0.5}
"""How the memory that a train file takes grows with each constant, as a power, about."""


@dataclass(frozen=True)
class Dimension:
    """One constant that may move. A coordinate is its place in [low, high], 0..1, on the dimension's scale."""

    name: str
    category: str
    scale: Scale
    low: float
    high: float
    integer: bool = False
    negative: bool = False
    """The magnitude is searched, the sign stays."""
    weight: float = 1.0
    towards: int = 0
    """The way to try first; 0 when neither is known to be better."""
    choices: tuple[Number, ...] = ()

    def coordinate(self, value: Number) -> float:
        """Value -> 0..1, clipped."""
        if self.scale == "choice":
            nearest = min(range(len(self.choices)), key=lambda i: abs(self.choices[i] - value))
            return nearest / (len(self.choices) - 1)
        low, high = self._ends
        return min(1.0, max(0.0, (self._warp(-value if self.negative else value) - low) / (high - low)))

    def value(self, coordinate: float) -> Number:
        """0..1 -> a value that is tidy to read: whole, a power of two, or of three digits."""
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
        """Of the box, on the scale."""
        return self._warp(self.low), self._warp(self.high)

    def _warp(self, value: Number) -> float:
        if self.scale == "log":
            return math.log(max(value, 1e-30))
        if self.scale == "power_of_two":
            return math.log2(max(value, 1.0))
        if self.scale == "complement":
            return -math.log(max(1.0 - value, 1e-9))
        return float(value)


def search_space(
    constants: Mapping[str, Constant],
    start: Mapping[str, Constant],
    vocabularies: Sequence[int] = (),
    widen: float = 1.0,
) -> tuple[Dimension, ...]:
    """The dimensions of a file with these constants.

    `start` are the constants of the run's first file: the box is drawn around its values, so it does not drift with
    the incumbent. `widen` raises every span to that power.
    """
    dimensions = []
    idle = idle_constants({name: constant.value for name, constant in constants.items()})
    for name, constant in constants.items():
        now = constant.value
        if name in idle:
            continue
        origin = start[name].value if name in start else now
        if isinstance(now, int | float) and not isinstance(now, bool):
            if not isinstance(origin, int | float) or isinstance(origin, bool) or (origin < 0) != (now < 0):
                origin = now
            dimension = _dimension(name, now, origin, vocabularies, widen)
            if dimension is not None:
                dimensions.append(dimension)
    return tuple(dimensions)


def idle_constants(values: Mapping[str, Value]) -> set[str]:
    """Constants that nothing reads while others stand as they do."""
    idle = set()
    if "S" not in str(values.get("WINDOW_PATTERN", "S")):
        idle.add("SHORT_WINDOW")
    if values.get("VALUE_EMBEDS") == "none":
        idle |= {"VALUE_EMBED_LR", "VALUE_EMBED_DECAY"}
    if values.get("TIE_HEAD") is True:
        idle |= {"HEAD_LR", "HEAD_INIT"}
    return idle


def _dimension(name: str, now: Number, origin: Number, vocabularies: Sequence[int], widen: float) -> Dimension | None:
    fact = fact_of(name)
    if fact.scale == "choice":
        choices = tuple(sorted({*vocabularies, int(now)}))
        return (
            Dimension(name, fact.category, "choice", 0, 1, choices=choices, weight=fact.weight) if choices[1:] else None
        )
    scale = fact.scale or _natural_scale(now, fact)
    if origin == 0 and fact.low == 0.0 and isinstance(now, float):
        scale = "linear"  # the box is drawn around the start, and around nothing there is no other
    if scale == "linear" and not (isinstance(now, float) and fact.low <= now <= fact.high):
        scale = _natural_scale(now, fact)
    if scale == "complement" and not (isinstance(now, float) and 0 < now < 1 and 0 < origin < 1):
        scale = _natural_scale(now, fact)
    if scale == "power_of_two" and not (_is_power_of_two(now) and _is_power_of_two(origin)):
        scale = _natural_scale(now, fact)
    if scale == "log" and now == 0:
        scale = "linear" if fact.high < math.inf else "held"
    if scale == "held":
        return None
    low, high = _bounds(scale, abs(origin), fact, fact.span**widen)
    low, high = min(low, abs(now)), max(high, abs(now))
    if isinstance(now, int) and scale in ("log", "whole"):
        low, high = max(1.0, math.floor(low)), math.ceil(high)
    if not low < high:
        return None
    return Dimension(name, fact.category, scale, low, high, isinstance(now, int), now < 0, fact.weight, fact.towards)


def _natural_scale(value: Number, fact: Fact) -> Scale:
    if isinstance(value, int):
        if value == 0:
            return "held"
        if _is_power_of_two(value) and abs(value) >= 16:
            return "power_of_two"
        return "whole" if abs(value) < 16 else "log"
    if value == 0:
        # Nothing says how large it should be, except that a decay is a small share.
        return "linear" if fact.low == 0.0 else "held"
    return "log"


def _bounds(scale: Scale, origin: float, fact: Fact, span: float) -> tuple[float, float]:
    if scale == "complement":
        return max(fact.low, 1 - (1 - origin) * span), min(fact.high, 1 - (1 - origin) / span)
    if scale == "linear":
        return max(fact.low, 0.0), fact.high if fact.high < math.inf else max(0.2, 2 * origin)
    return max(fact.low, origin / span), min(fact.high, origin * span)


def _is_power_of_two(value: Number) -> bool:
    return isinstance(value, int) and value > 0 and not value & (value - 1)


def repair(values: Mapping[str, Number]) -> dict[str, Number]:
    """The nearest values that fit together; names that are not there are passed over.

    DIM becomes a multiple of HEAD_DIM, and BATCH_TOKENS a multiple of DEVICE_BATCH_ROWS * SEQ_LEN, by fewer rows where
    that is enough. A window is no longer than the sequence; warm-up and warm-down do not overlap.
    """
    fixed = dict(values)
    if {"DIM", "HEAD_DIM"} <= fixed.keys():
        fixed["DIM"] = max(1, round(fixed["DIM"] / fixed["HEAD_DIM"])) * fixed["HEAD_DIM"]
    if {"BATCH_TOKENS", "SEQ_LEN"} <= fixed.keys():
        sequences = max(1, round(fixed["BATCH_TOKENS"] / fixed["SEQ_LEN"]))
        rows = int(fixed.get("DEVICE_BATCH_ROWS", 1))
        if rows < sequences:
            sequences = round(sequences / rows) * rows
        fixed["BATCH_TOKENS"] = sequences * fixed["SEQ_LEN"]
        if "DEVICE_BATCH_ROWS" in fixed:
            fixed["DEVICE_BATCH_ROWS"] = min(rows, sequences)
    if {"SHORT_WINDOW", "SEQ_LEN"} <= fixed.keys():
        fixed["SHORT_WINDOW"] = min(fixed["SHORT_WINDOW"], fixed["SEQ_LEN"])
    if {"WARMUP", "WARMDOWN"} <= fixed.keys():
        fixed["WARMUP"] = round(max(0.0, min(fixed["WARMUP"], 1.0 - fixed["WARMDOWN"])), 6)
    return fixed


def footprint(values: Mapping[str, Number]) -> float:
    """What the file's memory is about proportional to; comparable between files with the same constants."""
    return math.prod(float(values[name]) ** power for name, power in _SIZES.items() if values.get(name, 0) > 0)
