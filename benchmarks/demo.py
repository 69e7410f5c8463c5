"""What the demo finds: the real loop, judge and tuner on the `demo` preset's plain file, seed by seed, on one core.

    python -m benchmarks.demo FOLDER --real
    python -m benchmarks.demo FOLDER --seed 1 --experiments 6

`--real` carries out one demo as `make demo` does, with sandbox, audit, early stops and the wall's clock: the first of
SEEDS that has no line yet, in a folder of its own. The machine must be quiet. The same command makes the next one, and
begins a demo anew that was interrupted; with all of them made, it says what they found.

Without it, everything is as in `ar --preset demo loop`, but for the trials: each is a forked process that trains on the
real feed's rows and scores the validation text by a clock that counts the processor's time, without sandbox, audit and
early end. By the wall's clock a trial on a machine that others use too would be a fraction of one. The run lies in
FOLDER and is taken up where it stopped, so that it may be run in pieces (`--hours`). Each run adds a line to
`demo.jsonl`, from which `python -m benchmarks --only demo` makes its rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from autoresearch.core.cli.run.options import RunOverrides
from autoresearch.core.events import Decided, Event
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.store.reader import LedgerReader
from benchmarks._one_core import OneCoreExecutor
from benchmarks._real_run import settings_of_run

RESULTS = Path(__file__).with_suffix(".jsonl")
TAG = "demo"
SEEDS = range(10)
HOURS = 0.07
"""Of a real demo, as in the Makefile."""


def carry_out(folder: Path, seed: int, experiments: int, *, budget: float | None, hours: float | None) -> None:
    """Start the run in `folder`, or resume it."""
    overrides = RunOverrides(seed=seed, budget=budget, stop_early="off")
    config, preset = settings_of_run(folder, "cuda", "demo", overrides)
    executor = OneCoreExecutor()

    def observe(event: Event) -> None:
        if isinstance(event, Decided):
            print(f"{event.experiment}\t{event.status}\t{event.reason}", file=sys.stderr, flush=True)

    from autoresearch.agent.tuner.researcher import Tuner

    try:
        with Run(folder, TAG, config, preset) as run:
            judge = Racing(JudgeOptions(preset.name, stop_early="off"))
            limits = Limits(experiments=experiments, hours=hours)
            ending = Loop(run, Tuner(), judge, executor, limits=limits, observer=observe).go()
    finally:
        executor.close()
    print(ending.reason, file=sys.stderr)


def carry_out_real(folder: Path) -> None:
    """Make the next demo, and add its line; say how many are made and how many kept something."""
    made = {row["seed"] for row in stored() if row.get("real")}
    seed = next((one for one in SEEDS if one not in made), None)
    if seed is not None:
        workspace = folder / f"seed-{seed}"
        if workspace.exists():
            shutil.rmtree(workspace)
        program = [sys.executable, "-m", "autoresearch.core.cli.main"]
        subprocess.run([*program, "init", str(workspace)], check=True, stdout=sys.stderr)
        begun = time.monotonic()
        loop = ["loop", "--tag", TAG, "--hours", str(HOURS), "--seed", str(seed)]
        subprocess.run([*program, "--preset", "demo", "--workspace", str(workspace), *loop], check=True)
        found = {**summary(workspace, seed), "real": True, "seconds": round(time.monotonic() - begun)}
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    rows = [row for row in stored() if row.get("real")]
    kept = sum(bool(row["kept"]) for row in rows)
    print(f"{len(rows)} of {len(SEEDS)} demos made, {kept} of them kept something", file=sys.stderr)


def summary(folder: Path, seed: int) -> dict[str, Any]:
    """Summarise a run: its experiments in order, with the mean of the trials of the file before and after."""
    with LedgerReader(folder / "runs" / TAG) as reader:
        rows = [row for row in reader.experiments() if row.state == "decided"]
        scores = {row.number: [t.val_bpb for t in reader.trials(subject=row.number) if t.val_bpb] for row in rows}
    kept = [row.number for row in rows[1:] if row.status == "keep"]
    first, last = statistics.fmean(scores[0]), statistics.fmean(scores[kept[-1]] if kept else scores[0])
    return {
        "seed": seed,
        "experiments": len(rows) - 1,
        "trials": sum(map(len, scores.values())),
        "kept": kept,
        "start": round(first, 4),
        "best": round(last, 4),
        "lower": round(1 - last / first, 4),
        "changes": [
            [row.number, row.status, _changed(row.parameters), None if row.val_bpb is None else round(row.val_bpb, 4)]
            for row in rows[1:]
        ],
    }


def _changed(parameters: Any) -> str:
    known = {name: parameters[name] for name in ("edit", "lever", "combines") if name in parameters}
    return ", ".join(map(str, known.values())) or ", ".join(f"{name}={value}" for name, value in parameters.items())


def stored() -> list[dict[str, Any]]:
    """Read the last line of each seed and number of experiments."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    rows = [json.loads(line) for line in lines]
    return list({(row["seed"], "real" if row.get("real") else row["experiments"]): row for row in rows}.values())


def run() -> list[dict[str, Any]]:
    """Report from the stored runs how many seeds kept something, and by how much the score fell."""
    found = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(stored(), key=lambda one: (not one.get("real"), one["experiments"])):
        name = f"demo of {HOURS:g} hours" if row.get("real") else f"demo, {row['experiments']} experiments"
        groups.setdefault(name, []).append(row)
    for title, rows in groups.items():
        kept, lower = [len(row["kept"]) for row in rows], [100 * row["lower"] for row in rows]
        note = f"{len(rows)} seeds, {min(kept)} to {max(kept)} kept"
        for least in (1, 2):
            share = sum(one >= least for one in kept)
            found.append(
                {"name": f"{title}: seeds that keep {least} or more", "median": share, "unit": "", "note": note}
            )
        spread = f"{min(lower):.0f} to {max(lower):.0f} %"
        found.append(
            {"name": f"{title}: val_bpb lower by", "median": statistics.median(lower), "unit": "%", "note": spread}
        )
    return found


def main() -> None:
    """Run one seed in a folder of the caller's, and add its line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", action="store_true", help="the next real demo of ten")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experiments", type=int, default=6)
    parser.add_argument("--budget", type=float, help="processor seconds of training; the preset's by default")
    parser.add_argument("--hours", type=float, help="stop after this long; the same command goes on")
    chosen = parser.parse_args()
    if chosen.real:
        carry_out_real(chosen.folder)
        return
    carry_out(chosen.folder, chosen.seed, chosen.experiments, budget=chosen.budget, hours=chosen.hours)
    found = summary(chosen.folder, chosen.seed)
    print(json.dumps(found))
    if found["experiments"] == chosen.experiments:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
