"""Sources of a finished run, measured again: trials that belong to no experiment."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autoresearch.core.errors import ArError
from autoresearch.core.fleet.executor import Observer
from autoresearch.core.trial.result import Budget, TrialRequest
from autoresearch.core.trial.supervisor import run_trial


@dataclass(frozen=True)
class Bench:
    """Where and how sources are measured. `config` is the run's, as its ledger holds it."""

    config: Mapping[str, Any]
    folder: Path
    split: Literal["val", "test"]
    observer: Observer | None = None
    cancel: threading.Event | None = None

    def measure(self, name: str, source: str, seed: int) -> float:
        """val_bpb, or test_bpb, of one trial. Raises `ArError` when the trial is not ok."""
        folder = self.folder / name
        config = self.config
        request = TrialRequest(
            source=source,
            backend=config["backend"],
            preset=config["preset"],
            prepared=Path(config["prepared"]),
            eval_seq_len=config["eval_seq_len"],
            score_rows=config["score_rows"],
            folder=folder,
            seed=seed,
            budget=Budget(config["train_seconds"], config["startup_seconds"]),
            split=self.split,
        )
        result = run_trial(request, observer=self.observer, cancel=self.cancel)
        if result.status == "timeout":  # these files ran in time before: the machine was busy
            result = run_trial(request, observer=self.observer, cancel=self.cancel)
        for weights in folder.glob("*.safetensors"):
            weights.unlink(missing_ok=True)
        if result.status != "ok" or result.val_bpb is None:
            why = result.reason or "it gave no number"
            raise ArError(f"the trial {name} ended as {result.status}: {why}.", fix=f"look at {folder / 'run.log'}")
        return result.val_bpb
