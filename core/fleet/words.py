"""What runs on one fleet and the sharing of its places (see sharing.py) tell each other: plain dicts and tuples.

Imports the standard library alone, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypedDict

Key = tuple[str, str, int]
"""A place: the node, "gpu" or "cpu", and which of them."""


class Word(TypedDict):
    """All that a run says of itself, every time: nothing is lost with a message."""

    run: str
    """Its name on the fleet; the same when its loop is started again."""
    session: str
    """One invocation of its loop."""
    tag: str
    host: str
    folder: str
    priority: float
    machine: str
    fits: list[Key]
    """Places that could run its trials."""
    held: list[Key]
    """Where its trials run. What it held before and is not here is given back."""
    asked: list[Key]
    """Offers that it wants to use."""
    paused: bool
    """As it heard last; believed by a sharing that does not know the run."""
    drained: list[str]
    """Likewise."""


class Neighbour(TypedDict):
    """Another run, in short."""

    tag: str
    host: str
    used: int


class Answer(TypedDict):
    """What a run is told."""

    held: list[Key]
    """Of what it holds and asked for, what it has."""
    offered: list[tuple[Key, float]]
    """Places it may use, and for how many seconds from its asking this holds at least."""
    paused: bool
    drained: list[str]
    share: float
    """Of the device-seconds of all runs that are there, 0..1."""
    others: list[Neighbour]


class RunReport(TypedDict):
    """A run, for people."""

    run: str
    tag: str
    host: str
    folder: str
    priority: float
    machine: str
    places: list[Key]
    used: list[Key]
    device_seconds: float
    share: float
    paused: bool


class Report(TypedDict):
    """Everything, for people."""

    runs: list[RunReport]
    drained: list[str]


class Places:
    """Some places, and which others cannot be used beside them: a trial on a CPU takes its node, whatever is in it."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys: set[Key] = set()
        self._kinds: set[tuple[str, str]] = set()
        for key in keys:
            self.add(key)

    def add(self, key: Key) -> None:
        """One more."""
        self._keys.add(key)
        self._kinds.add(key[:2])

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def conflict(self, key: Key) -> bool:
        """Whether that one is among them, or could not be used together with one of them."""
        node, kind, _ = key
        return key in self._keys or (node, "cpu" if kind == "gpu" else "gpu") in self._kinds


def conflict(a: Key, b: Key) -> bool:
    """Whether two places cannot be used at once."""
    return Places([a]).conflict(b)
