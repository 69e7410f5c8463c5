"""Stacks on plain numbers: how much of a stack's gain is each part's, and which parts go on when it is discarded.

A stack is one candidate made of several changes that each looked better in its first trial. Gains are taken as
additive: the parts' own differences give each a belief, and the stack's measured difference, which is the sum of them
all, corrects the beliefs together (conditioning independent normals on a noisy sum).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoresearch.core.judge.posterior import moments, normal_cdf

SHARES = "parts"
"""Fact of a stack's decision: the share of each part."""
STACK = "stack"
"""Fact of a part's decision: the stack that it was decided with; None where it had nothing to add to the best file."""
REFUTED = 2.5
"""Standard deviations between a stack's difference and the sum of its parts' from which on their gains do not add up.
The stack's result then says nothing of a single part."""
HOPEFUL = 0.8
"""Least probability that a part of a discarded stack is better with which it is measured further."""


@dataclass(frozen=True)
class Part:
    """One change of a stack, as its own first trial measured it. Bits per byte; negative is better."""

    experiment: int
    value: float
    """Difference from the source that it edits."""
    error: float
    """Its standard error."""


@dataclass(frozen=True)
class Share:
    """A part's share of its stack's gain. Bits per byte; negative is better."""

    experiment: int
    value: float
    error: float
    better: float
    """Probability that the part makes the source better."""


@dataclass(frozen=True)
class TakenApart:
    """The way on for the parts of a discarded stack."""

    groups: tuple[tuple[int, ...], ...]
    """Experiments to try together next; one alone is raced by itself."""
    dropped: tuple[int, ...]
    """Experiments to discard."""


def shares_in(facts: Mapping[str, Any]) -> list[Share]:
    """Read the shares of a decided stack from its decision's facts; none for any other experiment."""
    found = facts.get(SHARES)
    if not isinstance(found, list):
        return []
    return [Share(one["experiment"], one["share"], one["error"], one["better"]) for one in found]


def facts_of(shares: Sequence[Share]) -> list[dict[str, float]]:
    """Return shares as a decision's facts hold them under `SHARES`."""
    return [{"experiment": s.experiment, "share": s.value, "error": s.error, "better": s.better} for s in shares]


def share_out(parts: Sequence[Part], value: float, error: float, sigma: float) -> list[Share]:
    """Split a stack's difference, `value` with its standard error, over its parts; `sigma` is the paired noise.

    Where the gains do not add up (REFUTED), the parts' own beliefs stay as they are.
    """
    own = [moments(one.value, one.error, sigma) for one in parts]
    scale = sum(spread for _, spread in own) + error**2
    gap = value - sum(mean for mean, _ in own) if additive(parts, value, error, sigma) else 0.0
    shares = []
    for one, (mean, spread) in zip(parts, own, strict=True):
        known = spread - (spread**2 / scale if gap else 0.0)
        mean += gap * spread / scale
        deviation = math.sqrt(max(known, 1e-12 * sigma**2, 1e-300))
        shares.append(Share(one.experiment, mean, deviation, normal_cdf(-mean / deviation)))
    return shares


def additive(parts: Sequence[Part], value: float, error: float, sigma: float) -> bool:
    """Tell whether a stack's difference agrees with the sum of its parts' within REFUTED standard deviations."""
    own = [moments(one.value, one.error, sigma) for one in parts]
    scale = sum(spread for _, spread in own) + error**2
    return abs(value - sum(mean for mean, _ in own)) <= REFUTED * math.sqrt(scale)


def take_apart(parts: Sequence[Part], measured: tuple[float, float] | None, sigma: float) -> TakenApart:
    """Plan how to go on after a stack was discarded; `measured` is its difference and the standard error of it.

    Without a measurement, after a crash for one, and where the gains do not add up, nothing is known of a single part:
    the stack is halved, the strongest parts together. Otherwise the parts that are still likely better are tried again,
    in halves where that are all of them, and the others are dropped.
    """
    ranked = [one.experiment for one in sorted(parts, key=lambda one: (one.value, one.experiment))]
    if measured is None or not additive(parts, *measured, sigma):
        return TakenApart(halves(ranked), ())
    better = {one.experiment: one.better for one in share_out(parts, *measured, sigma)}
    hopeful = [number for number in ranked if better[number] >= HOPEFUL]
    dropped = tuple(number for number in ranked if better[number] < HOPEFUL)
    if not dropped:
        return TakenApart(halves(ranked), ())
    return TakenApart((tuple(hopeful),) if hopeful else (), dropped)


def halves(ranked: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Split into two groups, the first half in one."""
    middle = (len(ranked) + 1) // 2
    return tuple(tuple(one) for one in (ranked[:middle], ranked[middle:]) if one)
