"""Many simulated devices around the real loop, judge, ledger and git (see `_simulated_fleet`).

`python -m benchmarks.fleet busy` measures how much of 64 devices' time is used, with a model that takes minutes to
answer; `... price` the loss from proposing before results are known, beside one device, with stacks and diverse
batches, with stacks alone and with neither, and with a picture; `... parts` what becomes of three real improvements and
two changes that do nothing; `... long [N]` memory, ledger and time for each of N experiments on ten devices. Without a
word it does all four.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from autoresearch.core.errors import LimitReachedError, ProposalError
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import History, Proposal, Researcher
from autoresearch.core.run.run import Run
from autoresearch.core.run.stacks import PROMISING
from autoresearch.core.trainfile.constants import write_constants
from benchmarks._simulated_fleet import FLOOR_BPB, simulate, true_bpb

PICTURE = Path(__file__).with_name("fleet.png")
DEVICES, BUSY_EXPERIMENTS, THINK_SECONDS = 64, 640, 240.0
PRICE_EXPERIMENTS, SEEDS = 128, (1, 2, 3)
DIVERSE, STACKS, NEITHER = "stacks and diverse batches", "stacks", "neither"
PRICED = ((1, DIVERSE), *((count, how) for count in (8, 64) for how in (DIVERSE, STACKS, NEITHER)))
REAL, IDLE, STEP, PART_SEEDS = 3, 2, 0.3, range(1, 21)
Curves = dict[tuple[int, str], list[list[float]]]
"""Best so far after each decision, in bpb, of every run, by the number of devices and how they are used."""
LONG_DEVICES, LONG_EXPERIMENTS, LOOK_EVERY = 10, 10_000, 250


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement."""
    return [*busy(), *price(), *parts(), *long()]


def judge(stacks: str = "on") -> Racing:
    """Make the judge; `stacks` is "on" or "off"."""
    return Racing(JudgeOptions.choose("h100", {"stacks": stacks}, {}))


def busy() -> list[dict[str, Any]]:
    """Measure the share of the devices' time in which trials ran."""
    rows = []
    for seconds, what in ((0.0, "a researcher that answers at once"), (THINK_SECONDS, "a model of 240 s a proposal")):
        with tempfile.TemporaryDirectory() as name:
            done = simulate(Path(name) / "w", DEVICES, BUSY_EXPERIMENTS, judge("off"), think_seconds=seconds)
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
    curves: Curves = {}
    hours: dict[tuple[int, str], list[float]] = {}
    for count, how in PRICED:
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as name:
                chosen = judge("off" if how == NEITHER else "on")
                done = simulate(
                    *(Path(name) / "w", count, PRICE_EXPERIMENTS, chosen), seed=seed, diverse=how == DIVERSE
                )
            found = [true_bpb(source) for source in done.incumbents[: PRICE_EXPERIMENTS + 1]]
            curves.setdefault((count, how), []).append(found)
            hours.setdefault((count, how), []).append(max(end for _, end in done.devices.spans) / 3600)
    draw(curves)
    start = curves[PRICED[0]][0][0]
    rows = []
    for count, how in PRICED:
        best = statistics.mean(curve[-1] for curve in curves[count, how])
        took = statistics.mean(hours[count, how])
        gained = 100 * (start - best) / (start - FLOOR_BPB)
        note = (
            f"{PRICE_EXPERIMENTS} experiments, {took:.1f} h, {gained / (count * took):.1f} % for each hour of a "
            f"device; means of {len(SEEDS)} runs"
        )
        what = "1 device" if count == 1 else f"{count} devices, {how}"
        rows.append({"name": f"of the possible gain, {what}", "median": gained, "unit": "%", "note": note})
    return rows


