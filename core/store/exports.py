"""The files of a run that are written from its ledger, and the disk that is given back. None of them is the truth."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.store.tsv import results_tsv, write_text

RESULTS, BEST_TRAIN = "results.tsv", "best_train.py"


def export_results(ledger: LedgerReader) -> None:
    """Write results.tsv: every decided experiment, in the order of the decisions."""
    decided = (ledger.experiment(number) for number in ledger.decisions())
    write_text(ledger.folder / RESULTS, results_tsv(decided))


def append_results(ledger: LedgerReader, rows: Sequence[ExperimentRow]) -> None:
    """Add these to results.tsv, which holds every experiment that was decided before them."""
    with (ledger.folder / RESULTS).open("a", encoding="utf-8", newline="\n") as file:
        file.write(results_tsv(rows, header=False))


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
    keep = {ledger.run().incumbent, *(row.number for row in ledger.undecided())}
    pattern = "*-*" if experiment is None else f"{experiment}-*"
    for folder in (ledger.folder / "trials").glob(pattern):
        number = folder.name.partition("-")[0]
        if number.isdigit() and int(number) not in keep:
            for weights in folder.glob("*.safetensors"):
                # Disk that cannot be given back is no reason to end a run.
                with contextlib.suppress(OSError):
                    weights.unlink()
