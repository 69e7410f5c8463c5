"""A small run with real trials of the null backend, in a workspace of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from loop_fixtures import CONFIG, PRESET, git
from null_trials import NULL_SOURCE

from autoresearch.core.data.manifest import Prepared, data_sha256
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Cost, History, Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run

TRAIN_SECONDS = 0.5


class Rates(Researcher):
    """Proposes the learning rates of a list, one per experiment."""

    name = "rates"

    def __init__(self, *rates: float) -> None:
        self.rates = rates

    def propose(self, history: History) -> Proposal:
        rate = self.rates[len(history.attempts) - 1]
        source = re.sub(r"LEARNING_RATE = [\d.]+", f"LEARNING_RATE = {rate}", history.incumbent.source)
        return Proposal(source, f"rate {rate} <b>&", "optimizer", -0.01, Cost(), self.name)


def make_run(folder: Path, prepared: Prepared, rates: tuple[float, ...], tag: str = "t") -> Path:
    """Make a workspace with a finished run: a poor baseline, and an experiment for each rate."""
    source = re.sub(r"VOCAB_SIZE = \d+", "VOCAB_SIZE = 512", NULL_SOURCE)
    source = re.sub(r"LEARNING_RATE = [\d.]+", "LEARNING_RATE = 0.001", source)
    (folder / "backends/null").mkdir(parents=True)
    (folder / "backends/null/train.py").write_text(source)
    (folder / "program.md").write_text("make it lower\n")
    (folder / ".gitignore").write_text("runs/\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "start")
    text = {"prepared": str(prepared.folder), "prepared_sha256": data_sha256(prepared, (512,), 256)}
    text |= {"vocabularies": (512,), "corpus": str(folder / "texts")}
    sizes = {"eval_seq_len": 256, "score_rows": 16, "train_seconds": TRAIN_SECONDS, "startup_seconds": 60.0}
    config = replace(CONFIG, **text, **sizes, device="x86_64")
    preset = PRESET.model_copy(update={"constants": {}})
    executor = LocalExecutor()
    try:
        with Run(folder, tag, config, preset) as run:
            Loop(run, Rates(*rates), Greedy(), executor, limits=Limits(len(rates))).go()
    finally:
        executor.close()
    return folder
