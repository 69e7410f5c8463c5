"""What one node and two nodes of a Ray cluster reach in some minutes: the cuda demo, from its plain file, on a CPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from autoresearch.core.store.headline import headline_of
from autoresearch.core.store.reader import LedgerReader
from benchmarks._chaos_arena import ar
from benchmarks._figures import figure
from benchmarks._ray_nodes import nodes, tell

COUNTS = (1, 2)
TAG = "nodes"


def measure(folder: Path, minutes: float) -> list[dict[str, Any]]:
    """Run the demo on one node and on two, for so many minutes each; return name, median, unit and note of every count.

    Every node is held to one processor of its own, with all that runs on it: two on one machine would otherwise share
    them, and one alone would use both. A run that has ended in the folder is not run again.
    """
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < max(COUNTS):
        raise RuntimeError(f"each of {max(COUNTS)} nodes needs a processor of its own, and there are {len(processors)}")
    found = []
    for count in COUNTS:
        workspace = folder.resolve() / f"nodes-{count}"
        if not _ended(workspace):
            _run(workspace, processors[:count], minutes)
        found.extend(_figures(workspace, count))
    return found


def _run(workspace: Path, processors: list[int], minutes: float) -> None:
    if not workspace.exists():
        subprocess.run([*ar(), "init", str(workspace)], check=True, capture_output=True)
    with nodes() as made:
        for processor in processors:
            made.add([processor])
        tell(f"{len(processors)} node(s), {minutes:g} minutes")
        options = ["--backend", "cuda", "--preset", "demo", "--workspace", str(workspace), "-q"]
        options += ["loop", "--tag", TAG, "--hours", str(minutes / 60), "--fleet", "ray", "--address", made.address]
        subprocess.run([*ar(), *options], check=True)


def _ended(workspace: Path) -> bool:
    folder = workspace / "runs" / TAG
    if not folder.exists():
        return False
    with LedgerReader(folder) as reader:
        return reader.run().state == "finished"


def _figures(workspace: Path, count: int) -> list[dict[str, Any]]:
    with LedgerReader(workspace / "runs" / TAG) as reader:
        rows = [row for row in reader.experiments() if row.state == "decided" and row.number]
        trials, best = reader.ended_trials(), headline_of(reader)
        minutes = (max(one.ended or 0.0 for one in trials) - min(one.started or 0.0 for one in trials)) / 60
    results = [one.result for one in trials if one.result.get("train_seconds")]
    cpu, wall = (sum(float(one.get(name) or 0.0) for one in results) for name in ("cpu_seconds", "wall_seconds"))
    first = f"{best.baseline.value:.4f}" if best and best.baseline else "unknown"
    note = (
        f"{count} node(s), {minutes:.1f} minutes, {len(trials)} trials with {cpu / wall:.2f} of a processor each "
        f"while they ran; the baseline's mean is {first}"
    )
    stacks = [row for row in rows if row.researcher == "stacks"]
    return [
        figure("experiments decided", len(rows), "", note),
        figure("experiments for each minute of a processor", 60 * len(rows) / cpu, "", note),
        figure("experiments kept", sum(row.status == "keep" for row in rows), "", note),
        figure("best measured mean", best.best.value if best else float("nan"), "bpb", note),
        figure("stacks tried", len(stacks), "", note),
        figure("stacks kept", sum(row.status == "keep" for row in stacks), "", note),
    ]
