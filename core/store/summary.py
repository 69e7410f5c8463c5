"""What a run has come to, as the objects that `--json` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from autoresearch.core.store.exports import BEST_TRAIN, RESULTS
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.store.source import branch_name
from autoresearch.core.findings.transfers import counts, transfers_of


def decided_record(row: ExperimentRow) -> dict[str, Any]:
    """One decided experiment. What does not exist is None, never 0."""
    return {
        "experiment": row.number,
        "status": row.status,
        "val_bpb": row.val_bpb,
        "estimate": row.estimate,
        "delta": row.delta,
        "trials": row.trials,
        "commit": row.commit,
        "category": row.category,
        "description": row.hypothesis,
        "researcher": row.researcher,
        "usd": row.usd,
        "reason": row.reason,
        "origin": None if row.origin is None else asdict(row.origin),
    }


def summarise(reader: LedgerReader) -> dict[str, Any]:
    """The run as a whole. `experiments` leaves the baseline out; numbers are in bits per byte."""
    run, totals, best = reader.run(), reader.totals(), reader.incumbent()
    baseline = reader.experiment(0) if best is not None else None
    # Where the machine has changed, the last keep says what the baseline reaches on the new one.
    level = best.judged.get("baseline") if best is not None else None
    gain = baseline is not None and best is not None and None not in (baseline.val_bpb, best.val_bpb)
    estimated = baseline is not None and best is not None and None not in (baseline.estimate, best.estimate)
    return {
        "tag": run.tag,
        "state": run.state,
        "ended": run.ended,
        "backend": run.config["backend"],
        "preset": run.config["preset"],
        "device": run.config["device"],
        "experiments": totals.decided,
        "by_status": dict(totals.by_status),
        "failed_proposals": totals.failed_proposals,
        "baseline_bpb": (level or baseline.val_bpb) if baseline else None,
        "best_experiment": best.number if best else None,
        "best_bpb": best.val_bpb if best else None,
        "best_estimate": best.estimate if best else None,
        "delta": best.val_bpb - (level or baseline.val_bpb) if gain else None,  # type: ignore[union-attr, operator]
        # mypy cannot see that the two are there.
        "estimated_delta": best.estimate - (level or baseline.estimate) if estimated else None,  # type: ignore[union-attr, operator]
        "best_commit": best.commit if best else None,
        "tokens_in": totals.tokens_in,
        "tokens_out": totals.tokens_out,
        "usd": totals.usd,
        "findings": counts(transfers_of(reader)),
        "branch": branch_name(run.tag),
        "best_train": str(reader.folder / BEST_TRAIN) if best else None,
        "results": str(reader.folder / RESULTS),
        "folder": str(reader.folder),
    }
