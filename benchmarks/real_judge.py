"""The judge on real trials of the cuda backend's demo preset: edits that change nothing, and edits that change much.

`python -m benchmarks.real_judge aa FOLDER` runs 30 edits that add one unused name to the train file (an edit of
comments alone is the same program to the loop, and is never trained). `ab` runs five edits whose effect is plain at
this size. Both go through the loop itself, with a scripted researcher. The run lives in FOLDER and is taken up where it
stopped, so that it may be run in pieces (`--hours`). The keeps of greedy are read off the same first trials.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from autoresearch.core.cli.context import Settings, resolve_backend, resolve_preset
from autoresearch.core.cli.main import run as ar
from autoresearch.core.cli.run.options import RunOverrides
from autoresearch.core.cli.run.resolve import configure
from autoresearch.core.errors import ProposalError
from autoresearch.core.events import Decided, Event
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import History, Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.trial.device import probe_device
from benchmarks.judge import SimulatedRun, no_effect

BUDGET_SECONDS = 8.0
EDITS = 30
CALIBRATE = 2


@dataclass(frozen=True)
class Edit:
    """A change of constants, and its expected result."""

    name: str
    constants: dict[str, object]
    expected: str


def numbered(n: int) -> Edit:
    """Return an edit that changes nothing."""
    return Edit(f"unused name {n}", {"UNUSED": n}, "nothing")


AA = tuple(numbered(n) for n in range(1, EDITS + 1))
AB = (
    Edit("matrix learning rate x 0.1", {"MUON_LR": 0.002}, "worse"),
    Edit("one layer instead of two", {"DEPTH": 1}, "better"),
    Edit("embedding learning rate x 0.1", {"EMBED_LR": 0.03, "VALUE_EMBED_LR": 0.03}, "worse"),
    Edit("half the tokens a step", {"BATCH_TOKENS": 1024, "DEVICE_BATCH_ROWS": 4}, "better"),
    Edit("four times the tokens a step", {"BATCH_TOKENS": 8192}, "worse"),
)
SCRIPTS = {"aa": AA, "ab": AB}


class Scripted(Researcher):
    """Proposes the edits of a list, one an experiment, each on top of the incumbent."""

    name = "scripted"

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.edits = edits

    def propose(self, history: History) -> Proposal:
        """Propose the next edit of the list."""
        done = len(history.attempts) - 1
        if done >= len(self.edits):
            raise ProposalError("every edit of the list is tried.")
        edit = self.edits[done]
        source = history.incumbent.source
        for name, value in edit.constants.items():
            source = _assign(source, name, value)
        return Proposal(source, edit.name, "shape")


def _assign(source: str, name: str, value: object) -> str:
    """Set a module-level name, or add it at the end."""
    changed, count = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value!r}  ", source, count=1, flags=re.MULTILINE)
    return changed if count else f"{source}\n{name} = {value!r}\n"


def carry_out(script: str, folder: Path, *, budget: float, hours: float | None, say: Callable[[str], None]) -> None:
    """Start the run in `folder`, or resume it."""
    if not folder.exists():
        with contextlib.redirect_stdout(sys.stderr):
            if ar(["init", str(folder)]) != 0:
                raise RuntimeError(f"{folder} could not be made a workspace")
    edits = SCRIPTS[script]
    settings = Settings(backend="cuda", preset="demo", workspace=folder, json=False, verbosity=-1)
    backend = resolve_backend(settings)
    preset = resolve_preset(settings, backend)
    device = probe_device(backend.name)
    overrides = RunOverrides(judge="racing", calibrate=CALIBRATE, budget=budget)
    config, _ = configure(settings, backend.name, preset, device, overrides, None)
    executor = LocalExecutor()

    def observe(event: Event) -> None:
        if isinstance(event, Decided):
            say(f"{event.experiment}\t{event.status}\t{event.reason}")

    try:
        with Run(folder, script, config, preset) as run:
            judge = Racing(JudgeOptions(preset.name, CALIBRATE, "off"))
            limits = Limits(experiments=len(edits), hours=hours)
            ending = Loop(run, Scripted(edits), judge, executor, limits=limits, observer=observe).go()
    finally:
        executor.close()
    say(ending.reason)


def greedy_keeps(rows: Sequence[ExperimentRow]) -> list[int]:
    """Return the experiments that greedy keeps by the same first trials: every new lowest number.

    This holds for edits that do nothing, whatever was kept meanwhile.
    """
    best, kept = rows[0].val_bpb, []
    for row in rows[1:]:
        if row.val_bpb is not None and best is not None and row.val_bpb < best:
            best = row.val_bpb
            kept.append(row.number)
    return kept


def reorder(scores: Sequence[float], runs: int = 2000) -> dict[str, float]:
    """Return mean keeps and claims of both judges over other orders of the same trials, all of one program."""
    rng, greedy, claimed = random.Random(0), [], []
    for _ in range(runs):
        first, *others = rng.choices(scores, k=EDITS + 1)
        lows = list(accumulate([first, *others], min))
        greedy.append(sum(low < before for before, low in pairwise(lows)))
        claimed.append(first - lows[-1])
    judge = Racing(JudgeOptions("demo", CALIBRATE, "off"))

    def draw(source: random.Random, _true: float) -> float:
        return source.choice(scores)

    ours = [SimulatedRun(seed, no_effect, 0.0, judge, measure=draw).go(EDITS) for seed in range(runs)]
    return {
        "racing_keeps": statistics.fmean(one.keeps for one in ours),
        "racing_claims": statistics.fmean(one.claimed for one in ours),
        "greedy_keeps": statistics.fmean(greedy),
        "greedy_claims": statistics.fmean(claimed),
    }


def summary(script: str, folder: Path) -> dict[str, Any]:
    """Summarise the run, edit by edit."""
    with LedgerReader(folder / "runs" / script) as reader:
        rows = [row for row in reader.experiments() if row.state == "decided"]
        trials = [trial for row in rows for trial in reader.trials(experiment=row.number)]
    edits = SCRIPTS[script]
    return {
        "experiments": len(rows) - 1,
        "trials": sum(row.trials for row in rows),
        "kept": [row.number for row in rows[1:] if row.status == "keep"],
        "greedy_kept": greedy_keeps(rows),
        "claims": (min(row.estimate or 9.0 for row in rows if row.status == "keep")) - (rows[0].estimate or 0.0),
        "noise": rows[-1].judged.get("sigma"),
        "in_any_order": reorder([trial.val_bpb for trial in trials if trial.val_bpb]) if script == "aa" else None,
        "edits": [
            {
                "experiment": row.number,
                "edit": edits[row.number - 1].name,
                "expected": edits[row.number - 1].expected,
                "status": row.status,
                "trials": row.trials,
                "first": row.val_bpb,
                "reason": row.reason,
            }
            for row in rows[1:]
        ],
    }


def run() -> list[dict[str, Any]]:
    """Return name, median, unit and note of every measurement. Takes about twenty minutes the first time."""
    results = []
    for script in SCRIPTS:
        folder = Path(__file__).parents[1] / "runs" / "real_judge" / script
        folder.parent.mkdir(parents=True, exist_ok=True)
        carry_out(script, folder, budget=BUDGET_SECONDS, hours=None, say=lambda _: None)
        found = summary(script, folder)
        note = f"{found['experiments']} edits, {found['trials']} trials, noise {found['noise']:.4f} bpb"
        results.append({"name": f"{script}: keeps", "median": len(found["kept"]), "unit": "", "note": note})
        results.append({"name": f"{script}: greedy keeps", "median": len(found["greedy_kept"]), "unit": "", "note": ""})
    return results


def main() -> None:
    """Run one script in a folder of the caller's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_judge", description=__doc__)
    parser.add_argument("script", choices=list(SCRIPTS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="seconds of training")
    parser.add_argument("--hours", type=float, help="stop after this long; the same command goes on")
    chosen = parser.parse_args()
    carry_out(
        chosen.script,
        chosen.folder,
        budget=chosen.budget,
        hours=chosen.hours,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(json.dumps(summary(chosen.script, chosen.folder), indent=1))


if __name__ == "__main__":
    main()
