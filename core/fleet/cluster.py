"""The nodes of a cluster: their resources, which of them fit a run, and the kind of device that a run uses.

Every device of a node is a slot for one trial. Only nodes with the run's own device, framework, driver and code have
slots for it, because bits per byte are compared within one kind of device.

A rule for placing trials touches three files at most: `Placement`, `NodeRequirements` and `slots_of` here, ray.py for
the resources that Ray reports and is asked for, and core/cli/run/options.py for an option.
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
from autoresearch.core.fleet.fair_scheduler import Answer, CheckIn, FleetUsage, SlotKey
from autoresearch.core.fleet.node import NodeInfo, TrialJob
from autoresearch.core.fleet.shipping import CorpusRef
from autoresearch.core.trial.request import IsolationLevel
from autoresearch.core.trial.sandbox.levels import STRENGTH

INSPECTIONS_AT_ONCE = 16
"""Nodes inspected at the same time."""
USABLE_MEMORY = 0.9
"""Share of a node's memory that trials may take; the rest is left to the node itself."""


class NodeLost(Exception):  # noqa: N818 - named as what happened, like TrialLost
    """The node, or the process on it, is gone. A trial's caller sees `TrialLost` instead."""


@dataclass(frozen=True)
class NodeResources:
    """The resources of a node, as the engine counts them."""

    cpus: float
    gpus: float
    memory_bytes: float
    host: str = ""
    address: str = ""


@dataclass(frozen=True)
class NodeSlot:
    """One device of a node, with what a trial on it may take."""

    node: str
    index: int
    cpus: float
    gpus: float
    memory_bytes: float

    @property
    def key(self) -> SlotKey:
        """Name among all slots of the fleet."""
        return self.node, "gpu" if self.gpus else "cpu", self.index


class SchedulerClient(Protocol):
    """Access to the fleet's one `FairScheduler` from any machine.

    Any exception from any method means that the scheduler does not answer now.
    """

    def check_in(self, message: CheckIn) -> Answer:
        """Report a run's state. Return what it may use."""
        ...

    def leave(self, name: str, session: str) -> None:
        """Report that a loop has ended."""
        ...

    def pause(self, name: str, paused: bool) -> bool:
        """Stop or resume a run's starting of trials. Return whether there is such a run."""
        ...

    def drain(self, node: str, drained: bool) -> None:
        """Stop or resume offering a node's slots."""
        ...

    def report(self) -> FleetUsage:
        """Return what every run has and has used."""
        ...


class Cluster(Protocol):
    """An engine that runs processes on several machines. Every method may be called from any thread."""

    def nodes(self) -> Mapping[str, NodeResources]:
        """Return the nodes that are alive. Any exception means that the cluster does not answer."""
        ...

    def inspect(self, node: str, backend: str, corpus: CorpusRef | None = None) -> NodeInfo:
        """Find out what a node is and whether it has the corpus.

        Raises `NodeLost`, or `ArError` when `ar` does not run there.
        """
        ...

    def run(self, slot: NodeSlot, job: TrialJob, ship: bool, cancel: threading.Event) -> Iterator[Mapping[str, Any]]:
        """Run a trial. Yield the messages of `core.fleet.node.stream_trial`, and {} from time to time.

        `ship` says that the node lacks the corpus. When `cancel` is set, the messages end before the final one, and
        then no process of the trial is left. Raises `NodeLost`, or `ArError` when the trial could not be run.
        """
        ...

    def scheduler(self) -> SchedulerClient:
        """Return the access to the scheduler that divides the slots among the runs."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


def slots_of(node: str, resources: NodeResources, kind: str) -> tuple[NodeSlot, ...]:
    """Divide a node into slots for devices of that kind.

    A CUDA node has one slot a GPU. Any other node is one slot: two trials on one CPU would disturb each other.
    """
    if kind == "cuda":
        count = int(resources.gpus)
    else:
        count = 1 if resources.cpus >= 1 else 0
    if not count:
        return ()
    gpus = 1.0 if kind == "cuda" else 0.0
    cpus = float(int(resources.cpus) // count)  # whole numbers: an engine may not take 2.5 cores
    memory = USABLE_MEMORY * resources.memory_bytes // count
    return tuple(NodeSlot(node, index, cpus, gpus, memory) for index in range(count))


@dataclass(frozen=True)
class SurveyedNode:
    """A node and what an inspection found on it."""

    resources: NodeResources
    info: NodeInfo | None
    """None when `ar` does not run there."""
    trouble: str | None = None
    """The reason, when there is no `info`."""

    @property
    def device(self) -> Device | None:
        """Device of the backend; None when the backend, or `ar`, does not run there."""
        return self.info.device if self.info else None

    def description(self) -> str:
        """Name the device, or say why there is none."""
        if self.device is not None:
            return self.device.description()
        return str(self.info.trouble if self.info else self.trouble)


@dataclass(frozen=True)
class Placement:
    """A person's rules for placing trials. Each field is an option of `ar loop` of the same name."""

    device: str | None = None
    """Words that the device's description must contain; None allows every device."""

    def allows(self, device: Device) -> bool:
        """Return whether trials may run on this kind of device."""
        return self.device is None or self.device.lower() in device.description().lower()


