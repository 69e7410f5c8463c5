"""Two runs' executors on one played cluster, a run's messages about it, and what `ar status` and `ar fleet` show."""

from __future__ import annotations

import json
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loop_fixtures import make_workspace, open_run
from null_trials import request
from test_cluster_executor import CPU, WANTED, Played, node, wait_for

from autoresearch.core.cli import fleet as fleet_command
from autoresearch.core.cli.fleet import find_node, find_run, node_records, node_row, run_row, table
from autoresearch.core.cli.main import run as ar
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import TrialError, UsageError
from autoresearch.core.fleet import cluster_executor, fair_scheduler, membership, status
from autoresearch.core.fleet.cluster import NodeResources
from autoresearch.core.fleet.cluster_executor import FleetExecutor
from autoresearch.core.fleet.fair_scheduler import Answer, CheckIn, FairScheduler, FleetUsage, RunUsage
from autoresearch.core.fleet.membership import Member
from autoresearch.core.fleet.shipping import CorpusRef, describe_corpus
from autoresearch.core.fleet.status import FleetStatus, FleetStatusWriter, read_fleet_status

ALONE = FleetStatus(0.0, 2, 2, 1, 0, 1.0, 0.5, False, (), ())


class OneAtATime(FairScheduler):
    """A scheduler as an engine runs it: one call after the other, and some answers are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.lose, self.dead = threading.Lock(), 0, False

    def check_in(self, message: CheckIn) -> Answer:
        with self.lock:
            if self.dead:
                raise ConnectionError("no answer")
            answer = super().check_in(message)
            if message["asked"] and self.lose:
                self.lose -= 1
                raise ConnectionError("the answer is lost")
            return answer


@pytest.fixture
def corpus(prepared: Prepared) -> CorpusRef:
    return describe_corpus(prepared.folder)


@pytest.fixture
def cluster() -> Played:
    return Played({"a": node(), "b": node()}, fair_scheduler=OneAtATime())


def executor_of(cluster: Played, corpus: CorpusRef, tag: str, folder: Path, **more: Any) -> FleetExecutor:
    return FleetExecutor(cluster, WANTED, corpus, member=Member(tag, folder, host="box"), **more)


def test_two_runs_never_have_the_same_slot_and_each_has_its_own(
    cluster: Played, corpus: CorpusRef, prepared: Prepared, tmp_path: Path
) -> None:
    first, second = (executor_of(cluster, corpus, tag, tmp_path / tag) for tag in ("night", "day"))
    assert (second.slots, second.others) == (2, ("night",))
    handles = [executor.submit(request(prepared, tmp_path / tag)) for tag, executor in (("1", first), ("2", second))]
    wait_for(lambda: len(cluster.jobs) == 2)  # what the first does not use is the second's after a moment
    assert {slot.node for slot, _ in cluster.jobs} == {"a", "b"}
    assert (first.capacity(), second.capacity()) == (1, 1)
    cluster.go.set()
    assert [handle.result(10).status for handle in handles] == ["ok", "ok"]
    second.close()
    wait_for(lambda: first.capacity() == 2)
    first.close()
    assert cluster.fair_scheduler.report()["runs"] == []


def test_a_slot_is_free_for_the_next_trial_as_soon_as_there_is_a_result(
    cluster: Played, corpus: CorpusRef, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "RELEASE_SECONDS", 60.0)  # on the busiest machine
    monkeypatch.setattr(fair_scheduler, "PROMISE_SECONDS", 60.0)
    executor = executor_of(cluster, corpus, "night", tmp_path / "r")
    cluster.go.set()
    for _ in range(5):
        handles = [executor.submit(request(prepared, tmp_path / name)) for name in "ab"]
        assert [handle.result(10).status for handle in handles] == ["ok", "ok"]
        assert executor.capacity() == 2
    executor.close()


def test_a_lost_answer_costs_no_slot(cluster: Played, corpus: CorpusRef, prepared: Prepared, tmp_path: Path) -> None:
    executor = executor_of(cluster, corpus, "night", tmp_path / "r")
    assert isinstance(cluster.fair_scheduler, OneAtATime)
    cluster.fair_scheduler.lose = 2
    handle = executor.submit(request(prepared, tmp_path / "t"))
    wait_for(lambda: len(cluster.jobs) == 1)
    assert cluster.fair_scheduler.lose == 0
    cluster.go.set()
    assert handle.result(10).status == "ok"
    wait_for(lambda: executor.capacity() == 2)
    executor.close()


def test_a_scheduler_that_no_longer_answers_counts_as_a_cluster_that_is_gone(
    cluster: Played, corpus: CorpusRef, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = executor_of(cluster, corpus, "night", tmp_path / "r")
    handle = executor.submit(request(prepared, tmp_path / "t"))
    wait_for(lambda: len(cluster.jobs) == 1)
    monkeypatch.setattr(cluster_executor, "GONE_SECONDS", 0.5)
    assert isinstance(cluster.fair_scheduler, OneAtATime)
    cluster.fair_scheduler.dead = True
    for ask in (lambda: handle.result(10), lambda: wait_for(lambda: executor.capacity() < 0)):
        with pytest.raises(TrialError, match="has not answered"):
            ask()
    executor.close()


def test_a_paused_run_and_a_drained_node_get_nothing_new_and_are_told_of(
    cluster: Played, corpus: CorpusRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "CHECK_IN_SECONDS", 0.02)
    monkeypatch.setattr(status, "CHANGED_SECONDS", 0.0)
    folder, said = tmp_path / "night", list[str]()
    folder.mkdir()
    executor = executor_of(cluster, corpus, "night", folder, say=said.append)
    (run,) = cluster.fair_scheduler.report()["runs"]
    cluster.fair_scheduler.pause(run["run"], True)
    wait_for(lambda: executor.capacity() == 0)
    wait_for(lambda: said and "paused on the fleet" in said[-1] and "`ar fleet resume night`" in said[-1])
    wait_for(lambda: (found := read_fleet_status(folder)) is not None and found.paused)
    cluster.fair_scheduler.pause(run["run"], False)
    cluster.fair_scheduler.drain("a", True)
    wait_for(lambda: executor.capacity() == 1)
    wait_for(lambda: any("resumed" in line for line in said) and any("node h is drained" in line for line in said))
    wait_for(lambda: (found := read_fleet_status(folder)) is not None and found.drained == ("h",))
    executor.close()
    assert read_fleet_status(folder) is None


def test_a_run_that_waits_for_its_turn_says_so_once_in_a_while(tmp_path: Path) -> None:
    said: list[str] = []
    writer = FleetStatusWriter("day", None, said.append)
    for second in range(100):
        writer.update(replace(ALONE, at=float(second), used=0, others=(("night", 2),)))
    assert said == ["waiting for a slot on the fleet: every slot that fits is used by night"]


def test_status_shows_the_fleet_while_the_run_runs_and_says_when_that_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = make_workspace(tmp_path / "w")
    with open_run(workspace, "night") as run:
        shared = replace(ALONE, at=time.time(), others=(("day", 1),), drained=("h", "h"))
        FleetStatusWriter("night", run.folder, lambda _: None).update(shared)
        assert ar(["--workspace", str(workspace), "status"]) == 0
        *_, line = capsys.readouterr().out.splitlines()
        assert line == (
            "night: fleet: 1 of 2 slots on 2 nodes; 1 other run: day (1); "
            "priority 1, 50 % of the device time; drained: h (2)"
        )
        FleetStatusWriter("night", run.folder, lambda _: None).update(replace(ALONE, at=time.time() - 240, paused=True))
        assert ar(["--workspace", str(workspace), "status"]) == 0
        assert capsys.readouterr().out.endswith("1 of 2 slots on 2 nodes; paused (as it was 4 min ago)\n")
        run.ledger.set_state("interrupted", "stopped")
    assert ar(["--workspace", str(workspace), "status"]) == 0
    assert "fleet" not in capsys.readouterr().out
    (run.folder / status.NAME).write_text('{"others": 3}')
    assert read_fleet_status(run.folder) is None


def run_report(tag: str, host: str, **changes: Any) -> RunUsage:
    return RunUsage(
        **{  # type: ignore[typeddict-item]
            "run": f"{host}:/w/runs/{tag}",
            "tag": tag,
            "host": host,
            "folder": f"/w/runs/{tag}",
            "priority": 2.0,
            "machine": CPU.description(),
            "places": [("aa11", "cpu", 0), ("ab22", "cpu", 0)],
            "used": [("aa11", "cpu", 0)],
            "device_seconds": 60.0,
            "share": 0.25,
            "paused": True,
            **changes,
        }
    )


NODES = {
    "aa11": NodeResources(8.0, 0.0, 1e9, "big", "10.0.0.1"),
    "ab22": NodeResources(8.0, 2.0, 1e9, "big", "10.0.0.1"),
    "cc33": NodeResources(0.0, 0.0, 1e9, "laptop", "10.0.0.3"),
}


def test_a_run_is_found_by_its_tag_and_a_node_by_host_address_or_id() -> None:
    report = FleetUsage(
        runs=[run_report("night", "box"), run_report("day", "box"), run_report("day", "lap")], drained=[]
    )
    assert find_run(report, "night")["run"] == "box:/w/runs/night"
    assert find_run(report, "lap:/w/runs/day")["host"] == "lap"
    with pytest.raises(UsageError, match=r"no run 'nigth' on the fleet\. Fix: one of day, day, night"):
        find_run(report, "nigth")
    with pytest.raises(UsageError, match=r"2 runs .* called 'day'\. Fix: one of box:/w/runs/day, lap:/w/runs/day"):
        find_run(report, "day")
    with pytest.raises(UsageError, match="there is none now"):
        find_run(FleetUsage(runs=[], drained=[]), "night")
    assert [find_node(NODES, name)[0] for name in ("laptop", "10.0.0.3", "aa")] == ["cc33", "cc33", "aa11"]
    with pytest.raises(UsageError, match=r"2 nodes .* called 'big'\. Fix: one of aa11, ab22"):
        find_node(NODES, "big")
    with pytest.raises(UsageError, match=r"no node 'x' .* one of big \(aa11\), big \(ab22\), laptop \(cc33\)"):
        find_node(NODES, "x")


def test_the_tables_say_what_runs_where() -> None:
    report = FleetUsage(runs=[run_report("night", "box", places=[("aa11", "cpu", 0)])], drained=["ab22"])
    rows = [list(node_row(one)) for one in node_records(NODES, report)]
    assert rows[0] == ["aa11", "big", "10.0.0.1", CPU.description(), "1", "night", ""]
    assert rows[1] == ["ab22", "big", "10.0.0.1", "8 cores, 2 GPUs", "-", "-", "drained"]
    assert rows[2][3] == "none: it runs no trials"
    run = {**run_report("night", "box"), "used": 1, "places": 2}
    assert list(run_row(run)) == ["night", "box", "2", "1 of 2", "25 %", "paused"]
    assert table(("a", "bb"), [("ccc", "")]) == ["a    bb", "ccc"]


def test_a_priority_is_a_positive_number_and_a_clusters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w")
    for given, words in (
        (["--priority", "2"], "--priority is an option for a Ray cluster"),
        (["--priority", "0", "--fleet", "ray"], "is not a positive number"),
        (["--priority", "nan", "--fleet", "ray"], "is not a positive number"),
    ):
        assert ar(["--workspace", str(workspace), "--backend", "null", "loop", *given]) == 2
        assert words in capsys.readouterr().err


class Answering:
    """A cluster of NODES whose scheduler takes every wish."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def nodes(self) -> dict[str, NodeResources]:
        return NODES

    def scheduler(self) -> Answering:
        return self

    def report(self) -> FleetUsage:
        return FleetUsage(runs=[run_report("night", "box")], drained=[])

    def pause(self, run: str, paused: bool) -> None:
        self.told.append((run, paused))

    def drain(self, node: str, drained: bool) -> None:
        self.told.append((node, drained))


@pytest.mark.parametrize(
    ("words", "told", "key", "value"),
    [
        (["pause", "night"], ("box:/w/runs/night", True), "paused", True),
        (["resume", "night"], ("box:/w/runs/night", False), "paused", False),
        (["drain", "aa"], ("aa11", True), "drained", True),
        (["undrain", "aa"], ("aa11", False), "drained", False),
    ],
)
def test_what_was_asked_of_the_fleet_is_an_object_with_json(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: tuple[object, ...],
    key: str,
    value: bool,
) -> None:
    cluster = Answering()
    monkeypatch.setattr(fleet_command, "connected", lambda address: nullcontext(cluster))
    assert ar(["fleet", *words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert cluster.told == [told] and (record[key], record["running"]) == (value, 1)
    assert ar(["fleet", *words]) == 0
    assert capsys.readouterr().out == ""
