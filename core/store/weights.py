"""The weights that a run keeps: those of the baseline and of the best file, each of one trial.

They lie in the trial's folder; the ledger's result of the trial holds their SHA-256. Where a run has none, because an
earlier version or a fleet ran it, `ar sample --train` and `ar export --train` train once more, into `weights/`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.textfile import read_text
from autoresearch.core.trial.context import WEIGHTS
from autoresearch.core.trial.request import TrialResult


@dataclass(frozen=True)
class KeptWeights:
    """A weights file, and the trial that it comes from."""

    experiment: int
    path: Path
    sha256: str
    seed: int
    val_bpb: float | None
    """Bits per byte that these very weights were measured at."""
    again: bool
    """True where they were trained once more, after the run."""


def drop_spare_weights(ledger: LedgerReader, experiment: int | None = None) -> None:
    """Delete the weights of one experiment's trials, or of all.

    Those of the baseline, of the incumbent and of undecided experiments stay.
    """
    keep = {0, ledger.run().incumbent, *(row.number for row in ledger.undecided())}
    pattern = "*-*" if experiment is None else f"{experiment}-*"
    for folder in (ledger.folder / "trials").glob(pattern):
        number = folder.name.partition("-")[0]
        if number.isdigit() and int(number) not in keep:
            for weights in folder.glob("*.safetensors"):
                # A file that cannot be deleted is no reason to end a run.
                with contextlib.suppress(OSError):
                    weights.unlink()


def retrained_folder(run_folder: Path, experiment: int) -> Path:
    """Return the folder of a trial that was run again for its weights alone."""
    return run_folder / "weights" / str(experiment)


def find_weights(reader: LedgerReader, experiment: int) -> KeptWeights | None:
    """Find an experiment's weights: of its own trials first, then of one that was trained again."""
    return next(_kept(reader, experiment), None)


def _kept(reader: LedgerReader, experiment: int) -> Iterator[KeptWeights]:
    row = reader.experiment(experiment)
    for trial in reader.trials(experiment=experiment):
        path, sha256 = trial_folder(reader.folder, experiment, trial.k) / WEIGHTS, trial.result.get("weights_sha256")
        mine = trial.subject == experiment and trial.status == "ok" and trial.started >= row.created
        if mine and isinstance(sha256, str) and path.is_file():
            yield KeptWeights(experiment, path, sha256, trial.seed, trial.val_bpb, False)
    folder = retrained_folder(reader.folder, experiment)
    try:
        result = TrialResult.model_validate_json(read_text(folder / "result.json"))
        same = read_text(folder / "train.py") == reader.text(row.source_sha256)
    except (OSError, ValueError):
        return
    if same and result.weights_sha256 and result.status == "ok" and (folder / WEIGHTS).is_file():
        yield KeptWeights(experiment, folder / WEIGHTS, result.weights_sha256, result.seed, result.val_bpb, True)
