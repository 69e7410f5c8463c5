"""Quotas against timid proposals: how much the next one must change, and which categories it must leave alone.

Every ten proposals in a row hold at least three structural ones and a bold one besides. A proposal that breaks a quota
is refused; when the model keeps breaking it, the proposal is made without the model (`fallback.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from autoresearch.agent.llm.taxonomy import KINDS, Change, Kind
from autoresearch.core.proposal import CATEGORIES, Attempt, InFlight
from autoresearch.core.stack_parts import is_kept, kept_parts

WINDOW = 10
"""Number of proposals in a row that the quotas are about."""
STRUCTURAL, BOLD = 3, 1
"""Least number of structural and of bold proposals in a window; a second bold one counts as structural."""
IN_A_ROW = 3
"""Largest number of proposals of one category, one after another."""
MISSES = 5
"""Number of proposals of one category without an improvement, after which the category rests."""
REST = 5
"""Number of proposals for which it rests."""


GUESSED = "guessed"
"""Parameter of a proposal whose category is a guess."""


@dataclass(frozen=True)
class Demand:
    """Demands on the next proposal."""

    least: Kind
    """The smallest kind of change that is accepted."""
    closed: tuple[str, ...]
    """Categories that are refused."""
    why: str
    """The rule for the model to read; empty when everything is accepted."""

    def breach(self, change: Change) -> str | None:
        """Describe how a change breaks the demand; None when it does not."""
        if KINDS.index(change.kind) < KINDS.index(self.least):
            found = "only changes numbers" if change.kind == "knob" else "is a small structural change"
            return f"This edit {found} ({', '.join(change.names) or 'numbers in functions'}), but {self.why}"
        if change.category in self.closed and change.sure:
            return f"This edit is about {change.category} by what it changes, but {self.why}"
        return None


Proposed = TypeVar("Proposed", Attempt, InFlight)


def counted(proposals: Sequence[Proposed]) -> list[Proposed]:
    """Select the proposals that count: a language model's and those made in its place, repairs left out."""
    return [one for one in proposals if "kind" in one.parameters and one.parameters.get("operator") != "debug"]


def next_demand(attempts: Sequence[Attempt], in_flight: Sequence[InFlight] = ()) -> Demand:
    """Derive the demand from the run so far; an experiment in flight is neither kept nor missed yet."""
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
    closed = _closed(own, kept_parts(attempts))
    if closed:
        reasons.append(f"these categories rest now: {', '.join(closed)}")
    return Demand(least, closed, "; ".join(reasons) + "." if reasons else "")


def _closed(own: Sequence[Attempt | InFlight], parts: Collection[int]) -> tuple[str, ...]:
    """Return the closed categories: after three in a row, or while they rest after five misses.

    `parts` are the experiments that were kept as parts of stacks.
    """
    # A guess at a category closes none.
    categories = ["" if GUESSED in one.parameters else one.category for one in own]
    last = set(categories[-IN_A_ROW:])
    in_a_row = last - {""} if len(own) >= IN_A_ROW and len(last) == 1 else set()
    resting = set()
    for category in set(categories) - {""}:
        at = [i for i, name in enumerate(categories) if name == category]
        missed = all(_missed(own[i], parts) for i in at[-MISSES:])
        if len(at) >= MISSES and missed and len(own) - 1 - at[-1] < REST:
            resting.add(category)
    # Something must stay open.
    open_ones = set(CATEGORIES) - resting - in_a_row
    return tuple(sorted(in_a_row | (resting if len(open_ones) >= 4 else set())))


def _missed(one: Attempt | InFlight, parts: Collection[int]) -> bool:
    return isinstance(one, Attempt) and not is_kept(one, parts)
