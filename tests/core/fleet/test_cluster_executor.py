"""A fleet's executor on a played cluster: the nodes that it uses, and the end of a trial whose node is lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from null_trials import request
from offspring import offspring, offspring_with

from autoresearch.backends.contract import Device
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError, PrerequisiteError, TrialError
from autoresearch.core.events import Event, FirstBatch, Trained, to_json
from autoresearch.core.fleet import cluster_executor
from autoresearch.core.fleet.cluster import (
    NodeLost,
    NodeRequirements,
    NodeResources,
    NodeSlot,
    Placement,
    choose_device,
    slots_of,
    survey,
)
from autoresearch.core.fleet.cluster_executor import FleetExecutor
from autoresearch.core.fleet.executor import TrialLost, TrialMisplaced
from autoresearch.core.fleet.fair_scheduler import FairScheduler
from autoresearch.core.fleet.membership import Member
from autoresearch.core.fleet.node import NodeInfo, TrialJob, stream_trial
from autoresearch.core.fleet.shipping import CorpusRef, describe_corpus, find_corpus, receive_corpus
from autoresearch.core.trial.audit import Tolerance, read_tolerances
from autoresearch.core.trial.request import Budget
from autoresearch.core.trial.supervisor import TrialCancelled

CPU = Device("numpy", "A CPU", 1000.0, "fp32", "numpy 2")
H100 = Device("cuda", "NVIDIA H100", 80000.0, "bf16", "torch 2")
A100 = Device("cuda", "NVIDIA A100", 40000.0, "bf16", "torch 2")
WANTED = NodeRequirements("null", CPU.description(), "same")
OK = {"status": "ok", "seed": 0, "backend": "null", "preset": "demo", "machine": CPU.description()}


def node(device: Device | None = CPU, **changes: Any) -> NodeInfo:
    said: dict[str, Any] = {"trouble": None, "isolation": "bubblewrap", "code": "same", "host": "h", "has_corpus": True}
    return NodeInfo(device, **{**said, **changes})


@dataclass
class Played:
    """A cluster whose nodes are given, and whose trials end when the test says so."""

    there: Mapping[str, NodeInfo | Exception]
    gpus: float = 0.0
    lost: set[str] = field(default_factory=set)
    silent: bool = False
    go: threading.Event = field(default_factory=threading.Event)
    jobs: list[tuple[NodeSlot, bool]] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=lambda: OK)
    fair_scheduler: FairScheduler = field(default_factory=FairScheduler)
    tolerances: list[bytes] = field(default_factory=list)
    """What the nodes have calibrated, trial after trial; nothing once it is used up."""

    def nodes(self) -> Mapping[str, NodeResources]:
        if self.silent:
            raise ConnectionError("no head")
        return {name: NodeResources(8.0, self.gpus, 1e9) for name in self.there if name not in self.lost}

    def inspect(self, name: str, backend: str, corpus: CorpusRef | None = None) -> NodeInfo:
        found = self.there[name]
        if isinstance(found, Exception):
            raise found
        return found

    def run(self, slot: NodeSlot, job: TrialJob, ship: bool, cancel: threading.Event) -> Iterator[Mapping[str, Any]]:
        self.jobs.append((slot, ship))
        yield to_json(Trained())
        while not self.go.wait(0.01):
            if cancel.is_set():
                return
            if slot.node in self.lost:
                raise NodeLost("died")
            yield {}
        yield {
            "result": dict(self.result),
            "files": {"run.log": b"said\n"},
            "tolerances": self.tolerances.pop(0) if self.tolerances else b"{}\n",
        }

    def scheduler(self) -> FairScheduler:
        return self.fair_scheduler

    def close(self) -> None:
        pass


@pytest.fixture
def corpus(prepared: Prepared) -> CorpusRef:
    return describe_corpus(prepared.folder)


def test_only_nodes_with_the_runs_own_device_code_and_isolation_have_a_slot(corpus: CorpusRef) -> None:
    said: list[str] = []
    there = {
        "a": node(),
        "b": node(H100),
        "c": node(code="other"),
        "d": node(isolation="process"),
        "e": node(None, trouble="no numpy"),
        "f": PrerequisiteError("ar is not installed"),
        "g": node(has_corpus=False),
    }
    wanted = NodeRequirements("null", CPU.description(), "same", "landlock")
    executor = FleetExecutor(Played(there), wanted, corpus, say=said.append)
    assert executor.capacity() == 2
    assert executor.isolation == "bubblewrap"
    why = "\n".join(said)
    for words in ("NVIDIA H100", "not the same as here", "landlock is required", "no numpy", "ar is not installed"):
        assert words in why
    executor.close()
    with pytest.raises(PrerequisiteError, match="no node of the fleet can run"):
        FleetExecutor(Played({"b": node(H100)}), wanted, corpus)


def test_a_slot_is_a_gpu_or_a_whole_cpu() -> None:
    four = slots_of("n", NodeResources(32.0, 4.0, 1e9), "cuda")
    assert [(slot.cpus, slot.gpus) for slot in four] == [(8.0, 1.0)] * 4
    assert [slot.cpus for slot in slots_of("n", NodeResources(32.0, 4.0, 1e9), "cpu")] == [32.0]
    assert slots_of("n", NodeResources(32.0, 0.0, 1e9), "cuda") == ()


def test_the_device_of_a_run_is_the_kind_with_the_most_slots_or_the_one_it_had() -> None:
    cluster = Played({"a": node(A100), "b": node(H100), "c": node(H100)}, gpus=1.0, result={**OK, "machine": None})
    found = survey(cluster, "cuda")
    assert choose_device(found) == H100
    assert choose_device(found, Placement("a100")) == A100
    assert choose_device(found, before=A100.description()) == A100
    with pytest.raises(PrerequisiteError, match=r"on 'B200'.*NVIDIA A100, torch 2; NVIDIA H100"):
        choose_device(found, Placement("B200"))


def test_a_result_comes_home_with_its_files(corpus: CorpusRef, prepared: Prepared, tmp_path: Path) -> None:
    cluster = Played({"a": node(has_corpus=False)})
    executor, asked = FleetExecutor(cluster, WANTED, corpus), request(prepared, tmp_path / "t")
    cluster.go.set()
    result = executor.submit(asked).result(10)
    assert (result.status, result.log) == ("ok", str(tmp_path / "t/run.log"))
    assert (tmp_path / "t/run.log").read_text() == "said\n"
    assert [ship for _, ship in cluster.jobs] == [True]
    cluster.result = {**OK, "machine": "another CPU"}
    with pytest.raises(TrialMisplaced, match="it ran on another CPU"):
        executor.submit(asked).result(10)
    executor.close()


def test_the_tolerances_of_two_nodes_are_joined_and_none_gets_narrower(
    corpus: CorpusRef, prepared: Prepared, tmp_path: Path
) -> None:
    told: list[dict[str, dict[str, float]]] = [
        {"one": {"max_abs": 0.5, "mean": 0.1}},
        {"one": {"max_abs": 0.1, "mean": 0.2}, "two": {"max_abs": 1.0, "mean": 1.0}},
    ]
    cluster = Played({"a": node(), "b": node()}, tolerances=[json.dumps(one).encode() for one in told])
    executor, path = FleetExecutor(cluster, WANTED, corpus), tmp_path / "tolerances.json"
    asked = [request(prepared, tmp_path / name, tolerances=path, calibrate=True) for name in "ab"]
    cluster.go.set()
    for handle in [executor.submit(one) for one in asked]:
        handle.result(20)
    executor.close()
    assert read_tolerances(path) == {"one": Tolerance(0.5, 0.2), "two": Tolerance(1.0, 1.0)}


def test_a_lost_node_ends_its_trial_and_takes_its_slot_away(
    corpus: CorpusRef, prepared: Prepared, tmp_path: Path
) -> None:
    cluster, said = Played({"a": node(), "b": node()}), list[str]()
    executor = FleetExecutor(cluster, WANTED, corpus, say=said.append)
    handles = [executor.submit(request(prepared, tmp_path / name)) for name in "ab"]
    wait_for(lambda: len(cluster.jobs) == 2)
    cluster.lost = {cluster.jobs[0][0].node}
    lost = next(handle for handle in handles if ended(handle))
    with pytest.raises(TrialLost, match=r"its node . was lost: died"):
        lost.result(0)
    assert executor.capacity() == 1
    cluster.lost = set()
    executor.refresh()
    wait_for(lambda: executor.capacity() == 2)
    other = next(handle for handle in handles if handle is not lost)
    cluster.lost = {"a", "b"} - {cluster.jobs[1][0].node}
    executor.refresh()
    assert executor.capacity() == 1
    assert "is gone" in said[-1]
    other.cancel()
    with pytest.raises(TrialCancelled):
        other.result(0)
    executor.close()


def test_a_feeder_that_is_killed_on_a_node_loses_the_trial_and_keeps_the_slot(
    corpus: CorpusRef, prepared: Prepared, tmp_path: Path
) -> None:
    class Runs(Played):
        """Runs its trials here, as a node does."""

        def run(
            self, slot: NodeSlot, job: TrialJob, ship: bool, cancel: threading.Event
        ) -> Iterator[Mapping[str, Any]]:
            return stream_trial(job, lambda name: b"")

    known, executor = offspring(), FleetExecutor(Runs({"a": node()}), WANTED, corpus)

    def kill(event: Event) -> None:
        if isinstance(event, FirstBatch):
            offspring_with("autoresearch.core.data.feed", known)[-1].kill()

    handle = executor.submit(request(prepared, tmp_path / "t", budget=Budget(5.0)), kill)
    with pytest.raises(TrialLost, match=r"on node a: the feeder was killed \(SIGKILL\)"):
        handle.result(60)
    assert executor.capacity() == 1
    executor.close()


def test_a_cluster_that_does_not_answer_any_more_is_given_up(
    corpus: CorpusRef, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_executor, "REFRESH_SECONDS", 0.05)
    cluster = Played({"a": node()})
    executor = FleetExecutor(cluster, WANTED, corpus)
    handle = executor.submit(request(prepared, tmp_path / "t"))
    monkeypatch.setattr(cluster_executor, "GONE_SECONDS", 0.3)
    cluster.silent = True
    for ask in (lambda: handle.result(10), executor.capacity):
        with pytest.raises(TrialError, match="has not answered"):
            ask()
    executor.close()


def test_a_corpus_is_found_by_its_manifest_or_received_whole(
    corpus: CorpusRef, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AR_DATA_DIR", str(tmp_path / "data"))
    assert find_corpus(corpus) == prepared.folder
    away = CorpusRef(tmp_path / "nowhere", corpus.sha256, corpus.files)
    assert find_corpus(away) is None

    def fetch(name: str) -> bytes:
        return (prepared.folder / name).read_bytes()

    def spoilt(name: str) -> bytes:
        return fetch(name)[:-1] + b"x" if name.endswith(".tokens") else fetch(name)

    with pytest.raises(DataError):
        receive_corpus(away, spoilt)
    assert find_corpus(away) is None
    place = receive_corpus(away, fetch)
    assert find_corpus(away) == place == receive_corpus(away, spoilt)
    Prepared.open(place).verify()
    with pytest.raises(DataError, match="outside its folder"):
        receive_corpus(CorpusRef(tmp_path / "evil", "0" * 64, ("../../x",)), lambda name: b"x")


def ended(handle: Any) -> bool:
    """Return whether the trial ends within a moment."""
    try:
        handle.result(2)
    except TimeoutError:
        return False
    except TrialError:
        return True
    return True


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_kinds_of_device_of_one_cluster_have_an_executor_each_and_one_ends_the_connection(
    corpus: CorpusRef, prepared: Prepared, tmp_path: Path
) -> None:
    ended: list[str] = []

    class Watched(Played):
        def close(self) -> None:
            ended.append("closed")

    cluster = Watched({"a": node(), "b": node(H100), "c": node(H100)}, gpus=1.0, result={**OK, "machine": None})
    cheap, dear = (
        FleetExecutor(
            cluster,
            NodeRequirements("null", kind.description(), "same"),
            corpus,
            member=Member(tag, tmp_path / tag, host="box"),
            disconnects=last,
        )
        for kind, tag, last in ((CPU, "night (screens)", False), (H100, "night", True))
    )
    assert (cheap.slots, dear.slots) == (1, 2)
    handles = [one.submit(request(prepared, tmp_path / str(i))) for i, one in enumerate((cheap, dear))]
    wait_for(lambda: len(cluster.jobs) == 2)
    assert sorted(slot.node in ("b", "c") for slot, _ in cluster.jobs) == [False, True]
    cluster.go.set()
    assert [handle.result(10).status for handle in handles] == ["ok", "ok"]
    cheap.close()
    assert not ended and dear.capacity() == 2
    dear.close()
    assert ended == ["closed"]
    assert cluster.fair_scheduler.report()["runs"] == []
