"""Transfers: the changes of peer runs that were offered to a run and what became of them, by its own ledger alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from autoresearch.core.proposal import Attempt, Origin, Outcome, Status
from autoresearch.core.stack_parts import STACKER, kept_parts
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow

Tried = TypeVar("Tried", Attempt, ExperimentRow)
KNOWN, GONE = "finding", "finding gone"
"""Names of ledger events: a peer's change was seen for the first time; its run has given the change up."""


@dataclass(frozen=True)
class Transfer:
    """A peer run's change and what became of it here. The two deltas are bits per byte on different devices."""

    origin: Origin
    hypothesis: str
    """The change as the peer run describes it."""
    category: str
    outcome: Outcome
    experiment: int | None
    """Number of the experiment here that has tried it, or is trying it."""
    delta: float | None
    """Gain here, bits per byte; negative is better."""
    gone: bool
    """True when the peer run no longer keeps it."""
    tried_as: str | None = None
    """Description of the experiment here. It may carry over a part of the change only."""


def transfers_of(reader: LedgerReader) -> tuple[Transfer, ...]:
    """List every change that was offered to the run: by peer run, tried ones first, then by the gain there."""
    known = {origin_of(event): event for event in reader.events(KNOWN)}
    if not known:
        return ()  # spares a ledger from before the column `origin` the query below
    gone = {origin_of(event) for event in reader.events(GONE)}
    parts = kept_parts(reader.of_researcher(STACKER))
    tries = tries_of(reader.with_origin(), parts)
    found = []
    for origin, event in known.items():
        tried = tries.get(origin)
        outcome: Outcome = "untried" if tried is None else outcome_of(tried, parts) or "in flight"
        found.append(
            Transfer(
                origin=origin,
                hypothesis=event["hypothesis"],
                category=event["category"],
                outcome=outcome,
                experiment=tried.number if tried is not None else None,
                delta=tried.delta if tried is not None else None,
                gone=origin in gone,
                tried_as=tried.hypothesis if tried is not None else None,
            )
        )
    return tuple(sorted(found, key=_sort_key))


def tries_of(experiments: Iterable[Tried], parts: frozenset[int]) -> dict[Origin, Tried]:
    """Map each change to the experiment that tried it here. Of several, take a kept one, else the last.

    `parts` are those that were kept as a part of a stack.
    """
    tries: dict[Origin, Tried] = {}
    for one in experiments:
        if one.origin is not None and (one.origin not in tries or outcome_of(tries[one.origin], parts) != "keep"):
            tries[one.origin] = one
    return tries


def outcome_of(tried: Attempt | ExperimentRow, parts: frozenset[int]) -> Status | None:
    """Return the verdict on the change that an experiment tried: kept, too, where it is one of the kept `parts`."""
    number = tried.experiment if isinstance(tried, Attempt) else tried.number
    return "keep" if number in parts else tried.status


def _sort_key(one: Transfer) -> tuple[str, str, bool, float]:
    return one.origin.run, one.origin.device, one.outcome == "untried", one.origin.delta or 0.0


def origin_of(event: dict[str, Any]) -> Origin:
    """Read the change's origin from an event's payload."""
    return Origin(event["run"], event["experiment"], event["backend"], event["device"], event.get("delta"))


def counts(transfers: Sequence[Transfer]) -> list[dict[str, Any]]:
    """Count for every peer run the changes that were offered, tried here, and kept here ("held")."""
    groups: dict[tuple[str, str, str], list[Transfer]] = {}
    for one in transfers:
        groups.setdefault(one.origin.identity, []).append(one)
    return [
        {
            "run": run,
            "backend": backend,
            "device": device,
            "offered": len(some),
            "tried": sum(one.outcome not in ("untried", "in flight") for one in some),
            "held": sum(one.outcome == "keep" for one in some),
        }
        for (run, backend, device), some in groups.items()
    ]
