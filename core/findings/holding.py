"""The chance that a peer run's change helps here, by category, learnt from those that this run has tried.

A schedule may travel from a laptop to a data centre where a batch size does not. Each category's rate starts from the
rate of all categories together, and that one from an even chance, so that one result moves it a little and many decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoresearch.core.proposal import Attempt, Finding
from autoresearch.core.stack_parts import kept_parts

PRIOR_TRIES = 2.0
"""Tries that the even chance counts as, for all categories together."""
POOLED_TRIES = 4.0
"""Tries that the rate of all categories counts as, for one category."""
USUAL_GAIN = 0.5
"""Gain of a change whose gain there is not known, as a share of the median of those that are."""


@dataclass(frozen=True)
class HoldingRate:
    """The chance that a change of one category, kept on another device, is kept here."""

    category: str
    tried: int
    held: int
    rate: float
    """Between 0 and 1, prior included."""


def holding_rates(attempts: Iterable[Attempt]) -> dict[str, HoldingRate]:
    """Count what held of the changes that this run has tried, by category; crashes count as tried.

    A category without a try is missing: `rate_of` returns its chance.
    """
    every, tried = list(attempts), dict[str, list[bool]]()
    parts = kept_parts(every)
    for one in every:
        if one.origin is not None:
            tried.setdefault(one.category, []).append(one.status == "keep" or one.experiment in parts)
    everything = [held for group in tried.values() for held in group]
    pooled = _chance(sum(everything), len(everything), 0.5, PRIOR_TRIES)
    return {
        category: HoldingRate(category, len(group), sum(group), _chance(sum(group), len(group), pooled, POOLED_TRIES))
        for category, group in tried.items()
    }


def rate_of(rates: dict[str, HoldingRate], category: str) -> float:
    """Return a category's chance of holding; that of all categories together where none of it was tried."""
    if category in rates:
        return rates[category].rate
    held, tried = sum(one.held for one in rates.values()), sum(one.tried for one in rates.values())
    return _chance(held, tried, 0.5, PRIOR_TRIES)


def by_promise(findings: Sequence[Finding], attempts: Sequence[Attempt]) -> list[Finding]:
    """Sort changes by the gain that may be expected of them here: the gain there times the chance that it holds.

    Gains compare within one peer run alone. So each counts as a share of its run's largest one.
    """
    rates = holding_rates(attempts)
    largest: dict[tuple[str, str, str], float] = {}
    for one in findings:
        gain = max(0.0, -(one.origin.delta or 0.0))
        largest[one.origin.identity] = max(largest.get(one.origin.identity, 0.0), gain)

    def promise(one: Finding) -> float:
        most = largest[one.origin.identity]
        share = max(0.0, -(one.origin.delta or 0.0)) / most if most else USUAL_GAIN
        return share * rate_of(rates, one.category)

    # A stable sort: where nothing was tried yet, equal promises stay in the order of the gains there.
    return sorted(findings, key=lambda one: -promise(one))


def _chance(held: int, tried: int, expected: float, weight: float) -> float:
    """Return the share that held, where `expected` counts as `weight` tries of its own."""
    return (held + weight * expected) / (tried + weight)
