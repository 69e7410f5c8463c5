"""Curves made of characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
BRAILLE = 0x2800
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""A braille character's dots: left column from the top, right column from the top."""


def resample(values: Sequence[float], count: int) -> list[float]:
    """At most `count` values: means of neighbours, so that one odd value does not stand for many."""
    if count < 1:
        return []
    if len(values) <= count:
        return list(values)
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def steps(keeps: Sequence[tuple[int, float]], length: int) -> list[float]:
    """The best so far after every experiment, from the numbers and values of the keeps."""
    best: list[float] = []
    for (number, value), (following, _) in zip(keeps, [*keeps[1:], (length, 0.0)], strict=False):
        best += [value] * max(following - number, 0)
    return best


def sparkline(values: Sequence[float], width: int) -> str:
    """One line of blocks, low values low. Empty without values."""
    values = resample(values, width)
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def braille(values: Sequence[float], width: int, height: int) -> list[str]:
    """`height` lines of at most `width` braille characters of two values by four levels; low values at the foot."""
    values = resample(values, 2 * width)
    if not values:
        return []
    low, high = min(values), max(values)
    scale = (4 * height - 1) / (high - low) if high > low else 0.0
    cells = [[0] * ((len(values) + 1) // 2) for _ in range(height)]
    for x, value in enumerate(values):
        y = 4 * height - 1 - round((value - low) * scale)
        cells[y // 4][x // 2] |= DOTS[x % 2][y % 4]
    return ["".join(chr(BRAILLE + cell) for cell in row) for row in cells]
