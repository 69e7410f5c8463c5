"""Trials on the nodes of a cluster, whatever engine starts their processes there (see ray.py).

`cluster` finds out which slots fit a run; `membership` negotiates with the scheduler which of them the run may use now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from autoresearch.core.errors import PrerequisiteError, TrialError
from autoresearch.core.events import Event, Observer, from_json
from autoresearch.core.fleet.cluster import (
    Cluster,
    NodeLost,
    NodeRequirements,
    NodeSlot,
    Survey,
    SurveyedNode,
    survey,
)
from autoresearch.core.fleet.executor import TrialLost, TrialMisplaced
from autoresearch.core.fleet.fair_scheduler import Answer, SlotKey
from autoresearch.core.fleet.local import LocalHandle
from autoresearch.core.fleet.membership import Member, Membership
from autoresearch.core.fleet.node import TrialJob
from autoresearch.core.fleet.shipping import CorpusRef
from autoresearch.core.fleet.status import FleetStatus, FleetStatusWriter
from autoresearch.core.trial.audit import parse_tolerances, widen_tolerances
from autoresearch.core.trial.request import IsolationLevel, TrialRequest, TrialResult
from autoresearch.core.trial.sandbox.levels import STRENGTH
from autoresearch.core.trial.supervisor import TrialCancelled

REFRESH_SECONDS = 3.0
"""Seconds between two checks which nodes are alive."""
GONE_SECONDS = 30.0
"""Seconds without an answer after which the cluster is given up."""
SCHEDULER_GONE = 3
"""Multiple of `GONE_SECONDS` after which a silent scheduler is given up: replacing a lost one takes a while."""
CLOSE_SECONDS = 2.0


class FleetExecutor:
    """Implements `Executor` on the nodes of a cluster. A trial whose node goes away ends in `TrialLost`."""

    def __init__(
        self,
        cluster: Cluster,
        requirements: NodeRequirements,
        corpus: CorpusRef,
        found: Survey | None = None,
        *,
        member: Member | None = None,
        say: Callable[[str], None] = lambda _: None,
        disconnects: bool = True,
    ) -> None:
        """Find the slots that fit and join the fleet.

        `found` is the nodes inspected so far; None inspects them now. `member` is the run as the others see it. `say`
        is called with messages for a person, from any thread. `close` leaves the cluster connected for another executor
        unless it `disconnects`. Raises `PrerequisiteError` when no node fits.
        """
        self._cluster, self._requirements, self._corpus = cluster, requirements, corpus
        self._say, self._disconnects = say, disconnects
        self._changed = threading.Lock()
        self._known: dict[str, tuple[NodeSlot, ...]] = {}
        """Slots of every node that was inspected; empty for one that does not fit."""
        self._hosts: dict[str, str] = {}
        self._lacking: set[str] = set()
        """Nodes without the corpus, which is shipped to them with their first trial."""
        self._levels: set[IsolationLevel] = set()
        self._handles: list[LocalHandle] = []
        self._closing = threading.Event()
        self._seen = time.monotonic()
        self._inspecting: threading.Thread | None = None
        self._add_nodes(survey(cluster, requirements.backend, corpus) if found is None else found)
        if not self._slots_by_key():
            raise PrerequisiteError(
                "no node of the fleet can run this run's trials.", fix="the lines above say why for each node"
            )
        self.isolation: IsolationLevel = min(self._levels, key=lambda level: STRENGTH[level])
        """The weakest isolation level among the nodes in use."""
        self._member = member or Member()
        self._status = FleetStatusWriter(self._member.tag, self._member.folder, self._say)
        self._membership = Membership(
            cluster.scheduler(),
            self._member,
            requirements.machine,
            lambda: list(self._slots_by_key()),
            self._record_answer,
        )
        self._watching = threading.Thread(target=self._watch, name="fleet", daemon=True)
        self._watching.start()

    @property
    def slots(self) -> int:
        """Number of slots that fit, whichever run uses them."""
        return len(self._slots_by_key())

    @property
    def others(self) -> tuple[str, ...]:
        """Tags of the other runs on the fleet."""
        answer = self._membership.answer
        return tuple(one["tag"] for one in answer["others"]) if answer else ()

    def capacity(self) -> int:
        """Count the slots that this run uses or may use now. Raises `TrialError` when the cluster is gone."""
        if self._gone():
            raise _gone()
        return self._membership.capacity()

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> LocalHandle:
        """Start the trial as soon as a slot is free."""
        cancel, future = threading.Event(), Future[TrialResult]()
        handle = LocalHandle(future, cancel)
        # A future that runs cannot be cancelled behind this class's back: a trial ends by its own event, when its
        # processes are gone.
        future.set_running_or_notify_cancel()
        threading.Thread(target=self._run, args=(request, observer, cancel, future), name="trial", daemon=True).start()
        self._handles = [known for known in self._handles if not known.done()] + [handle]
        return handle

    def close(self) -> None:
        """Cancel the running trials, leave the fleet, and disconnect from the cluster if that is this one's to do."""
        self._closing.set()
        for handle in self._handles:
            handle.cancel()
        self._membership.close()
        self._status.close()
        for thread in (self._watching, self._inspecting):
            if thread is not None:
                thread.join(CLOSE_SECONDS)
        if self._disconnects:
            self._cluster.close()

    def refresh(self) -> None:
        """Check which nodes are alive. New ones are inspected in a thread of its own, because that takes a while."""
        alive = self._cluster.nodes().keys()
        self._seen = time.monotonic()
        for gone in self._known.keys() - alive:
            with self._changed:
                lost = self._known.pop(gone, ())
            if lost:
                self._membership.wake()
                self._say(f"node {gone[:8]} is gone; a trial that ran there is run again")
        if alive - self._known.keys() and (self._inspecting is None or not self._inspecting.is_alive()):
            self._inspecting = threading.Thread(target=self._inspect_new, name="inspect", daemon=True)
            self._inspecting.start()

    def _inspect_new(self) -> None:
        with suppress(Exception, SystemExit):  # as in `_watch`; Ray exits its callers' threads where it is shut down
            self._add_nodes(survey(self._cluster, self._requirements.backend, self._corpus, tuple(self._known)))
            self._membership.wake()

    def _add_nodes(self, found: Survey) -> None:
        for name, node in found.items():
            slots = self._usable_slots(name, node)
            with self._changed:
                self._known[name] = slots

    def _usable_slots(self, name: str, node: SurveyedNode) -> tuple[NodeSlot, ...]:
        """Return a node's slots; none, and a message, where it does not fit."""
        reason = self._requirements.mismatch(node)
        if node.info is None or reason is not None:
            if node.resources.cpus >= 1:
                self._say(f"node {name[:8]} is not used: {reason}")
            return ()
        self._levels.add(node.info.isolation)
        self._hosts[name] = node.info.host
        if not node.info.has_corpus:
            self._lacking.add(name)
        return self._requirements.slots(name, node)

    def _watch(self) -> None:
        while not self._closing.wait(REFRESH_SECONDS):
            with suppress(Exception):  # asked again, until `_gone` gives the cluster up
                self.refresh()

    def _gone(self) -> bool:
        now = time.monotonic()
        return now - self._seen > GONE_SECONDS or now - self._membership.seen > SCHEDULER_GONE * GONE_SECONDS

    def _slots_by_key(self) -> dict[SlotKey, NodeSlot]:
        with self._changed:
            return {slot.key: slot for slots in self._known.values() for slot in slots}

    def _record_answer(self, answer: Answer, used: int) -> None:
        """Write down the scheduler's answer."""
        slots = self._slots_by_key()
        nodes = {slot.node for slot in slots.values()}
        status = FleetStatus(
            at=time.time(),
            nodes=len(nodes),
            places=len(slots),
            used=used,
            offered=len(answer["offered"]),
            priority=self._member.priority,
            share=answer["share"],
            paused=answer["paused"],
            drained=tuple(sorted(self._hosts[node] for node in nodes.intersection(answer["drained"]))),
            others=tuple((one["tag"], one["used"]) for one in answer["others"]),
        )
        self._status.update(status)

    def _run(
        self, request: TrialRequest, observer: Observer | None, cancel: threading.Event, future: Future[TrialResult]
    ) -> None:
        try:
            slot = self._acquire(cancel)
            try:
                result = self._attempt(request, observer, cancel, slot)
            finally:
                # Before the result is set: the loop that sees it then already sees the slot free.
                self._membership.release(slot.key)
            future.set_result(result)
        except BaseException as error:
            future.set_exception(error)

    def _acquire(self, cancel: threading.Event) -> NodeSlot:
        """Wait for a slot that this run may use. Raises `TrialCancelled`, or `TrialError` when the cluster is gone."""
        while True:
            if cancel.is_set():
                raise TrialCancelled("the trial was cancelled before it started.")
            if self._gone():
                raise _gone()
            key = self._membership.acquire(self._gone)
            if key is not None:
                slot = self._slots_by_key().get(key)
                if slot is not None:
                    return slot
                self._membership.release(key)  # the node was lost meanwhile

    def _attempt(
        self, request: TrialRequest, observer: Observer | None, cancel: threading.Event, slot: NodeSlot
    ) -> TrialResult:
        """Run the trial on that slot, passing its events on to the observer."""
        known = request.tolerances
        job = TrialJob(request, self._corpus, known.read_bytes() if known and known.is_file() else None)
        try:
            for message in self._cluster.run(slot, job, slot.node in self._lacking, cancel):
                if "files" in message:
                    return self._store_result(request, message, self._place(slot))
                if "lost" in message:
                    raise TrialLost(f"on node {slot.node[:8]}: {message['error'].rstrip('.')}")
                if "fix" in message:
                    raise TrialError(f"on node {slot.node[:8]}: {message['error']}", fix=message["fix"])
                if self._gone():
                    raise _gone()
                if observer is not None and isinstance(event := from_json(message), Event):
                    observer(event)
        except NodeLost as error:
            with self._changed:
                self._known.pop(slot.node, None)  # used again once an inspection says that it is well
            if cancel.is_set():
                raise TrialCancelled("the trial was cancelled.") from None
            raise TrialLost(f"its node {slot.node[:8]} was lost: {error}") from error
        if cancel.is_set():
            raise TrialCancelled("the trial was cancelled.")
        raise TrialLost(f"node {slot.node[:8]} ended without a result")

    def _place(self, slot: NodeSlot) -> str:
        """Name a slot for people, the same whenever it is used."""
        _, kind, index = slot.key
        return f"{self._hosts.get(slot.node, '')} ({slot.node[:8]}) {kind} {index}".strip()

    def _store_result(self, request: TrialRequest, message: Mapping[str, Any], place: str) -> TrialResult:
        """Write the node's files where a trial on this machine would have left them."""
        result = TrialResult.model_validate(message["result"])
        # The node may have been replaced between its inspection and the trial. A score from another kind of device must
        # not be recorded.
        if result.machine is not None and result.machine != self._requirements.machine:
            ours = self._requirements.machine
            raise TrialMisplaced(f"it ran on {result.machine}, and this run's trials are on {ours}")
        request.folder.mkdir(parents=True, exist_ok=True)
        for name, body in message["files"].items():
            (request.folder / name).write_bytes(body)
        if request.calibrate and request.tolerances and message["tolerances"] is not None:
            # Joined with what this run knows by now: another node's trial of the baseline may have ended meanwhile.
            widen_tolerances(request.tolerances, parse_tolerances(message["tolerances"].decode("utf-8")))
        return result.model_copy(update={"log": str(request.folder / "run.log"), "place": place})


def _gone() -> TrialError:
    return TrialError(
        f"the fleet has not answered for {GONE_SECONDS:g} s.",
        fix="start its head again, then give the same command again: running trials are repeated, nothing is lost",
    )
