"""A Ray cluster on this machine whose nodes can be pinned to a processor and killed, and what runs on it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

STORE_BYTES = 80 * 2**20
STARTS = 3
"""Times that Ray is started before it is given up: it gives its processes 30 s, which a busy machine may need."""
PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.2


class Nodes:
    """A Ray cluster whose head runs no trial, and nodes that run one each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # A node that waits for a processor is not dead; one that was killed refuses connections, and is missed at once.
        os.environ.update(RAY_health_check_timeout_ms="60000", RAY_memory_monitor_refresh_ms="0")
        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", RAY_AUTH_MODE="disabled")
        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        self.cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, processors: Sequence[int] = ()) -> Any:
        """Add a node, with every process of it on those processors alone where some are named."""
        if not processors:
            return self._add(os.cpu_count() or 1)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)  # which the processes that are started now take over
        try:
            return self._add(len(processors))
        finally:
            os.sched_setaffinity(0, before)

    def _add(self, cpus: int) -> Any:
        return _patiently(lambda: self.cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES))

    def kill(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)

    def node_of(self, process: psutil.Process) -> Any:
        """Return the node that a process runs on. Raises `LookupError`."""
        above = {one.pid for one in process.parents()}
        for node in self.cluster.worker_nodes:
            if any(one.process.pid in above for one in node.all_processes["raylet"]):
                return node
        raise LookupError(f"process {process.pid} runs on no node")

    def kill_head(self) -> None:
        """Kill the head, then the nodes that are left."""
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        for node in list(self.cluster.worker_nodes):
            self.kill(node)

    def close(self) -> None:
        self.cluster.shutdown()


def _patiently(start: Callable[[], Any]) -> Any:
    for left in reversed(range(STARTS)):
        try:
            return start()
        except Exception as error:
            if not left:
                raise
            tell(f"Ray did not start and is tried again: {error}")
    raise AssertionError("unreachable")


@contextmanager
def nodes() -> Iterator[Nodes]:
    """Start a cluster that ends with the block."""
    made = Nodes()
    try:
        yield made
    finally:
        made.close()


def lose_the_head(made: Nodes, loop: Any, count: int) -> Nodes:
    """Kill a cluster's head, wait until the loop that used it has ended, and return a new cluster of `count` nodes."""
    made.kill_head()
    _, said = loop.communicate(timeout=PATIENCE_SECONDS)
    tell(f"the loop ended with {loop.returncode}: {said.strip()[-300:]}")
    made.close()
    made = Nodes()
    for _ in range(count):
        made.add()
    return made


def training() -> bool:
    """Return whether any node runs a process of a trial; all of them are descendants of this process."""
    return any("autoresearch.core.trial.child.worker" in line for _, line in offspring())


def ray_workers() -> list[psutil.Process]:
    """Find the processes in which Ray runs trials."""
    return [process for process, line in offspring() if line.startswith("ray::run_on_node")]


def offspring() -> list[tuple[psutil.Process, str]]:
    """List every descendant of this process with its command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            found.append((process, " ".join(process.cmdline())))
        except psutil.Error:
            continue  # it has ended meanwhile
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds. Raises `TimeoutError`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited too long for {what}")
        time.sleep(POLL_SECONDS)


def tell(message: str) -> None:
    print(f"  {message}", file=sys.stderr, flush=True)
