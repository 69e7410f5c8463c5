"""Ray as the engine of a fleet: it starts processes on nodes, moves bytes, and notices dead nodes.

Ray is imported when a cluster is connected to, and only here.

The sharing of a Ray cluster's places: one actor for all loops, made by whichever comes first.

It is sent by value, so that the machine on which it lives needs no ar. Ray itself comes from ray.py.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from autoresearch.core.errors import PrerequisiteError, TrialError, UsageError
from autoresearch.core.fleet import fair_scheduler
from autoresearch.core.fleet.cluster import NodeLost, Place, Room
from autoresearch.core.fleet.fair_scheduler import Answer, Report, Word
from autoresearch.core.fleet.node import Job, Node, is_last, look, trial
from autoresearch.core.fleet.shipping import CorpusRef

NAMESPACE, NAME = "autoresearch", "sharing-1"
"""The number is that of the language (see words.py): loops of different versions must not misunderstand each other."""
ANSWER_SECONDS = 5.0


class RayShare:
    """Implements `Share`. An actor that died is replaced; the loops tell the new one what they hold."""

    def __init__(self, ray: Any, where: Any, check: Callable[[], None]) -> None:
        """`where` is Ray's scheduling strategy for the actor; `check` raises when Ray was shut down."""
        self._ray, self._where, self._check = ray, where, check
        self._known: Any = None
        self._lost = False
        self._making = threading.Lock()

    def sync(self, word: Word) -> Answer:
        """See `Sharing`, here and below."""
        return cast("Answer", self._ask(self._actor(), "sync", word))

    def leave(self, name: str, session: str) -> None:
        """A loop has ended."""
        self._ask(self._actor(), "leave", name, session)

    def pause(self, name: str, paused: bool) -> bool:
        """Whether the run may start trials."""
        return bool(self._ask(self._actor(), "pause", name, paused))

    def drain(self, node: str, drained: bool) -> None:
        """Whether a node is offered to nobody."""
        self._ask(self._actor(), "drain", node, drained)

    def report(self) -> Report:
        """How things stand. Makes no actor."""
        try:
            actor = self._ray.get_actor(NAME, namespace=NAMESPACE)
        except ValueError:  # what Ray raises for a name that nobody has
            return Report(runs=[], drained=[])
        return cast("Report", self._ask(actor, "report"))

    def _actor(self) -> Any:
        with self._making:
            self._check()
            if self._known is None:
                for module in (fair_scheduler, fair_scheduler):
                    self._ray.cloudpickle.register_pickle_by_value(module)
                asked = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
                actor = self._ray.remote(num_cpus=0)(fair_scheduler.Sharing)
                self._known = actor.options(scheduling_strategy=self._where, **asked).remote(again=self._lost)
            return self._known

    def _ask(self, actor: Any, what: str, *arguments: Any) -> Any:
        self._check()
        try:
            return self._ray.get(getattr(actor, what).remote(*arguments), timeout=ANSWER_SECONDS)
        except self._ray.exceptions.RayActorError:
            with self._making:
                if actor is self._known:
                    self._known, self._lost = None, True
            raise


LOOK_SECONDS = 180.0
"""For a first look at a node: Ray starts a process there, which imports a framework."""
WAIT_SECONDS = 0.2
CANCEL_SECONDS = 30.0
"""For a cancelled trial to say that nothing is left; then its process is killed, and the trial's dies with it."""
CLOSE_SECONDS = 10.0
KNOCK_SECONDS = 5.0
HEAD = "node:__internal_head__"
"""What Ray calls a resource that only the head's node has."""


