"""Trials on the nodes of a cluster, whatever engine starts their processes there (see ray.py).

Which places fit is found out by `cluster`; which of them this run may use, `membership` agrees with the other runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from autoresearch.core.errors import PrerequisiteError, TrialError
from autoresearch.core.fleet.cluster import Cluster, NodeLost, Place, Room, Survey, Wanted, places_of, survey
from autoresearch.core.fleet.executor import Observer, TrialLost
from autoresearch.core.fleet.fair_scheduler import Answer, Key
from autoresearch.core.fleet.local import LocalHandle
from autoresearch.core.fleet.membership import Member, Membership
from autoresearch.core.fleet.node import Job, Node
from autoresearch.core.fleet.shipping import CorpusRef
from autoresearch.core.fleet.status import Board, FleetStatus
from autoresearch.core.store.exports import write_text
from autoresearch.core.trial.request import IsolationLevel, TrialRequest, TrialResult
from autoresearch.core.trial.sandbox.levels import STRENGTH
from autoresearch.core.trial.supervisor import TrialCancelled

LOOK_SECONDS = 3.0
"""Between two looks at which nodes there are."""
GONE_SECONDS = 30.0
"""Without an answer from the cluster, then it is given up."""
CLOSE_SECONDS = 2.0
SHARING_GONE = 3
"""Times as long without an answer from the sharing of its places: one that was lost takes a while to be replaced."""


class FleetExecutor:
    """Implements `Executor` on the nodes of a cluster. A trial whose node goes away ends in `TrialLost`."""

    def __init__(
        self,
        cluster: Cluster,
        wanted: Wanted,
        corpus: CorpusRef,
        found: Survey | None = None,
        *,
        member: Member | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`found` is what is known of the nodes; None looks at them. `member` is the run as the others see it.

        Raises `PrerequisiteError` when no node fits.
        """
        self._cluster, self._wanted, self._corpus = cluster, wanted, corpus
        self.say = say
        """Is told what a person should know, from any thread; who draws on the screen meanwhile puts itself here."""
        self._changed = threading.Lock()
        self._known: dict[str, tuple[Place, ...]] = {}
        self._hosts: dict[str, str] = {}
        self._lacking: set[str] = set()
        self._levels: set[IsolationLevel] = set()
        self._handles: list[LocalHandle] = []
        self._closing = threading.Event()
        self._seen = time.monotonic()
        self._greeting: threading.Thread | None = None
        self._welcome(survey(cluster, wanted.backend, corpus) if found is None else found)
        if not self._places():
            raise PrerequisiteError("no node of the fleet can run this run's trials.", fix="see what was said of each")
        self.isolation: IsolationLevel = min(self._levels, key=lambda level: STRENGTH[level])
        """The weakest of the nodes that are used."""
        self._member = member or Member()
        self._board = Board(self._member.tag, self._member.folder, self._say)
        self._part = Membership(
            cluster.share(), self._member, wanted.machine, lambda: list(self._places()), self._heard
        )
        self._watching = threading.Thread(target=self._watch, name="fleet", daemon=True)
        self._watching.start()

    @property
    def places(self) -> int:
        """How many devices fit, whoever uses them."""
        return len(self._places())

    @property
    def others(self) -> tuple[str, ...]:
        """The tags of the other runs on the fleet."""
        answer = self._part.answer
        return tuple(one["tag"] for one in answer["others"]) if answer else ()

    def capacity(self) -> int:
        """One trial a place that this run uses or may use now. Raises `TrialError` when the cluster is gone."""
        if self._gone():
            raise _gone()
        return self._part.capacity()

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> LocalHandle:
        """Start the trial when a device is free."""
        cancel, future = threading.Event(), Future[TrialResult]()
        handle = LocalHandle(future, cancel)
        future.set_running_or_notify_cancel()
        threading.Thread(target=self._run, args=(request, observer, cancel, future), name="trial", daemon=True).start()
        self._handles = [known for known in self._handles if not known.done()] + [handle]
        return handle

    def close(self) -> None:
        """Cancel what is in flight and let go of the cluster."""
        self._closing.set()
        for handle in self._handles:
            handle.cancel()
        self._part.close()
        self._board.close()
        for thread in (self._watching, self._greeting):
            if thread is not None:
                thread.join(CLOSE_SECONDS)
        self._cluster.close()

    def refresh(self) -> None:
        """Look which nodes there are; at new ones, what they are, in a thread of its own, for that takes a while."""
        alive = self._cluster.nodes().keys()
        self._seen = time.monotonic()
        for gone in self._known.keys() - alive:
            with self._changed:
                lost = self._known.pop(gone, ())
            if lost:
                self._part.tell()
                self._say(f"node {gone[:8]} is gone; a trial that ran there is run again")
        if alive - self._known.keys() and (self._greeting is None or not self._greeting.is_alive()):
            self._greeting = threading.Thread(target=self._greet, name="look", daemon=True)
            self._greeting.start()

    def _greet(self) -> None:
        with suppress(Exception, SystemExit):  # as in `_watch`; Ray exits its callers' threads where it is shut down
            self._welcome(survey(self._cluster, self._wanted.backend, self._corpus, tuple(self._known)))
            self._part.tell()

    def _welcome(self, found: Survey) -> None:
        for name, (room, node) in found.items():
            places = self._admit(name, room, node)
            with self._changed:
                self._known[name] = places

    def _admit(self, name: str, room: Room, node: Node | str) -> tuple[Place, ...]:
        """The places on a node; none where it does not fit, which is said."""
        reason = node if isinstance(node, str) else self._wanted.why_not(node)
        if isinstance(node, str) or node.device is None or reason is not None:
            if room.cpus >= 1:
                self._say(f"node {name[:8]} is not used: {reason}")
            return ()
        self._levels.add(node.isolation)
        self._hosts[name] = node.host
        if not node.has_corpus:
            self._lacking.add(name)
        return places_of(name, room, node.device.kind)

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            with suppress(Exception):  # a cluster that does not answer now is asked again, until it counts as gone
                self.refresh()

    def _say(self, message: str) -> None:
        self.say(message)

    def _gone(self) -> bool:
        now = time.monotonic()
        return now - self._seen > GONE_SECONDS or now - self._part.seen > SHARING_GONE * GONE_SECONDS

    def _places(self) -> dict[Key, Place]:
        with self._changed:
            return {place.key: place for places in self._known.values() for place in places}

    def _heard(self, answer: Answer, used: int) -> None:
        """The sharing has said how things stand."""
        places = self._places()
        nodes = {place.node for place in places.values()}
        standing = FleetStatus(
            at=time.time(),
            nodes=len(nodes),
            places=len(places),
            used=used,
            offered=len(answer["offered"]),
            priority=self._member.priority,
            share=answer["share"],
            paused=answer["paused"],
            drained=tuple(sorted(self._hosts[node] for node in nodes.intersection(answer["drained"]))),
            others=tuple((one["tag"], one["used"]) for one in answer["others"]),
        )
        self._board.show(standing)

    def _run(
        self, request: TrialRequest, observer: Observer | None, cancel: threading.Event, future: Future[TrialResult]
    ) -> None:
        try:
            place = self._take(cancel)
            try:
                result = self._attempt(request, observer, cancel, place)
            finally:
                self._part.give(place.key)
            future.set_result(result)
        except BaseException as error:
            future.set_exception(error)

    def _take(self, cancel: threading.Event) -> Place:
        """A device that this run may use; waits for one."""
        while True:
            if cancel.is_set():
                raise TrialCancelled("the trial was cancelled before it started.")
            if self._gone():
                raise _gone()
            key = self._part.take(self._gone)
            if key is not None:
                place = self._places().get(key)
                if place is not None:
                    return place
                self._part.give(key)  # the node was lost meanwhile

    def _attempt(
        self, request: TrialRequest, observer: Observer | None, cancel: threading.Event, place: Place
    ) -> TrialResult:
        """Run it on that device."""
        known = request.tolerances
        job = Job(request, self._corpus, known.read_bytes() if known and known.is_file() else None)
        try:
            for word in self._cluster.run(place, job, place.node in self._lacking, cancel):
                if "files" in word:
                    return self._take_over(request, word)
                if "fix" in word:
                    raise TrialError(f"on node {place.node[:8]}: {word['error']}", fix=word["fix"])
                if self._gone():
                    raise _gone()
                if word and observer is not None:
                    observer(word)
        except NodeLost as error:
            with self._changed:
                self._known.pop(place.node, None)  # used again when a look at it says that it is well
            if cancel.is_set():
                raise TrialCancelled("the trial was cancelled.") from None
            raise TrialLost(f"its node {place.node[:8]} was lost: {error}") from error
        if cancel.is_set():
            raise TrialCancelled("the trial was cancelled.")
        raise TrialLost(f"node {place.node[:8]} said no last word")

    def _take_over(self, request: TrialRequest, word: Mapping[str, Any]) -> TrialResult:
        """What the node sent, where a trial of this machine would have left it."""
        result = TrialResult.model_validate(word["result"])
        if result.machine is not None and result.machine != self._wanted.machine:
            raise TrialLost(f"it ran on {result.machine}, and this run's trials are on {self._wanted.machine}")
        request.folder.mkdir(parents=True, exist_ok=True)
        for name, body in word["files"].items():
            (request.folder / name).write_bytes(body)
        if request.calibrate and request.tolerances and word["tolerances"] is not None:
            write_text(request.tolerances, word["tolerances"].decode())
        return result.model_copy(update={"log": str(request.folder / "run.log")})


def _gone() -> TrialError:
    return TrialError(
        f"the fleet has not answered for {GONE_SECONDS:g} s.",
        fix="start its head again, then give the same command again: what was in flight is run again, nothing is lost",
    )
