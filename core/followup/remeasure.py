"""Train and score sources of a finished run again, in trials that belong to no experiment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from autoresearch.core.errors import ArError
from autoresearch.core.events import Observer
from autoresearch.core.run.evidence import ran_on
from autoresearch.core.run.rerun_policy import asleep_seconds, speeds, spoiled
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.trial.request import TrialRequest, TrialResult, TrialTerms
from autoresearch.core.trial.supervisor import run_trial

SEEDS_PER_CALL = 1000
"""Seeds set aside for each call of a command, so that no two calls train with the same seed."""


@dataclass(frozen=True)
class Remeasurer:
    """Runs trials with the settings of a finished run, one at a time on this machine."""

    config: Mapping[str, Any]
    """The run's settings, as its ledger records them."""
    folder: Path
    """The folder that gets a subfolder for every trial, with its log and events."""
    split: Literal["val", "test"]
    """The text that is scored."""
    first_seed: int
    """Seed of each source's first trial; the next ones count up."""
    observer: Observer | None = None
    cancel: threading.Event | None = None
    usual: dict[str, list[float]] = field(default_factory=dict)
    """Tokens per second of each source's trials so far. A new source is compared with the first one in here."""
    say: Callable[[str], None] = lambda _: None
    """Is told why a trial is run once more."""

    def measure_in_turn(self, sources: Mapping[str, str], seeds: int) -> dict[str, list[float]]:
        """Train each source (by the name of its trials) with the same `seeds` seeds. Returns bits per byte by seed.

        Raises `ArError` when a trial does not end well. The sources take turns, so that a machine that slows down
        slows all of them.
        """
        values: dict[str, list[float]] = {name: [] for name in sources}
        for k in range(seeds):
            for name, source in sources.items():
                values[name].append(self.measure(f"{name}-{k + 1}", source, self.first_seed + k))
        return values

    def measure(self, name: str, source: str, seed: int) -> float:
        """Run one trial and return its bits per byte on `split`. Raises `ArError` when it does not end well."""
        folder = self.folder / name
        request = replace(TrialTerms.of_config(self.config).request(source, folder, seed), split=self.split)
        result = self._steady_result(name, request)
        for weights in folder.glob("*.safetensors"):
            weights.unlink(missing_ok=True)
        if result.status != "ok" or result.val_bpb is None:
            why = result.reason or "it gave no number"
            raise ArError(f"the trial {name} ended as {result.status}: {why}.", fix=f"look at {folder / 'run.log'}")
        return result.val_bpb

    def _steady_result(self, name: str, request: TrialRequest) -> TrialResult:
        """Run a trial, and once more when the first one says more about the machine than about the file."""
        asleep = asleep_seconds()
        result = run_trial(request, observer=self.observer, cancel=self.cancel)
        same, first = self.usual.get(request.source, []), next(iter(self.usual.values()), [])
        why = spoiled(result, slept=asleep_seconds() - asleep, same=same, incumbent=first, repeated=False)
        if result.status == "timeout":  # every file here has ended in time before, or nearly equals one that has
            why = "it took too long: the machine was busy"
        if why is not None:
            self.say(f"{name} is run once more: {why}")
            result = run_trial(request, observer=self.observer, cancel=self.cancel)
        if result.tokens_per_second:
            self.usual.setdefault(request.source, []).append(result.tokens_per_second)
        return result


def first_seed(config: Mapping[str, Any], offset: int, call: int) -> int:
    """Return the first seed of a command's `call`th call (from 1). `offset` is the command's own, beyond any loop's."""
    return int(config["seed"]) + offset + SEEDS_PER_CALL * call


def usual_speeds(ledger: LedgerReader, experiments: Iterable[int]) -> dict[str, list[float]]:
    """Map the source of each experiment to its tokens per second in the run, on the machine of its last trial."""
    usual: dict[str, list[float]] = {}
    for number in experiments:
        trials = [trial for trial in ledger.trials(subject=number) if trial.status == "ok"]
        machine = str(trials[-1].result.get("machine") or "") if trials else ""
        source = ledger.text(ledger.experiment(number).source_sha256)
        usual[source] = speeds(trial for trial in trials if ran_on(trial, machine))
    return usual
