"""How long the device waits for the researcher: real null trials, and a model that takes 80 % of a trial to answer.

`python -m benchmarks.idle [SECONDS]`. Idle is every moment without a trial between the start of the first and the end
of the last, so judging, the ledger and git count as well. Measured with the researcher asked between trials, as if it
were quick, and with it thinking ahead.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from autoresearch import backends
from autoresearch.core.config import RunConfig, load_presets
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.events import Observer
from autoresearch.core.fleet.local import LocalExecutor, LocalHandle
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import History, Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.trainfile.constants import read_constants, write_constants
from benchmarks.chaos import Arena

TRIAL_SECONDS = 6.0
EXPERIMENTS = 12
SHARE = 0.8
"""Of a trial's wall time, that the model takes."""
FACTORS = (0.53, 1.7, 0.71, 1.37, 0.83, 1.19, 0.29, 3.1)
"""No product of them is 1: a value that was tried would be refused, and thought about again."""
NAMES = ("LEARNING_RATE", "ADAGRAD_EPS", "WARMDOWN", "FINAL_LR", "INIT_SCALE", "UNIGRAM_RATE")


class Timed(LocalExecutor):
    """Notes when trials run."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[list[float]] = []

    def submit(self, request: Any, observer: Observer | None = None) -> LocalHandle:
        span = [time.monotonic()]
        self.spans.append(span)
        handle = super().submit(request, observer)
        handle.on_done(lambda: span.append(time.monotonic()))
        return handle


class Workspace(Arena):
    """The null train file as it is: a trial takes the time that it is given."""

    def _fix_steps(self) -> None:
        pass


class SlowModel(Researcher):
    """One constant at a time, after a long thought."""

    name = "slow"

    def __init__(self, executor: Timed, *, thinks_ahead: bool) -> None:
        self.executor, self.thinks_ahead, self.calls = executor, thinks_ahead, 0

    def propose(self, history: History) -> Proposal:
        done = [span[1] - span[0] for span in self.executor.spans if len(span) > 1]
        time.sleep(SHARE * min(done))
        name, factor = NAMES[self.calls % len(NAMES)], FACTORS[self.calls // len(NAMES) % len(FACTORS)]
        self.calls += 1
        source = history.incumbent.source
        value = round(float(read_constants(source)[name]) * factor, 6)
        return Proposal(write_constants(source, {name: value}), f"{name} {value}", "optimizer")


def null_config(prepared: Prepared, seconds: float, **more: Any) -> RunConfig:
    """A run of the null backend with trials of that many seconds."""
    common: dict[str, Any] = {
        "backend": "null",
        "preset": "demo",
        "corpus": "stdlib",
        "prepared": str(prepared.folder),
        "prepared_sha256": "",
        "vocabularies": prepared.vocabularies,
        "eval_seq_len": 256,
        "score_rows": 16,
        "train_seconds": seconds,
        "seed": 0,
        "device": "benchmark",
        "ar_version": "0",
    }
    return RunConfig(**{**common, **more})


def idle_share(
    folder: Path, *, thinks_ahead: bool, seconds: float, experiments: int
) -> tuple[float, float, float, int]:
    """(share of the time without a trial, seconds between two trials in the median and at most, trials)."""
    arena = Workspace(folder / f"ahead-{thinks_ahead}", folder, experiments)
    prepared = _prepared(arena, folder)
    preset = load_presets(Path(backends.__path__[0]) / "null" / "presets.toml")["demo"]
    config = null_config(prepared, seconds, startup_seconds=30.0, judge="racing", judge_options=JudgeOptions())
    executor = Timed()
    with Run(arena.workspace, "idle", config, preset) as run:
        researcher = SlowModel(executor, thinks_ahead=thinks_ahead)
        judge = Racing(JudgeOptions(preset="demo"))
        Loop(run, researcher, judge, executor, limits=Limits(experiments)).go()
    executor.close()
    gaps = [after[0] - before[1] for before, after in zip(executor.spans, executor.spans[1:], strict=False)]
    whole = executor.spans[-1][1] - executor.spans[0][1]
    return sum(gaps) / whole, statistics.median(gaps), max(gaps), len(executor.spans)


def _prepared(arena: Arena, folder: Path) -> Prepared:
    """The corpus, prepared once."""
    found = list((folder / "data").glob("**/manifest.json"))
    if not found:
        argv = [sys.executable, "-m", "autoresearch.core.cli.main", "--backend", "null", "--preset", "demo", "prepare"]
        environment = {**os.environ, "AR_DATA_DIR": str(folder / "data")}
        subprocess.run([*argv, "--corpus", str(arena.text)], check=True, env=environment, capture_output=True)
        found = list((folder / "data").glob("**/manifest.json"))
    return Prepared.open(found[0].parent)


def run(seconds: float = TRIAL_SECONDS, experiments: int = EXPERIMENTS) -> list[dict[str, Any]]:
    """name, median, unit, note of every measurement."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        for ahead, what in ((False, "asked between trials"), (True, "thinks ahead")):
            share, gap, longest, trials = idle_share(
                Path(name), thinks_ahead=ahead, seconds=seconds, experiments=experiments
            )
            between = f"{1000 * gap:.0f} ms between two, {1000 * longest:.0f} ms at most"
            note = f"{experiments} experiments, {trials} trials of {seconds:g} s; {between}"
            results.append({"name": f"idle device, {what}", "median": 100 * share, "unit": "%", "note": note})
    return results


if __name__ == "__main__":
    for row in run(*(float(word) for word in sys.argv[1:2])):
        print(f"{row['name']}: {row['median']:.2f} {row['unit']} ({row['note']})")
