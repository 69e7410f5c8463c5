"""Stacks, candidates made of several changes: which experiments are their parts, and which of them are kept with one.

A stack that is kept leaves its parts with a discard as their own verdict. Whoever asks which changes the best file
holds must ask `kept_parts` as well.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Protocol

STACKER = "stacks"
"""Researcher of every stack, in the ledger and in messages."""
PARTS = "stack"
"""Parameter of a stack: the numbers of its parts, with spaces between them."""
LONGEST_NUMBER = 18
"""Most digits of an experiment's number."""


class Proposed(Protocol):
    """An experiment, as far as it tells whether it is a stack: a row of the ledger, or an attempt."""

    @property
    def researcher(self) -> str:
        """Return who proposed it."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return the proposal's parameters."""
        ...

    @property
    def status(self) -> str | None:
        """Return its verdict; None without one."""
        ...


def members_of(experiment: Proposed) -> tuple[int, ...]:
    """Return the numbers of a stack's parts; none for any other experiment."""
    named = experiment.parameters.get(PARTS) if experiment.researcher == STACKER else None
    words = named.split() if isinstance(named, str) else ()  # a ledger may hold anything
    return tuple(int(one) for one in words if one.isdecimal() and len(one) <= LONGEST_NUMBER)


def kept_parts(experiments: Iterable[Proposed]) -> frozenset[int]:
    """Return the experiments whose change is kept as a part of a stack: their own verdict is a discard."""
    return frozenset(number for one in experiments if one.status == "keep" for number in members_of(one))


class Attempted(Protocol):
    """An experiment with its number and its own verdict."""

    @property
    def experiment(self) -> int:
        """Return its number."""
        ...

    @property
    def status(self) -> str | None:
        """Return its verdict; None without one."""
        ...


def is_kept(one: Attempted, parts: Container[int]) -> bool:
    """Tell whether a change was kept, by itself or as one of the `kept_parts`."""
    return one.status == "keep" or one.experiment in parts
