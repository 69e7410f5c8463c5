"""A researcher that proposes one cheat after the other: the loop decides each of them, and goes on to honest work."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from arena import Arena, differences, layer_of, processes
from cheating import Cheat
from offspring import offspring

from autoresearch import backends
from autoresearch.core.config import RunConfig, load_presets
from autoresearch.core.errors import ProposalError
from autoresearch.core.events import Observer
from autoresearch.core.fleet.local import LocalExecutor, LocalHandle
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import History, Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.store.rows import TrialRow
from autoresearch.core.trial.request import Budget, TrialRequest, TrialResult

HONEST = "SEQ_LEN = 128\n"
"""What is proposed last, and is as good as any."""


@dataclass(frozen=True)
class Aftermath:
    """What a run of cheats came to."""

    layers: dict[str, str]
    """Cheat -> which layer ended its trial."""
    last: str
    """How the honest proposal after all of them was decided: "keep" or "discard"."""
    left: tuple[str, ...]
    """Processes that outlived the run, and files that it changed outside its own folders."""
    fault: str | None
    """What the ledger's chain says; None where it fits."""

    def words(self) -> str:
        """In one line."""
        by_layer = ", ".join(f"{layer} {count}" for layer, count in Counter(self.layers.values()).most_common())
        state = "the ledger fits" if self.fault is None else self.fault
        left = f"left {', '.join(self.left)}" if self.left else "nothing left"
        return f"{len(self.layers)} cheats decided ({by_layer}); then an honest one: {self.last}; {left}; {state}"


class Cheater(Researcher):
    """Proposes the cheats in order, then something honest."""

    name = "cheater"

    def __init__(self, arena: Arena, cheats: Sequence[Cheat]) -> None:
        self._sources = [(cheat.name, arena.cheated(cheat)) for cheat in cheats]
        self._sources.append(("honest", arena.dialect.source() + HONEST))

    def propose(self, history: History) -> Proposal:
        """The next one."""
        done = len(history.attempts) - 1
        if done >= len(self._sources):
            raise ProposalError("there is no cheat left.")
        name, source = self._sources[done]
        return Proposal(source, name, "loss", researcher=self.name)


class WithoutGate(LocalExecutor):
    """Runs trials with the static gate off, so that the other layers stand alone."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._changes = {"gate": False, "budget": budget, "weights_limit_mb": 64, "audit_share": 2.0}

    def submit(self, request: TrialRequest, observer: Observer | None = None) -> LocalHandle:
        """As the loop asks, but for the gate and the limits."""
        return super().submit(replace(request, **self._changes), observer)  # type: ignore[arg-type]


def run_of(arena: Arena, cheats: Sequence[Cheat], budget: Budget | None = None) -> Aftermath:
    """One run on the null backend, in a workspace of its own."""
    workspace = arena.folder / "workspace"
    _make_workspace(workspace, arena.dialect.source())
    before, known = arena.snapshot(), offspring()
    preset = load_presets(Path(next(iter(backends.__path__))) / "null" / "presets.toml")["demo"]
    config = RunConfig(
        backend="null",
        preset="demo",
        corpus="small",
        prepared=str(arena.prepared.folder),
        prepared_sha256="0" * 64,
        vocabularies=(512,),
        eval_seq_len=256,
        score_rows=16,
        train_seconds=arena.dialect.budget.train_seconds,
        startup_seconds=arena.dialect.budget.startup_seconds,
        seed=0,
        judge="greedy",
        device="any",
        ar_version="0",
    )
    executor = WithoutGate(budget or arena.dialect.budget)
    try:
        with Run(workspace, "cheats", config, preset) as run:
            Loop(run, Cheater(arena, cheats), Greedy(), executor, limits=Limits(len(cheats) + 1)).go()
            rows = [row for row in run.ledger.experiments() if row.number]
            layers = {row.hypothesis: _layer(run.ledger.trials(experiment=row.number)) for row in rows[:-1]}
            fault = run.ledger.verify().fault
    finally:
        executor.close()
    left = (*differences(before, arena.snapshot()), *processes(known))
    shutil.rmtree(workspace)
    return Aftermath(layers, str(rows[-1].status), left, fault)


def _layer(trials: Sequence[TrialRow]) -> str:
    return layer_of(TrialResult.model_validate(trials[0].result))


def _make_workspace(folder: Path, source: str) -> None:
    """A committed workspace with the null train file."""
    path = folder / "backends" / "null" / "train.py"
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    (folder / "program.md").write_text("lower\n", encoding="utf-8")
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "start"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
