"""Ray as the engine of a fleet: it starts processes on nodes, moves bytes, and notices dead nodes.

Ray is imported when a cluster is connected to, and only in this module. The fleet's scheduler is one detached Ray
actor for all loops, made by whichever loop comes first, on the head's node. It is sent by value, so `ar` need not be
installed there.
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
from autoresearch.core.fleet.cluster import NodeLost, NodeResources, NodeSlot
from autoresearch.core.fleet.fair_scheduler import Answer, CheckIn, FleetUsage
from autoresearch.core.fleet.node import NodeInfo, TrialJob, inspect_node, is_final, stream_trial
from autoresearch.core.fleet.shipping import CorpusRef

NAMESPACE, NAME = "autoresearch", "fair-scheduler-2"
"""Namespace and name of the actor. The number is the version of the messages in fair_scheduler.py: loops of different
versions must not misunderstand each other, so each version has a scheduler of its own."""
ANSWER_SECONDS = 5.0
"""Seconds to wait for an answer of the scheduler."""
INSPECT_SECONDS = 180.0
"""Seconds for the inspection of a node: Ray starts a process there, which imports a framework."""
WAIT_SECONDS = 0.2
CANCEL_SECONDS = 30.0
"""Seconds in which a cancelled trial must say that nothing of it is left; then its process is killed, and the trial's
processes die with it."""
CLOSE_SECONDS = 10.0
CONNECT_SECONDS = 5.0
HEAD_SECONDS = 300
"""Seconds without the head after which Ray ends the process that is connected to it."""
HEAD = "node:__internal_head__"
"""Ray's name of a resource that only the head's node has."""


class RaySchedulerClient:
    """Implements `SchedulerClient`. A scheduler that died is replaced; the loops tell the new one what they hold."""

    def __init__(self, ray: Any, strategy: Any, check: Callable[[], None]) -> None:
        """`strategy` is Ray's scheduling strategy for the actor; `check` raises when Ray was shut down."""
        self._ray, self._strategy, self._check = ray, strategy, check
        self._known: Any = None
        self._lost = False
        self._making = threading.Lock()

    def check_in(self, message: CheckIn) -> Answer:
        """Report a run's state. Return what it may use."""
        return cast("Answer", self._ask(self._actor(), "check_in", message))

    def leave(self, name: str, session: str) -> None:
        """Report that a loop has ended."""
        self._ask(self._actor(), "leave", name, session)

    def pause(self, name: str, paused: bool) -> bool:
        """Stop or resume a run's starting of trials. Return whether there is such a run."""
        return bool(self._ask(self._actor(), "pause", name, paused))

    def drain(self, node: str, drained: bool) -> None:
        """Stop or resume offering a node's slots."""
        self._ask(self._actor(), "drain", node, drained)

    def report(self) -> FleetUsage:
        """Return what every run has and has used. Starts no scheduler."""
        try:
            actor = self._ray.get_actor(NAME, namespace=NAMESPACE)
        except ValueError:  # what Ray raises for a name that nobody has
            return FleetUsage(runs=[], drained=[])
        return cast("FleetUsage", self._ask(actor, "report"))

    def _actor(self) -> Any:
        with self._making:
            self._check()
            if self._known is None:
                self._ray.cloudpickle.register_pickle_by_value(fair_scheduler)
                asked = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
                actor = self._ray.remote(num_cpus=0)(fair_scheduler.FairScheduler)
                options = actor.options(scheduling_strategy=self._strategy, **asked)
                self._known = options.remote(replaces_lost=self._lost)
            return self._known

    def _ask(self, actor: Any, method: str, *arguments: Any) -> Any:
        self._check()
        try:
            return self._ray.get(getattr(actor, method).remote(*arguments), timeout=ANSWER_SECONDS)
        except self._ray.exceptions.RayActorError:
            with self._making:
                if actor is self._known:
                    self._known, self._lost = None, True  # the next call makes a new one
            raise