class RayCluster:
    """Implements `Cluster` on Ray."""

    def __init__(self, address: str | None = None, *, start: bool = True) -> None:
        """Connect to the cluster at `address`; without one to that of this machine, or to a new one of it alone.

        Raises `PrerequisiteError` when there is no Ray, or no cluster there and none to `start`.
        """
        if address is not None and address.startswith("ray://"):
            raise UsageError(
                f"--address {address}: the loop must run on a machine of the cluster.",
                fix="`ray start --address=HEAD:6379 --num-cpus=0` here, then --fleet ray without --address",
            )
        # Before the import, for a cluster that is started here: nobody is told over the network that it runs, and
        # trials are not put behind everything else on the machine, as Ray does with its workers (niceness 15).
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            import ray
        except ImportError as error:
            fix = "pip install 'autoresearch-dual[fleet]'"
            raise PrerequisiteError(f"Ray is not installed ({error}).", fix=fix) from None
        self._ray = ray
        self.started = False
        """Whether it is a new one, that ends with this process."""
        self._mine = not ray.is_initialized()
        if self._mine:
            self._connect(address, start)
        self._look = ray.remote(max_retries=0, num_cpus=0)(look)
        self._trial = ray.remote(max_retries=0)(_on_node)
        self._sent: dict[str, Any] = {}
        self._sending = threading.Lock()
        self._closed = False
        self._share = RayShare(ray, _near_head(ray), self._check)

    def _connect(self, address: str | None, start: bool) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        known = address or os.environ.get("RAY_ADDRESS", "")
        try:
            try:
                if not _reaches(known):
                    raise ConnectionError("nothing answers there.")  # Ray itself would try for many minutes
                self._ray.init(address=address or "auto", **quiet)
            except ConnectionError:
                if address is not None and _reaches(address) and _use_token():
                    self._ray.init(address=address, **quiet)
                elif known in ("", "auto", "local") and start:
                    self._ray.init(address="local", include_dashboard=False, **quiet)
                    self.started = True
                else:
                    raise
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at {known}" if known else "on this machine"
            message = f"there is no Ray cluster {where}: {' '.join(str(error).split())[:300]}"
            fix = "`ray start --head` on its first machine; RAY_AUTH_MODE must be the same everywhere"
            raise PrerequisiteError(message, fix=fix) from None

    def nodes(self) -> Mapping[str, Room]:
        """Those that live."""
        self._check()
        alive = (node for node in self._ray.nodes() if node["Alive"])
        return {node["NodeID"]: _room(node) for node in alive}

    def look(self, node: str, backend: str, corpus: CorpusRef | None = None) -> Node:
        """What a node is, and whether it has the corpus."""
        self._check()
        try:
            asked = self._look.options(scheduling_strategy=_only(node)).remote(backend, corpus)
            found: Node = self._ray.get(asked, timeout=LOOK_SECONDS)
            return found
        except self._ray.exceptions.RayTaskError as error:
            raise PrerequisiteError(f"ar does not run there: {_last_line(error)}") from error
        except self._ray.exceptions.RayError as error:
            raise NodeLost(_last_line(error)) from error

    def run(self, place: Place, job: Job, ship: bool, cancel: threading.Event) -> Iterator[Mapping[str, Any]]:
        """One trial as a task that has the device for itself."""
        asked = {"num_cpus": place.cpus, "num_gpus": place.gpus, "memory": place.memory_bytes}
        task = self._trial.options(scheduling_strategy=_only(place.node), num_returns="streaming", **asked)
        stream = task.remote(job, self._files(job.corpus) if ship else {})
        errors, ended = self._ray.exceptions, False
        try:
            while not cancel.is_set() and not ended:
                ready, _ = self._ray.wait([stream], timeout=WAIT_SECONDS)
                word = self._ray.get(next(stream)) if ready else {}
                ended = is_last(word)
                yield word
            if not ended:
                self._stop(stream)
        except StopIteration:
            return
        except errors.RayTaskError as error:
            raise TrialError(f"a node could not run the trial: {_last_line(error)}") from error
        except errors.RayError as error:
            raise NodeLost(_last_line(error)) from error
        finally:
            if not ended:  # for a caller that has lost interest; nothing happens to what has stopped
                with suppress(Exception):
                    self._ray.cancel(stream)

    def _stop(self, stream: Any) -> None:
        """Cancel a trial; returns when nothing of it is left."""
        self._ray.cancel(stream)
        deadline, forced = time.monotonic() + CANCEL_SECONDS, False
        with suppress(self._ray.exceptions.RayError, StopIteration):
            while True:
                ready, _ = self._ray.wait([stream], timeout=WAIT_SECONDS)
                if ready:
                    self._ray.get(next(stream))
                elif time.monotonic() > deadline:
                    if forced:
                        return
                    self._ray.cancel(stream, force=True)
                    deadline, forced = time.monotonic() + CANCEL_SECONDS, True

    def _files(self, corpus: CorpusRef) -> dict[str, Any]:
        """References to its files in the object store, where they are put once, when the first node lacks them."""
        with self._sending:
            for name in corpus.files:
                if name not in self._sent:
                    self._sent[name] = self._ray.put((corpus.folder / name).read_bytes())
            return dict(self._sent)

    def share(self) -> RayShare:
        """What shares its places among the runs on it."""
        return self._share

    def _check(self) -> None:
        """Raises `ConnectionError` after the end: asked then, Ray would start a cluster, or end this process."""
        if self._closed or not self._ray.is_initialized():
            raise ConnectionError("Ray was shut down")

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        self._closed = True
        self._sent.clear()
        if self._mine:
            # A cluster whose head is gone may never answer; the process that ends takes the connection with it.
            ending = threading.Thread(target=self._ray.shutdown, daemon=True)
            ending.start()
            ending.join(CLOSE_SECONDS)


def _reaches(address: str) -> bool:
    """Whether something listens at HOST:PORT; what is written otherwise is for Ray to understand."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "://" in address:
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS):
            return True
    except OSError:
        return False


def _use_token() -> bool:
    """Speak with the token of this machine, as Ray does by itself only where it finds the cluster by itself.

    Whether there is one, and nobody has said that none is to be used.
    """
    try:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    except ImportError:  # older versions ask nobody for a token
        return False
    return "RAY_AUTH_MODE" not in os.environ and bool(maybe_enable_token_auth_if_token_available(False))


def _room(node: Mapping[str, Any]) -> Room:
    cpus, gpus, memory = (float(node["Resources"].get(name, 0.0)) for name in ("CPU", "GPU", "memory"))
    return Room(cpus, gpus, memory, node["NodeManagerHostname"], node["NodeManagerAddress"])


def _near_head(ray: Any) -> Any:
    """On the head's node if it can be: the cluster cannot lose that one."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    heads = [node["NodeID"] for node in ray.nodes() if HEAD in node["Resources"]]
    return NodeAffinitySchedulingStrategy(heads[0], soft=True) if heads else "DEFAULT"


def _only(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _on_node(job: Job, files: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The remote task."""
    import ray

    fair_scheduler = trial(job, lambda name: ray.get(files[name]))
    try:
        yield from fair_scheduler
    finally:
        fair_scheduler.close()  # type: ignore[attr-defined]


def _last_line(error: BaseException) -> str:
    """What an error says in the end, without Ray's traceback and colours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
