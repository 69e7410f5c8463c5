"""The files of a run that are written from its ledger, and the disk that is given back. None of them is the truth."""

from __future__ import annotations

import contextlib
from pathlib import Path

from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.tsv import results_tsv, write_text

RESULTS, BEST_TRAIN = "results.tsv", "best_train.py"


def export_results(ledger: LedgerReader) -> None:
    """Write results.tsv: every decided experiment."""
    write_text(ledger.folder / RESULTS, results_tsv(row for row in ledger.experiments() if row.state == "decided"))


def export_best(ledger: LedgerReader) -> None:
    """Write best_train.py: the incumbent's source."""
    best = ledger.incumbent()
    if best is not None:
        write_text(ledger.folder / BEST_TRAIN, ledger.text(best.source_sha256))


def trial_folder(run_folder: Path, experiment: int, k: int) -> Path:
    """Where a trial keeps its log, events, result and weights."""
    return run_folder / "trials" / f"{experiment}-{k}"


def drop_weights(ledger: LedgerReader, experiment: int | None = None) -> None:
    """Delete the weights of one experiment's trials, or of all; the incumbent's and those in flight stay."""
    best, in_flight = ledger.run().incumbent, ledger.in_flight()
    keep = {best, in_flight.number if in_flight else None}
    pattern = "*-*" if experiment is None else f"{experiment}-*"
    for folder in (ledger.folder / "trials").glob(pattern):
        number = folder.name.partition("-")[0]
        if number.isdigit() and int(number) not in keep:
            for weights in folder.glob("*.safetensors"):
                # Disk that cannot be given back is no reason to end a run.
                with contextlib.suppress(OSError):
                    weights.unlink()
