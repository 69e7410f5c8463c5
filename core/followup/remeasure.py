"""Sources of a finished run, measured again: trials that belong to no experiment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from autoresearch.core.errors import ArError
from autoresearch.core.fleet.executor import Observer
from autoresearch.core.run.evidence import ran_on
from autoresearch.core.run.rerun_policy import asleep_seconds, speeds, spoiled
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.trial.request import TrialRequest, TrialResult, TrialTerms
from autoresearch.core.trial.supervisor import run_trial


@dataclass(frozen=True)
class Bench:
    """Where and how sources are measured. `config` is the run's, as its ledger holds it."""

    config: Mapping[str, Any]
    folder: Path
    split: Literal["val", "test"]
    observer: Observer | None = None
    cancel: threading.Event | None = None
    usual: dict[str, list[float]] = field(default_factory=dict)
    """Tokens/s of each source's trials so far; the first source is the one that new ones are held against."""
    say: Callable[[str], None] = lambda _: None
    """Hears why a trial is run once more."""

    def measure(self, name: str, source: str, seed: int) -> float:
        """val_bpb, or test_bpb, of one trial. Raises `ArError` when the trial is not ok."""
        folder = self.folder / name
        request = replace(TrialTerms.of_config(self.config).request(source, folder, seed), split=self.split)
        result = self._steady(name, request)
        for weights in folder.glob("*.safetensors"):
            weights.unlink(missing_ok=True)
        if result.status != "ok" or result.val_bpb is None:
            why = result.reason or "it gave no number"
            raise ArError(f"the trial {name} ended as {result.status}: {why}.", fix=f"look at {folder / 'run.log'}")
        return result.val_bpb

    def _steady(self, name: str, request: TrialRequest) -> TrialResult:
        """Its result, of a second trial where the first one says more about the machine than about the file."""
        asleep = asleep_seconds()
        result = run_trial(request, observer=self.observer, cancel=self.cancel)
        same, first = self.usual.get(request.source, []), next(iter(self.usual.values()), [])
        why = spoiled(result, slept=asleep_seconds() - asleep, same=same, incumbent=first, repeated=False)
        if result.status == "timeout":  # these files ran in time before
            why = "it took too long: the machine was busy"
        if why is not None:
            self.say(f"{name} is run once more: {why}")
            result = run_trial(request, observer=self.observer, cancel=self.cancel)
        if result.tokens_per_second:
            self.usual.setdefault(request.source, []).append(result.tokens_per_second)
        return result


def usual_speeds(ledger: LedgerReader, number: int) -> list[float]:
    """Tokens/s of that experiment's source in the run, on the machine of its last trial."""
    trials = [trial for trial in ledger.trials(subject=number) if trial.status == "ok"]
    machine = str(trials[-1].result.get("machine") or "") if trials else ""
    return speeds(trial for trial in trials if ran_on(trial, machine))
