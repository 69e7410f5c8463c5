"""What became in a run of what others have found, from its own ledger alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from autoresearch.core.proposal import Attempt, Origin, Outcome
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow

Tried = TypeVar("Tried", Attempt, ExperimentRow)
KNOWN, GONE = "finding", "finding gone"
"""Events of the ledger: a finding was seen for the first time, and its run has given it up."""


@dataclass(frozen=True)
class Transfer:
    """A finding of another run, and what became of it here. Deltas are bits per byte on different devices."""

    origin: Origin
    hypothesis: str
    """In the words of the run that found it."""
    category: str
    outcome: Outcome
    experiment: int | None
    """That tried it here, or tries it."""
    delta: float | None
    """Here."""
    gone: bool
    """Its run has given it up since."""
    tried_as: str | None = None
    """What that experiment changes, in the words of who proposed it: not all of a finding may have a counterpart."""


def transfers_of(reader: LedgerReader) -> tuple[Transfer, ...]:
    """Every finding that was offered to the run: by run, those that were tried first, then by gain there."""
    known = {origin_of(event): event for event in reader.events(KNOWN)}
    if not known:
        return ()  # so of every ledger from before there were findings
    gone = {origin_of(event) for event in reader.events(GONE)}
    tries = tries_of(reader.with_origin())
    found = []
    for origin, event in known.items():
        tried = tries.get(origin)
        outcome: Outcome = "untried" if tried is None else tried.status or "in flight"
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
    return tuple(sorted(found, key=_place))


def tries_of(experiments: Iterable[Tried]) -> dict[Origin, Tried]:
    """What tried each finding here. Where that were several, a keep counts, else the last."""
    tries: dict[Origin, Tried] = {}
    for one in experiments:
        if one.origin is not None and (one.origin not in tries or tries[one.origin].status != "keep"):
            tries[one.origin] = one
    return tries


def _place(one: Transfer) -> tuple[str, str, bool, float]:
    return one.origin.run, one.origin.device, one.outcome == "untried", one.origin.delta or 0.0


def origin_of(event: dict[str, Any]) -> Origin:
    """From an event's payload."""
    return Origin(event["run"], event["experiment"], event["backend"], event["device"], event.get("delta"))


def counts(transfers: Sequence[Transfer]) -> list[dict[str, Any]]:
    """For every run whose findings were offered: how many there were, were tried here, and held."""
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
