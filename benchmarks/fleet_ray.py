"""Measures real trials on a Ray cluster on this machine, most of them of the null backend.

`python -m benchmarks.fleet_ray throughput [SECONDS]`: decided experiments an hour with one node and with two, at a
fixed training time. The train file sleeps between its steps, so that two trials do not compete for one CPU.

`python -m benchmarks.fleet_ray chaos`: `ar loop --fleet ray` on a cluster of one node with trials, whose worker, node,
head and loop are killed in the middle of trials. The decisions are compared with those of `ar loop` on this machine
alone.

`python -m benchmarks.fleet_ray stacks`: the same with three nodes and changes that improve, killed in the middle of the
trials of stacks, and a count of everything that is lost or there twice.

`python -m benchmarks.fleet_ray nodes FOLDER [--minutes M]`: what the cuda demo reaches from its plain file on one node
with one trial, and on two with one trial each.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.config import load_presets
from autoresearch.core.errors import LedgerError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.store.reader import LedgerReader
from benchmarks._chaos_arena import Arena, with_pauses
from benchmarks._ray_nodes import Nodes, lose_the_head, nodes, ray_workers, tell, training, until
from benchmarks._real_nodes import measure
from benchmarks._stacks_on_ray import MOMENTS, stacks
from benchmarks.idle import SlowModel, _prepared, null_config

TRIAL_SECONDS = 30.0
EXPERIMENTS, CHAOS_EXPERIMENTS = 4, 3


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*throughput(folder / "speed", TRIAL_SECONDS), *chaos(folder / "chaos"), *stacks(folder / "stacks")]


class Sleepy(Arena):
    """The null train file with a pause after every step."""

    def _fix_steps(self) -> None:
        train = self.workspace / "backends/null/train.py"
        train.write_text(with_pauses(train.read_text(encoding="utf-8")), encoding="utf-8")
        commit = ["git", "-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-q", "-a", "-m", "slow steps"]
        subprocess.run(commit, cwd=self.workspace, check=True)


def throughput(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Measure experiments an hour with one node and with two."""
    os.environ["AR_DATA_DIR"] = str(folder / "data")
    rates = []
    with nodes() as made:
        for count in (1, 2):
            made.add()
            rates.append(rate(folder, made.address, count, seconds))
    note = f"{EXPERIMENTS} experiments after the baseline, {seconds:g} s of training each"
    names = ("experiments an hour, 1 node", "experiments an hour, 2 nodes")
    found = [{"name": n, "median": r, "unit": "1/h", "note": note} for n, r in zip(names, rates, strict=True)]
    return [*found, {"name": "2 nodes over 1", "median": rates[1] / rates[0], "unit": "x", "note": note}]


def rate(folder: Path, address: str, count: int, seconds: float) -> float:
    """Measure experiments an hour after the baseline's decision."""
    from autoresearch.core.fleet.cluster import NodeRequirements, choose_device, survey
    from autoresearch.core.fleet.cluster_executor import FleetExecutor
    from autoresearch.core.fleet.ray import RayCluster
    from autoresearch.core.fleet.shipping import describe_corpus
    from autoresearch.core.store.integrity import code_sha256

    arena = Sleepy(folder / f"nodes-{count}", folder, EXPERIMENTS)
    prepared = _prepared(arena, folder)
    cluster, corpus = RayCluster(address), describe_corpus(prepared.folder)
    found = survey(cluster, "null", corpus)
    machine = choose_device(found).description()
    executor: Any = FleetExecutor(cluster, NodeRequirements("null", machine, code_sha256("null")), corpus, found)
    executor.spans = [[0.0, 0.0]]  # read by the idle benchmark's model; with this it answers at once
    preset = load_presets(Path(backends.__path__[0]) / "null" / "presets.toml")["demo"]
    config = null_config(prepared, seconds, startup_seconds=120.0, judge="greedy", machine=machine)
    with Run(arena.workspace, "speed", config, preset) as job:
        loop = Loop(job, SlowModel(executor, thinks_ahead=False), Greedy(), executor, limits=Limits(EXPERIMENTS))
        if executor.capacity() != count or loop.go().exit_code:
            raise RuntimeError(f"the run on {count} nodes did not end well")
        rows = list(job.ledger.experiments())
    executor.close()
    begun, ended = rows[0].decided, max(row.decided or 0.0 for row in rows)
    return 3600 * EXPERIMENTS / (ended - (begun or 0.0))


