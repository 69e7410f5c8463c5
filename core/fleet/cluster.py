"""The nodes of a cluster: what they have to give, which of them fit a run, and on which kind of device it runs.

Every device of a node is a place for one trial, and only nodes with the run's own device, framework, driver and code
have any, because bits per byte are compared within one kind of device.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from autoresearch.backends.contract import Device
from autoresearch.core.errors import ArError, PrerequisiteError
from autoresearch.core.fleet.fair_scheduler import Answer, Key, Report, Word
from autoresearch.core.fleet.node import Job, Node
from autoresearch.core.fleet.shipping import CorpusRef
from autoresearch.core.trial.request import IsolationLevel
from autoresearch.core.trial.sandbox.levels import STRENGTH

LOOKS_AT_ONCE = 16


class NodeLost(Exception):  # noqa: N818 - what an engine says of a node, told to people as `TrialLost`
    """The node, or what ran there, is gone."""


@dataclass(frozen=True)
class Room:
    """What a node has to give, as the engine counts it."""

    cpus: float
    gpus: float
    memory_bytes: float
    host: str = ""
    address: str = ""


@dataclass(frozen=True)
class Place:
    """One device of a node."""

    node: str
    index: int
    cpus: float
    gpus: float
    memory_bytes: float

    @property
    def key(self) -> Key:
        """Its name among all places of the fleet."""
        return self.node, "gpu" if self.gpus else "cpu", self.index


class Share(Protocol):
    """The fleet's one `Sharing`, from any machine. Any exception of any method: it does not answer now."""

    def sync(self, word: Word) -> Answer:
        """A run says how it is, and is told what it may use."""
        ...

    def leave(self, name: str, session: str) -> None:
        """A loop has ended."""
        ...

    def pause(self, name: str, paused: bool) -> bool:
        """Whether a run may start trials. Returns whether there is such a run."""
        ...

    def drain(self, node: str, drained: bool) -> None:
        """Whether a node is offered to nobody."""
        ...

    def report(self) -> Report:
        """How things stand."""
        ...


class Cluster(Protocol):
    """What an engine offers. Every method may be called from any thread."""

    def nodes(self) -> Mapping[str, Room]:
        """Those that live. Any exception: the cluster does not answer."""
        ...

    def look(self, node: str, backend: str, corpus: CorpusRef | None = None) -> Node:
        """What a node is, and whether it has the corpus. Raises `NodeLost`, or `ArError` when ar does not run there."""
        ...

    def run(self, place: Place, job: Job, ship: bool, cancel: threading.Event) -> Iterator[Mapping[str, Any]]:
        """The words of `core.fleet.node.trial`, and {} now and then. `ship` says that the node lacks the corpus.

        Ends before the last word when `cancel` is set, and then nothing of the trial is left. Raises `NodeLost`,
        or `ArError` when the trial could not be run.
        """
        ...

    def share(self) -> Share:
        """What shares its places among the runs on it."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True)
class Wanted:
    """What a node must be."""

    backend: str
    machine: str
    """As `Device.words` has it."""
    code: str
    isolation: IsolationLevel = "process"
    """At least."""

    def why_not(self, node: Node) -> str | None:
        """In words why trials of this run cannot run there."""
        if node.device is None:
            return node.trouble
        if node.device.words() != self.machine:
            return f"it has {node.device.words()}, and this run's trials are on {self.machine}"
        if node.code != self.code:
            return "its ar is not the same as here (install the same version on both)"
        if STRENGTH[node.isolation] < STRENGTH[self.isolation]:
            return f"its best isolation level is {node.isolation}, and {self.isolation} is required"
        return None


def places_of(node: str, room: Room, kind: str) -> tuple[Place, ...]:
    """One a GPU, or one a node: two trials on one CPU would disturb each other."""
    if kind == "cuda":
        count = int(room.gpus)
    else:
        count = 1 if room.cpus >= 1 else 0
    if not count:
        return ()
    gpus = 1.0 if kind == "cuda" else 0.0
    # Whole numbers: an engine may not take 2.5 cores. A tenth of the memory is left to the node itself.
    cpus, memory = float(int(room.cpus) // count), 0.9 * room.memory_bytes // count
    return tuple(Place(node, index, cpus, gpus, memory) for index in range(count))


Survey = Mapping[str, tuple[Room, "Node | str"]]
"""Every node by name: what it has to give, and what it is, or in words why ar does not run there."""


def survey(cluster: Cluster, backend: str, corpus: CorpusRef | None = None, known: Collection[str] = ()) -> Survey:
    """Look at every node that is not known. One that is lost meanwhile is left out: it may be there the next time."""
    rooms = {name: room for name, room in cluster.nodes().items() if name not in known}

    def ask(name: str) -> Node | str | None:
        if rooms[name].cpus < 1:
            return "it offers no core"  # a machine that takes part only to start loops
        try:
            return cluster.look(name, backend, corpus)
        except NodeLost:
            return None
        except ArError as error:
            return error.message

    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
        answers = dict(zip(rooms, pool.map(ask, rooms), strict=True))
    return {name: (rooms[name], answer) for name, answer in answers.items() if answer is not None}


def choose_device(found: Survey, *, like: str | None = None, before: str = "") -> Device:
    """The kind of device with the most places, among those whose words contain `like`; that of `before` if it is there.

    Raises `PrerequisiteError` when there is none.
    """
    places: Counter[str] = Counter()
    devices: dict[str, Device] = {}
    for name, (room, node) in sorted(found.items()):
        device = None if isinstance(node, str) else node.device
        if device is not None and (like is None or like.lower() in device.words().lower()):
            devices.setdefault(device.words(), device)
            places[device.words()] += len(places_of(name, room, device.kind))
    if not +places:
        words = sorted({what_of(node) for _, node in found.values()})
        raise PrerequisiteError(
            f"no node of the fleet runs trials{f' on {like!r}' if like else ''}. Its nodes: {'; '.join(words)}.",
            fix="start a node that has the device, ar and the backend",
        )
    return devices[max(sorted(+places), key=lambda words: (words == before, places[words]))]


def what_of(node: Node | str) -> str:
    """A node in a few words."""
    if isinstance(node, str):
        return node
    return node.device.words() if node.device is not None else str(node.trouble)
