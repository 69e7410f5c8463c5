"""The peak role: measure how fast this device multiplies square matrices. It runs no train file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from autoresearch.core.trial.child.channel import Answered, Channel, Peak

SIZES = (512, 1024, 2048, 4096, 8192)
"""Sides of the square matrices."""
PRECISIONS = ("fp32", "bf16")
BLOCK_SECONDS = 0.1
"""Seconds of products between two looks at the clock, about."""
SIZE_SECONDS = 0.5
"""Seconds of measuring at one size."""
SLOW_SECONDS = 0.5
"""Seconds of one product above which no larger size is tried."""


def measure(runtime: Any, channel: Channel) -> None:
    """Send the best FLOP/s over all sizes, for every precision that the framework has."""
    for precision in PRECISIONS:
        try:
            flops, size = best(runtime.products, precision)
        except ValueError:  # a framework without this precision
            continue
        channel.send(Peak(precision, flops, size))
    channel.send(Answered())


def best(products: Callable[[int, str], Callable[[int], None]], precision: str) -> tuple[float, int]:
    """Return FLOP/s of the fastest block, and its size. A product of size n takes 2 n^3 FLOP."""
    found = (0.0, 0)
    for size in SIZES:
        multiply = products(size, precision)
        multiply(1)  # the first one also sets things up
        single = fastest(multiply, 1, 0.0)
        count = max(1, round(BLOCK_SECONDS / single))
        seconds = fastest(multiply, count, SIZE_SECONDS)
        found = max(found, (2.0 * size**3 * count / seconds, size))
        if single > SLOW_SECONDS:
            break
    return found


def fastest(multiply: Callable[[int], None], count: int, duration: float) -> float:
    """Return the seconds of the fastest block of `count` products, of those that fit into `duration` seconds.

    The fastest and not the mean: whatever else runs on the machine only ever makes a block slower.
    """
    ended = time.perf_counter() + duration
    shortest = float("inf")
    while True:
        started = time.perf_counter()
        multiply(count)
        now = time.perf_counter()
        shortest = min(shortest, now - started)
        if now >= ended:
            return shortest
