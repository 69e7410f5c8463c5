"""Trials on a Ray cluster of two nodes on this machine: two loops that share it, results, files, a shipped corpus, a
stop, a lost node.

One test for all of it: a cluster takes many seconds to start. `test_ray_fleet.py` runs it in a process of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from null_trials import request
from offspring import offspring, offspring_with
from two_loops import two_loops_share_the_slots

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import TrialError
from autoresearch.core.events import Event, FirstBatch, Spawned
from autoresearch.core.fleet.cluster import NodeRequirements, choose_device, slots_of, survey
from autoresearch.core.fleet.cluster_executor import FleetExecutor
from autoresearch.core.fleet.executor import TrialLost
from autoresearch.core.fleet.node import TrialJob
from autoresearch.core.fleet.ray import RayCluster
from autoresearch.core.fleet.shipping import describe_corpus
from autoresearch.core.store.integrity import code_sha256
from autoresearch.core.trial.request import Budget
from autoresearch.core.trial.supervisor import TrialCancelled

BUDGET = Budget(0.3, 120.0, 60.0)
ENDLESS = "import time\ndef build(spec): time.sleep(600)"
PATIENCE_SECONDS = 200
STORE_BYTES = 80 * 2**20


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    import ray
    from ray.cluster_utils import Cluster

    # Without a token, whether there is one on this machine or not: not every process would ask for it. A killed node
    # refuses connections, so it is missed at once; one that only waits for a processor gets a minute, for Ray ends a
    # driver whose node it takes for dead.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", RAY_AUTH_MODE="disabled")
    os.environ.update(RAY_health_check_timeout_ms="60000", RAY_memory_monitor_refresh_ms="0")
    os.environ["AR_DATA_DIR"] = str(tmp_path_factory.mktemp("node-data"))
    made, second = start_two_nodes(Cluster)
    del os.environ["AR_DATA_DIR"]
    yield made, second
    ray.shutdown()
    made.shutdown()


def start_two_nodes(kind: Callable[..., Any]) -> tuple[Any, Any]:
    """A cluster, and its second node. Ray gives its processes 30 s to start, which a busy machine may not grant."""
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    for tries_left in (2, 1, 0):
        made = kind()
        try:
            made.add_node(**node)
            return made, made.add_node(**node)
        except Exception:
            made.shutdown()
            if not tries_left:
                raise
    raise AssertionError("unreachable")


@pytest.mark.timeout(900)
def test_a_fleet_of_two_nodes(nodes: tuple, prepared: Prepared, tmp_path: Path) -> None:
    cluster, corpus = RayCluster(nodes[0].address), describe_corpus(prepared.folder)
    two_loops_share_the_slots(cluster, nodes[0].address, tmp_path / "loops")
    found = survey(cluster, "null", corpus)
    device = choose_device(found)
    executor = FleetExecutor(
        cluster, NodeRequirements("null", device.description(), code_sha256("null")), corpus, found
    )
    try:
        two_nodes_run_two_trials_at_once(executor, prepared, tmp_path)
        a_trial_that_cannot_be_run_says_why(executor, prepared, tmp_path)
        a_node_without_the_corpus_is_sent_it(cluster, prepared, tmp_path / "sent")
        a_lost_node_is_told_and_the_other_goes_on_until_it_is_stopped(nodes, executor, prepared, tmp_path)
    finally:
        executor.close()


def two_nodes_run_two_trials_at_once(executor: FleetExecutor, prepared: Prepared, tmp_path: Path) -> None:
    assert executor.capacity() == 2
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    def meet(event: Event) -> None:
        if isinstance(event, FirstBatch):
            both.wait()

    asked = [request(prepared, tmp_path / name, seed=3, budget=BUDGET, audit=False) for name in "ab"]
    results = [handle.result(PATIENCE_SECONDS) for handle in [executor.submit(one, meet) for one in asked]]
    assert [result.status for result in results] == ["ok", "ok"]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"run.log", "events.jsonl", "result.json", "train.py"}
    assert results[0].log == str(tmp_path / "a" / "run.log")


def a_trial_that_cannot_be_run_says_why(executor: FleetExecutor, prepared: Prepared, tmp_path: Path) -> None:
    handle = executor.submit(request(prepared, tmp_path / "c", backend="abacus"))
    with pytest.raises(TrialError, match="no backend 'abacus'"):
        handle.result(PATIENCE_SECONDS)


def a_node_without_the_corpus_is_sent_it(cluster: RayCluster, prepared: Prepared, folder: Path) -> None:
    (node, resources), never = next(iter(cluster.nodes().items())), threading.Event()
    slot, corpus, asked = (
        slots_of(node, resources, "numpy")[0],
        describe_corpus(prepared.folder),
        request(prepared, folder),
    )
    job = TrialJob(replace(asked, source="("), corpus, None)
    list(cluster.run(slot, job, True, never))  # puts the files into the object store
    elsewhere = replace(corpus, folder=Path("/nowhere") / corpus.folder.name)
    *_, last = cluster.run(slot, replace(job, corpus=elsewhere), True, never)
    assert last["result"]["status"] == "invalid"
    *_, last = cluster.run(slot, replace(job, corpus=elsewhere), False, never)  # it has the corpus now
    assert last["result"]["status"] == "invalid"


def a_lost_node_is_told_and_the_other_goes_on_until_it_is_stopped(
    nodes: tuple, executor: FleetExecutor, prepared: Prepared, tmp_path: Path
) -> None:
    both, known = [threading.Event(), threading.Event()], offspring()
    handles = [
        executor.submit(
            request(prepared, tmp_path / name, ENDLESS, budget=Budget(60.0, 600.0)),
            lambda event, seen=seen: seen.set() if isinstance(event, Spawned) else None,  # type: ignore[misc]
        )
        for name, seen in zip("de", both, strict=True)
    ]
    assert all(seen.wait(PATIENCE_SECONDS) for seen in both)
    first = threading.Event()
    for handle in handles:
        handle.on_done(first.set)
    nodes[0].remove_node(nodes[1], allow_graceful=False)
    assert first.wait(PATIENCE_SECONDS)
    lost, other = sorted(handles, key=lambda handle: not handle.done())
    with pytest.raises(TrialLost, match=r"its node .* was lost"):
        lost.result()
    assert executor.capacity() == 1
    assert not other.done()
    other.cancel()
    with pytest.raises(TrialCancelled):
        other.result()
    assert offspring_with("autoresearch.core.trial", known) == []