class OnRay(Arena):
    """The same run, on a Ray cluster."""

    address = ""

    def arguments(self) -> list[str]:
        return [*super().arguments(), "--fleet", "ray", "--address", self.address]


def chaos(folder: Path) -> list[dict[str, Any]]:
    """Kill each process once, and count the differences from an undisturbed run on this machine."""
    os.environ["AR_DATA_DIR"] = str(folder / "data")
    started = time.monotonic()
    calm, wild = Arena(folder / "calm", folder, CHAOS_EXPERIMENTS), OnRay(folder / "wild", folder, CHAOS_EXPERIMENTS)
    calm.finish()
    tell(f"undisturbed, on this machine: {time.monotonic() - started:.0f} s")
    made = Nodes()
    try:
        made = break_everything(wild, made)
    finally:
        made.close()
    story, expected = wild.story(), calm.story()
    with LedgerReader(wild.run_folder) as reader:
        lost = len(reader.events("trial lost"))
        trials = reader.every_trial()
    counts = {
        "experiments that differ from a run on this machine": sum(a != b for a, b in zip(story, expected, strict=False))
        + abs(len(story) - len(expected)),
        "records that disagree": len(wild.disagreements()),
        "trials without a result": sum(trial.status is None for trial in trials),
        "trials that lost their machine and were run again": lost,
        "starts of trials beyond the first": sum(trial.starts - 1 for trial in trials),
    }
    note = f"{', '.join(MOMENTS)} killed once each; {len(trials)} trials, {time.monotonic() - started:.0f} s"
    return [{"name": name, "median": count, "unit": "", "note": note} for name, count in counts.items()]


def break_everything(wild: OnRay, made: Nodes) -> Nodes:
    """Kill the worker, the node, the head and the loop, each while a trial trains; then let the run end."""
    wild.address, node = made.address, made.add()
    loop = wild.start()
    for moment in MOMENTS:
        known = starts(wild)
        until(lambda known=known: starts(wild) > known and training(), f"a trial before the {moment} is killed")
        tell(f"killing the {moment}")
        if moment == "worker":
            for one in ray_workers():
                one.kill()
        elif moment == "node":
            made.kill(node)
            node = made.add()
        elif moment == "head":
            made = lose_the_head(made, loop, 1)
            wild.address = made.address
            loop = wild.start()
        else:
            loop.send_signal(signal.SIGKILL)
            loop.communicate()
            until(lambda: not training(), "the dead loop's trial to end")
    wild.finish()
    return made


def starts(arena: Arena) -> int:
    """Count how often trials were started."""
    try:
        with LedgerReader(arena.run_folder) as reader:
            return sum(trial.starts for trial in reader.every_trial())
    except LedgerError:
        return 0


def main() -> None:
    """Make one measurement and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_ray", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("throughput").add_argument("seconds", type=float, nargs="?", default=TRIAL_SECONDS)
    for kind in ("chaos", "stacks"):
        kinds.add_parser(kind)
    real = kinds.add_parser("nodes")
    real.add_argument("folder", type=Path)
    real.add_argument("--minutes", type=float, default=10.0, help="for each of the two runs  [default: 10]")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        if chosen.kind == "nodes":
            rows = measure(chosen.folder, chosen.minutes)
        elif chosen.kind == "throughput":
            rows = throughput(where, chosen.seconds)
        else:
            rows = (stacks if chosen.kind == "stacks" else chaos)(where)
    for row in rows:
        print(f"{row['name']}: {row['median']:.4g} {row['unit']} ({row['note']})")


if __name__ == "__main__":
    main()
