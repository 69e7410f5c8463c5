"""Thinning curves to a number of points, and drawing them with characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
BRAILLE = 0x2800
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of a braille character's dots: its left column from the top, its right column from the top."""


def resample(values: Sequence[float], count: int) -> list[float]:
    """Thin values to at most `count`: means of neighbours, so that one odd value does not stand for many."""
    if count < 1:
        return []
    if len(values) <= count:
        return list(values)
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def best_so_far(keeps: Sequence[tuple[int, float]], length: int) -> list[float]:
    """Give the best value after each of `length` experiments, from the numbers and values of the kept ones."""
    best: list[float] = []
    for (number, value), (following, _) in zip(keeps, [*keeps[1:], (length, 0.0)], strict=False):
        best += [value] * max(following - number, 0)
    return best


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw values as one line of at most `width` blocks, low values low. Empty without values."""
    values = resample(values, width)
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def braille(values: Sequence[float], width: int, height: int) -> list[str]:
    """Draw values as `height` lines of at most `width` braille characters, low values at the foot.

    One character holds two values at four levels each.
    """
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
