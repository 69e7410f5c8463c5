"""Written from the ledger, never read back: results.tsv, best_train.py, and the objects that `--json` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.core.files import write_text
from autoresearch.core.printable import printable_line
from autoresearch.core.store import columns
from autoresearch.core.store.columns import COLUMNS
from autoresearch.core.store.git import branch_name
from autoresearch.core.store.headline import NO_HEADLINE, headline_of
from autoresearch.core.store.liveness import shown_state
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.remarks import NO_MARKS, Marks, marks_of
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.store.transfers import counts, transfers_of

FORMULA_SIGNS = ("=", "+", "-", "@")
"""Characters with which a cell of a spreadsheet begins that is worked out."""
RESULTS, BEST_TRAIN = "results.tsv", "best_train.py"
_TSV_FORMATS: dict[str, Callable[[Any], str]] = {
    # A missing number is `nan`: it reads as a float, and compares as no result.
    "val_bpb": lambda value: "nan" if value is None else f"{value:.6f}",
    "memory_gb": lambda value: "nan" if value is None else f"{value:.1f}",
    "commit": lambda value: (value or "")[:7],
}


def results_tsv(rows: Iterable[ExperimentRow], *, header: bool = True) -> str:
    """Write the experiments as the text of results.tsv (see `columns.TSV`)."""
    lines = ["\t".join(columns.TSV)] if header else []
    for row in rows:
        lines.append("\t".join(_TSV_FORMATS.get(name, _field)(COLUMNS[name].read(row)) for name in columns.TSV))
    return "".join(f"{line}\n" for line in lines)


def _field(text: str) -> str:
    """Put a text on one line, without characters that would steer a terminal.

    A quote at its start would open a quoted field for most readers, pandas among them, and a sign of a formula would be
    worked out by a spreadsheet: an apostrophe before it makes it text.
    """
    words = printable_line(text)
    words = f"'{words}" if words.startswith(FORMULA_SIGNS) else words
    return '"' + words.replace('"', '""') + '"' if words.startswith('"') else words


def export_results(ledger: LedgerReader) -> None:
    """Write results.tsv: every decided experiment, in the order of the decisions."""
    decided = (ledger.experiment(number) for number in ledger.decisions())
    write_text(ledger.folder / RESULTS, results_tsv(decided))


def append_results(ledger: LedgerReader, rows: Sequence[ExperimentRow]) -> None:
    """Add rows to results.tsv, which holds every experiment that was decided before them."""
    with (ledger.folder / RESULTS).open("a", encoding="utf-8", newline="\n") as file:
        file.write(results_tsv(rows, header=False))


def export_best(ledger: LedgerReader) -> None:
    """Write best_train.py: the incumbent's source."""
    best = ledger.incumbent()
    if best is not None:
        write_text(ledger.folder / BEST_TRAIN, ledger.text(best.source_sha256))


def trial_folder(run_folder: Path, experiment: int, k: int) -> Path:
    """Return the folder of a trial's log, events, result and weights."""
    return run_folder / "trials" / f"{experiment}-{k}"


def decided_record(row: ExperimentRow, marks: Mapping[int, Marks] | None = None) -> dict[str, Any]:
    """Return one decided experiment as JSON shows it (see `columns.JSON`). A missing value is None, never 0.

    With the run's `marks`, the owner's notes and pin are in it, too.
    """
    record = {name: COLUMNS[name].read(row) for name in columns.JSON}
    return record if marks is None else {**record, **marks.get(row.number, NO_MARKS).record()}


def summarise(reader: LedgerReader) -> dict[str, Any]:
    """Summarise the run. `experiments` leaves the baseline out; results are in bits per byte.

    `best_bpb` is the measured mean of the best file (see `headline`), `best_estimate` the judge's cautious estimate.
    """
    run, totals, best, headline = reader.run(), reader.totals(), reader.incumbent(), headline_of(reader)
    marked = marks_of(reader)
    return {
        "tag": run.tag,
        "state": shown_state(run),
        "ended": run.ended,
        "backend": run.config["backend"],
        "preset": run.config["preset"],
        "device": run.config["device"],
        "experiments": totals.decided,
        "by_status": dict(totals.by_status),
        "failed_proposals": totals.failed_proposals,
        # A run without a result has the same keys.
        **({**NO_HEADLINE} if headline is None else headline.plain()),
        "best_commit": best.commit if best else None,
        "tokens_in": totals.tokens_in,
        "tokens_out": totals.tokens_out,
        "usd": totals.usd,
        "findings": counts(transfers_of(reader)),
        "pinned": [number for number, marks in marked.items() if marks.pinned],
        "notes": sum(len(marks.notes) for marks in marked.values()),
        "branch": branch_name(run.tag),
        "best_train": str(reader.folder / BEST_TRAIN) if best else None,
        "results": str(reader.folder / RESULTS),
        "folder": str(reader.folder),
    }