@dataclass(frozen=True)
class NodeRequirements:
    """The conditions that a node must meet to run a run's trials."""

    backend: str
    machine: str
    """Device, framework and driver, as `Device.description` returns them."""
    code: str
    """SHA-256 of all code that decides scores."""
    isolation: IsolationLevel = "process"
    """The weakest isolation level that is acceptable."""
    placement: Placement = Placement()

    def mismatch(self, node: SurveyedNode) -> str | None:
        """Explain why trials of this run cannot run on a node; None when they can."""
        if node.info is None or node.device is None:
            return node.description()
        if node.device.description() != self.machine:
            return f"it has {node.device.description()}, and this run's trials are on {self.machine}"
        if node.info.code != self.code:
            return "its ar is not the same as here (install the same version on both)"
        if STRENGTH[node.info.isolation] < STRENGTH[self.isolation]:
            return f"its best isolation level is {node.info.isolation}, and {self.isolation} is required"
        return None

    def slots(self, name: str, node: SurveyedNode) -> tuple[NodeSlot, ...]:
        """List the slots of a node; none where it does not fit."""
        if node.device is None or self.mismatch(node) is not None:
            return ()
        return slots_of(name, node.resources, node.device.kind)


Survey = Mapping[str, SurveyedNode]
"""The inspected nodes by name."""


def survey(cluster: Cluster, backend: str, corpus: CorpusRef | None = None, known: Collection[str] = ()) -> Survey:
    """Inspect every node that is not in `known`.

    A node that is lost meanwhile is left out, so that the next survey tries it again.
    """
    nodes = {name: resources for name, resources in cluster.nodes().items() if name not in known}

    def inspect(name: str) -> SurveyedNode | None:
        resources = nodes[name]
        if resources.cpus < 1:  # a machine that takes part only to start loops
            return SurveyedNode(resources, None, "it offers no core")
        try:
            return SurveyedNode(resources, cluster.inspect(name, backend, corpus))
        except NodeLost:
            return None
        except ArError as error:
            return SurveyedNode(resources, None, error.message)

    with ThreadPoolExecutor(INSPECTIONS_AT_ONCE, thread_name_prefix="inspect") as pool:
        found = dict(zip(nodes, pool.map(inspect, nodes), strict=True))
    return {name: node for name, node in found.items() if node is not None}


def choose_device(found: Survey, placement: Placement = Placement(), *, before: str = "") -> Device:
    """Choose the kind of device on which a run's trials run, among those that the placement allows.

    It is `before`, the kind that the run had, if it is there; else the kind with the most slots. Raises
    `PrerequisiteError` when there is none.
    """
    slots: Counter[str] = Counter()
    devices: dict[str, Device] = {}
    for name, node in sorted(found.items()):
        device = node.device
        if device is not None and placement.allows(device):
            devices.setdefault(device.description(), device)
            slots[device.description()] += len(slots_of(name, node.resources, device.kind))
    if not +slots:  # unary plus drops the kinds without a slot
        wanted, nodes = placement.device, "; ".join(sorted({node.description() for node in found.values()}))
        raise PrerequisiteError(
            f"no node of the fleet runs trials{f' on {wanted!r}' if wanted else ''}. Its nodes: {nodes}.",
            fix="start a node that has the device, ar and the backend",
        )
    return devices[max(sorted(+slots), key=lambda words: (words == before, slots[words]))]