def draw(curves: Curves) -> None:
    """Draw the best so far against the number of decisions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    counts = list(dict.fromkeys(count for count, _ in curves))
    for (count, how), found in curves.items():
        mean = [statistics.mean(values) for values in zip(*found, strict=False)]
        label = f"{count} at a time" + ("" if count == 1 else f", {how}")
        style = {DIVERSE: "-", STACKS: "--", NEITHER: ":"}[how]
        axes.plot(range(len(mean)), mean, style, color=f"C{counts.index(count)}", label=label)
    axes.set_xlabel("decided experiments")
    axes.set_ylabel("best so far, without noise (bpb)")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=100)


class Given(Researcher):
    """Proposes three changes that help and two that do nothing, then nothing."""

    name = "given"

    def propose(self, history: History) -> Proposal:
        """Return the next change of the list. Raises `ProposalError` after the last."""
        turn = history.turn - 1 - sum(bool(one.parameters) for one in (*history.attempts, *history.in_flight))
        if turn >= REAL + IDLE:
            raise ProposalError("no change is left.")
        name = f"KNOB_{turn}" if turn < REAL else f"IDLE_{turn - REAL}"
        source = write_constants(history.incumbent.source, {name: STEP})
        return Proposal(source, f"move {name}", "optimizer", researcher=self.name)


def parts() -> list[dict[str, Any]]:
    """Measure what is kept of three real improvements and two changes that do nothing, and in how many trials.

    In one row all five make one stack, whatever their first trials say; elsewhere only those that look better do.
    """
    rows = []
    for name, stacks, least in (
        ("all five in one stack", "on", 0.0),
        ("those that look better in a stack", "on", PROMISING),
        ("each by itself", "off", PROMISING),
    ):
        found = []
        for seed in PART_SEEDS:
            with (
                tempfile.TemporaryDirectory() as folder,
                mock.patch("autoresearch.core.run.stacks.PROMISING", least),
                suppress(LimitReachedError),
            ):
                decided: list[tuple[str, int]] = []

                def look(_count: int, run: Run, decided: list[tuple[str, int]] = decided) -> None:
                    best = run.ledger.experiment(run.incumbent_number())
                    trials = sum(len(run.ledger.trials(experiment=row.number)) for row in run.ledger.experiments())
                    decided.append((run.ledger.text(best.source_sha256), trials))

                simulate(
                    *(Path(folder) / "w", REAL + IDLE, 100, judge(stacks)),
                    seed=seed,
                    at_decision=look,
                    researcher=Given(),
                    idle=IDLE,
                )
            source, trials = decided[-1]
            moved = [kind for kind in ("KNOB", "IDLE") for _ in re.findall(rf"^{kind}_\d+ = {STEP}", source, re.M)]
            found.append((moved.count("KNOB"), moved.count("IDLE"), trials))
        real, idle, count = (statistics.mean(column) for column in zip(*found, strict=True))
        note = f"and {idle:.2f} of {IDLE} that do nothing, in {count:.1f} trials with the baseline's; {len(found)} runs"
        rows.append({"name": f"kept of {REAL} improvements, {name}", "median": real, "unit": "", "note": note})
    return rows


def long(experiments: int = LONG_EXPERIMENTS) -> list[dict[str, Any]]:
    """Measure memory, disk and time for each experiment, early and late in a long run."""
    looks: list[tuple[int, float, float, float]] = []

    def look(decided: int, run: Run) -> None:
        if decided % LOOK_EVERY:
            return
        disk = sum((run.folder / name).stat().st_size for name in ("ledger.sqlite", "journal.jsonl"))
        looks.append((decided, psutil.Process().memory_info().rss / 2**20, disk / 1024, time.monotonic()))

    with tempfile.TemporaryDirectory() as name:
        simulate(Path(name) / "w", LONG_DEVICES, experiments, judge("off"), at_decision=look)
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
        measured = {"busy": busy, "price": price, "parts": parts, "": run}[word]()
    for one in measured:
        print(f"{one['name']}: {one['median']:.2f} {one['unit']} ({one['note']})")
