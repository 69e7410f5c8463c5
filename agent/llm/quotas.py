"""Quotas against timidity: how much the next proposal must change, and which categories it must leave alone.

They hold for every ten proposals in a row: at least three structural ones and a bold one besides. They hold whatever a
model does, for a proposal that breaks them is refused, and in the end made by other means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from autoresearch.agent.llm.taxonomy import KINDS, Change, Kind
from autoresearch.core.proposal import CATEGORIES, Attempt, InFlight

WINDOW = 10
STRUCTURAL, BOLD = 3, 1
"""At least so many in a window; a bold one counts as structural where there is more than one."""
IN_A_ROW = 3
"""The most proposals of one category, one after another."""
MISSES = 5
"""The last so many of a category without a keep: it rests."""
REST = 5
"""For so many proposals."""


@dataclass(frozen=True)
class Demand:
    """What the next proposal must be."""

    least: Kind
    closed: tuple[str, ...]
    why: str
    """In words, for whoever proposes; empty when everything goes."""

    def breach(self, change: Change) -> str | None:
        """What is wrong with a change, or None."""
        if KINDS.index(change.kind) < KINDS.index(self.least):
            found = "only changes numbers" if change.kind == "knob" else "is a small structural change"
            return f"This edit {found} ({', '.join(change.names) or 'numbers in functions'}), but {self.why}"
        if change.category in self.closed:
            return f"This edit is about {change.category} by what it changes, but {self.why}"
        return None


Proposed = TypeVar("Proposed", Attempt, InFlight)


def counted(proposals: Sequence[Proposed]) -> list[Proposed]:
    """The proposals that the quotas are about: a language model's and what stood in for it, repairs left out."""
    return [one for one in proposals if "kind" in one.parameters and one.parameters.get("operator") != "debug"]


def next_demand(attempts: Sequence[Attempt], in_flight: Sequence[InFlight] = ()) -> Demand:
    """From the run so far; what is in flight counts as proposed, and as neither kept nor missed."""
    own: list[Attempt | InFlight] = [*counted(attempts), *counted(in_flight)]
    kinds = [str(one.parameters["kind"]) for one in own]
    least: Kind = "knob"
    reasons = []
    recent = kinds[-(WINDOW - 1) :]
    structural = sum(kind != "knob" for kind in recent)
    if "bold" not in kinds[-(WINDOW - 2) :] and len(kinds) >= WINDOW - 3:
        least = "bold"
        reasons.append("a bold change is due: rewrite a mechanism, not a number")
    elif kinds[-2:] == ["knob", "knob"] or (len(recent) == WINDOW - 1 and structural < STRUCTURAL + BOLD):
        least = "structural"
        reasons.append("a structural change is due: code, not numbers")
    closed = _closed(own)
    if closed:
        reasons.append(f"these categories rest now: {', '.join(closed)}")
    return Demand(least, closed, "; ".join(reasons) + "." if reasons else "")


def _closed(own: Sequence[Attempt | InFlight]) -> tuple[str, ...]:
    """Categories that had their turn: three in a row, or five misses."""
    last = {one.category for one in own[-IN_A_ROW:]}
    in_a_row = last if len(own) >= IN_A_ROW and len(last) == 1 else set()
    resting = set()
    for category in {one.category for one in own}:
        at = [i for i, one in enumerate(own) if one.category == category]
        missed = all(_missed(own[i]) for i in at[-MISSES:])
        if len(at) >= MISSES and missed and len(own) - 1 - at[-1] < REST:
            resting.add(category)
    # Something must stay open.
    open_ones = set(CATEGORIES) - resting - in_a_row
    return tuple(sorted(in_a_row | (resting if len(open_ones) >= 4 else set())))


def _missed(one: Attempt | InFlight) -> bool:
    return isinstance(one, Attempt) and one.status != "keep"
