"""Many simulated devices around the real loop, judge, ledger and git (see `_simulated_fleet`).

`python -m benchmarks.fleet busy` measures how much of 64 devices' time is used, with a model that takes minutes to
answer; `... price` the loss from proposing before results are known, beside one device, with a picture; `... long [N]`
memory, ledger and time for each of N experiments on ten devices. Without a word it does all three.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.run.run import Run
from benchmarks._simulated_fleet import FLOOR_BPB, simulate, true_bpb

PICTURE = Path(__file__).with_name("fleet.png")
DEVICES, BUSY_EXPERIMENTS, THINK_SECONDS = 64, 640, 240.0
PRICE_DEVICES, PRICE_EXPERIMENTS, SEEDS = (1, 8, 64), 128, (1, 2, 3)
LONG_DEVICES, LONG_EXPERIMENTS, LOOK_EVERY = 10, 10_000, 250


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
    return [*busy(), *price(), *long()]


def judge() -> Racing:
    return Racing(JudgeOptions(preset="h100"))


def busy() -> list[dict[str, Any]]:
    """Measure the share of the devices' time in which trials ran."""
    rows = []
    for seconds, what in ((0.0, "a researcher that answers at once"), (THINK_SECONDS, "a model of 240 s a proposal")):
        with tempfile.TemporaryDirectory() as name:
            done = simulate(Path(name) / "w", DEVICES, BUSY_EXPERIMENTS, judge(), think_seconds=seconds)
        end = max(end for _, end in done.devices.spans)
        whole = 100 * done.devices.utilisation(0.0, end)
        share = 100 * done.devices.utilisation(done.began, done.emptying)
        note = (
            f"{DEVICES} devices, {BUSY_EXPERIMENTS} experiments, {len(done.devices.spans)} trials of 340 s in the "
            f"median; {whole:.1f} % with the baseline, which all wait for, and the end"
        )
        rows.append({"name": f"devices in use, {what}", "median": share, "unit": "%", "note": note})
    return rows


def price() -> list[dict[str, Any]]:
    """Measure the cost of proposing before results are known, as the gain after equally many decisions."""
    curves: dict[int, list[list[float]]] = {}
    hours: dict[int, list[float]] = {}
    for count in PRICE_DEVICES:
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as name:
                done = simulate(Path(name) / "w", count, PRICE_EXPERIMENTS, judge(), seed=seed)
            curves.setdefault(count, []).append([true_bpb(source) for source in done.incumbents])
            hours.setdefault(count, []).append(max(end for _, end in done.devices.spans) / 3600)
    draw(curves)
    start = curves[1][0][0]
    rows = []
    for count in PRICE_DEVICES:
        best = statistics.mean(curve[-1] for curve in curves[count])
        note = f"{PRICE_EXPERIMENTS} experiments, {statistics.mean(hours[count]):.1f} h; means of {len(SEEDS)} runs"
        gained = 100 * (start - best) / (start - FLOOR_BPB)
        row = {"name": f"of the possible gain, {count} device{'s' * (count > 1)}", "median": gained, "unit": "%"}
        rows.append({**row, "note": note})
    return rows


def draw(curves: dict[int, list[list[float]]]) -> None:
    """Draw the best so far against the number of decisions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for count, found in curves.items():
        mean = [statistics.mean(values) for values in zip(*found, strict=False)]
        axes.plot(range(len(mean)), mean, label=f"{count} at a time")
    axes.set_xlabel("decided experiments")
    axes.set_ylabel("best so far, without noise (bpb)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=100)


def long(experiments: int = LONG_EXPERIMENTS) -> list[dict[str, Any]]:
    """Measure memory, disk and time for each experiment, early and late in a long run."""
    looks: list[tuple[int, float, float, float]] = []

    def look(decided: int, run: Run) -> None:
        if decided % LOOK_EVERY:
            return
        disk = sum((run.folder / name).stat().st_size for name in ("ledger.sqlite", "journal.jsonl"))
        looks.append((decided, psutil.Process().memory_info().rss / 2**20, disk / 1024, time.monotonic()))

    with tempfile.TemporaryDirectory() as name:
        simulate(Path(name) / "w", LONG_DEVICES, experiments, judge(), at_decision=look)
    return report(looks)


def report(looks: Sequence[tuple[int, float, float, float]]) -> list[dict[str, Any]]:
    """Compare the first quarter of the run with the last, from (experiments, MB, kB, seconds) at every look."""
    quarter = max(1, len(looks) // 4)
    rows = []
    for part, when in ((looks[: quarter + 1], "first"), (looks[-quarter - 1 :], "last")):
        (n0, memory0, disk0, time0), (n1, memory1, disk1, time1) = part[0], part[-1]
        note = f"{LONG_DEVICES} devices; experiments {n0} to {n1}"
        for name, value, unit in (
            ("memory", 1024 * (memory1 - memory0) / (n1 - n0), "kB"),
            ("ledger and journal", (disk1 - disk0) / (n1 - n0), "kB"),
            ("the loop's own time", 1000 * (time1 - time0) / (n1 - n0), "ms"),
        ):
            rows.append({"name": f"{name} an experiment, {when} quarter", "median": value, "unit": unit, "note": note})
    rows.append(
        {"name": "memory at the end", "median": looks[-1][1], "unit": "MB", "note": f"{looks[-1][0]} experiments"}
    )
    return rows


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word == "long":
        measured = long(*(int(count) for count in sys.argv[2:3]))
    else:
        measured = {"busy": busy, "price": price, "": run}[word]()
    for one in measured:
        print(f"{one['name']}: {one['median']:.2f} {one['unit']} ({one['note']})")