class RayCluster:
    """Implements `Cluster` on Ray."""

    def __init__(self, address: str | None = None, *, start: bool = True) -> None:
        """Connect to the cluster at `address`; without one, to this machine's, or to a new one of this machine alone.

        Raises `PrerequisiteError` when Ray is not installed, or there is no cluster and `start` is false.
        """
        if address is not None and address.startswith("ray://"):
            raise UsageError(
                f"--address {address}: the loop must run on a machine of the cluster.",
                fix="`ray start --address=HEAD:6379 --num-cpus=0` here, then --fleet ray without --address",
            )
        # Set before the import, for a cluster that is started here: it sends no usage statistics over the network, and
        # trials do not run at Ray's niceness of 15, behind everything else on the machine.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray ends this process, without a word of ours, when the head has not answered for so long. The executor gives
        # a cluster up earlier, but the loop has been seen to need more than Ray's own 60 s to end.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(HEAD_SECONDS))
        try:
            import ray
        except ImportError as error:
            fix = "pip install 'ray>=2.50'"
            raise PrerequisiteError(f"Ray is not installed ({error}).", fix=fix) from None
        self._ray = ray
        self.started = False
        """True when the cluster is a new one, which ends with this process."""
        self._owns_connection = not ray.is_initialized()
        if self._owns_connection:
            self._connect(address, start)
        self._inspect = ray.remote(max_retries=0, num_cpus=0)(inspect_node)
        self._trial = ray.remote(max_retries=0)(run_on_node)
        self._sent: dict[str, Any] = {}
        self._sending = threading.Lock()
        self._closed = False
        self._scheduler = RaySchedulerClient(ray, _prefer_head(ray), self._check)

    def _connect(self, address: str | None, start: bool) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        known = address or os.environ.get("RAY_ADDRESS", "")
        try:
            try:
                if not _listens(known):
                    raise ConnectionError("nothing answers there.")  # Ray itself would try for many minutes
                self._ray.init(address=address or "auto", **quiet)
            except ConnectionError:
                if address is not None and _listens(address) and _use_token():
                    self._ray.init(address=address, **quiet)
                elif known in ("", "auto", "local") and start:
                    self._ray.init(address="local", include_dashboard=False, **quiet)
                    self.started = True
                else:
                    raise
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at {known}" if known else "on this machine"
            message = f"there is no Ray cluster {where}: {' '.join(str(error).split())[:300].rstrip('.')}."
            fix = "`ray start --head` on its first machine; RAY_AUTH_MODE must be the same everywhere"
            raise PrerequisiteError(message, fix=fix) from None

    def nodes(self) -> Mapping[str, NodeResources]:
        """Return the nodes that are alive."""
        self._check()
        alive = (node for node in self._ray.nodes() if node["Alive"])
        return {node["NodeID"]: _resources(node) for node in alive}

    def inspect(self, node: str, backend: str, corpus: CorpusRef | None = None) -> NodeInfo:
        """Find out what a node is, and whether it has the corpus."""
        self._check()
        try:
            asked = self._inspect.options(scheduling_strategy=_pin_to(node)).remote(backend, corpus)
            found: NodeInfo = self._ray.get(asked, timeout=INSPECT_SECONDS)
            return found
        except self._ray.exceptions.RayTaskError as error:
            raise PrerequisiteError(f"ar does not run there: {_last_line(error)}") from error
        except self._ray.exceptions.RayError as error:
            raise NodeLost(_last_line(error)) from error

    def run(self, slot: NodeSlot, job: TrialJob, ship: bool, cancel: threading.Event) -> Iterator[Mapping[str, Any]]:
        """Run a trial as a Ray task that has the slot for itself."""
        asked = {"num_cpus": slot.cpus, "num_gpus": slot.gpus, "memory": slot.memory_bytes}
        task = self._trial.options(scheduling_strategy=_pin_to(slot.node), num_returns="streaming", **asked)
        stream = task.remote(job, self._files(job.corpus) if ship else {})
        errors, ended = self._ray.exceptions, False
        try:
            while not cancel.is_set() and not ended:
                ready, _ = self._ray.wait([stream], timeout=WAIT_SECONDS)
                message = self._ray.get(next(stream)) if ready else {}
                ended = is_final(message)
                yield message
            if not ended:
                self._stop(stream)
        except StopIteration:
            return
        except errors.RayTaskError as error:
            raise TrialError(f"a node could not run the trial: {_last_line(error)}") from error
        except errors.RayError as error:
            raise NodeLost(_last_line(error)) from error
        finally:
            if not ended:  # the caller has lost interest; cancelling a task that has stopped does nothing
                with suppress(Exception):
                    self._ray.cancel(stream)

    def _stop(self, stream: Any) -> None:
        """Cancel a trial. Returns when no process of it is left."""
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
        """Return references to the corpus's files in the object store. They are put there once, when first needed."""
        with self._sending:
            for name in corpus.files:
                if name not in self._sent:
                    self._sent[name] = self._ray.put((corpus.folder / name).read_bytes())
            return dict(self._sent)

    def scheduler(self) -> RaySchedulerClient:
        """Return the access to the scheduler that divides the slots among the runs."""
        return self._scheduler

    def _check(self) -> None:
        """Raise `ConnectionError` after `close`: a call then would make Ray start a cluster, or end this process."""
        if self._closed or not self._ray.is_initialized():
            raise ConnectionError("Ray was shut down")

    def close(self) -> None:
        """Disconnect; a cluster that was started here ends."""
        self._closed = True
        self._sent.clear()
        if self._owns_connection:
            # A cluster whose head is gone may never answer; the process that ends takes the connection with it.
            ending = threading.Thread(target=self._ray.shutdown, daemon=True)
            ending.start()
            ending.join(CLOSE_SECONDS)


def _listens(address: str) -> bool:
    """Return whether a server listens at HOST:PORT; true for an address of any other form, which Ray must judge."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "://" in address:
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _use_token() -> bool:
    """Authenticate with this machine's token. Return whether there is one and RAY_AUTH_MODE does not forbid it.

    Ray does this by itself only where it finds the cluster by itself.
    """
    try:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    except ImportError:  # older versions of Ray know no token
        return False
    return "RAY_AUTH_MODE" not in os.environ and bool(maybe_enable_token_auth_if_token_available(False))


def _resources(node: Mapping[str, Any]) -> NodeResources:
    cpus, gpus, memory = (float(node["Resources"].get(name, 0.0)) for name in ("CPU", "GPU", "memory"))
    return NodeResources(cpus, gpus, memory, node["NodeManagerHostname"], node["NodeManagerAddress"])


def _prefer_head(ray: Any) -> Any:
    """Return a strategy that prefers the head's node: the one node that a cluster cannot lose."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    heads = [node["NodeID"] for node in ray.nodes() if HEAD in node["Resources"]]
    return NodeAffinitySchedulingStrategy(heads[0], soft=True) if heads else "DEFAULT"


def _pin_to(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def run_on_node(job: TrialJob, files: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Run a trial on a node: the remote task. `files` holds references to the corpus's files."""
    import ray

    messages = stream_trial(job, lambda name: ray.get(files[name]))
    try:
        yield from messages
    finally:
        messages.close()  # type: ignore[attr-defined]


def _last_line(error: BaseException) -> str:
    """Return an error's last line, without Ray's traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
