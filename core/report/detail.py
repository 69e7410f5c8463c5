"""One experiment for the dashboard's page, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoresearch.core.report.api import CURVE_POINTS
from autoresearch.core.report.document.statistics import certainty_of
from autoresearch.core.report.terminal.curves import resample
from autoresearch.core.report.highlight import highlighted_diff
from autoresearch.core.report.lookup import RunLookup
from autoresearch.core.report.trial_events import loss_curve
from autoresearch.core.report.wording import one_line, visible
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.rows import ExperimentRow, TrialRow

LOG_TAIL_BYTES = 16 * 2**10
LOG_LINE_CHARACTERS = 2000
REASON_CHARACTERS = 2000
MEASURED = (
    *("isolation", "tokens", "steps", "params", "tokens_per_second", "peak_memory_mb", "mfu", "audit"),
    *("wall_seconds", "startup_seconds", "train_seconds", "eval_seconds"),
)
"""Of a trial's result."""


def experiment(reader: RunLookup, number: int) -> dict[str, Any]:
    """Everything about one. Raises `LedgerError` when there is none of that number."""
    row = reader.experiment(number)
    trials = reader.trials(experiment=number)
    certainty = certainty_of(row.judged)
    return {
        "n": row.number,
        "state": row.state,
        "status": row.status,
        "hypothesis": one_line(row.hypothesis, REASON_CHARACTERS),
        "category": one_line(row.category, 80),
        "researcher": one_line(row.researcher, 80),
        "reason": one_line(row.reason or "", REASON_CHARACTERS),
        "val_bpb": row.val_bpb,
        "estimate": row.estimate,
        "delta": row.delta if row.number else None,
        "predicted_delta": row.predicted_delta,
        "measured": _spanned(certainty.raw) if certainty else None,
        "shrunken": _spanned(certainty.shrunken) if certainty else None,
        "better": row.judged.get("better"),
        "origin": None if row.origin is None else one_line(f"{row.origin} on {row.origin.device}", 200),
        "parent": row.parent,
        "commit": row.commit,
        "created": row.created,
        "decided": row.decided,
        "cost": {**reader.proposal_cost(number), "usd": row.usd},
        "parameters": {one_line(str(k), 60): one_line(str(v), 120) for k, v in list(row.parameters.items())[:40]},
        "diff": [(line.mark, line.number, line.parts) for line in _diff(reader, row)],
        "trials": [_trial(reader.folder, trial) for trial in trials],
        "before": _curve(reader.folder, row.parent, 1) if row.parent != row.number else [],
    }


def _spanned(span: Any) -> tuple[float, float, float]:
    return span.value, span.low, span.high


def _trial(folder: Path, trial: TrialRow) -> dict[str, Any]:
    return {
        **{name: trial.result.get(name) for name in MEASURED},
        "reason": one_line(str(trial.result.get("reason") or ""), REASON_CHARACTERS),
        "k": trial.k,
        "role": trial.role,
        "subject": trial.subject,
        "seed": trial.seed,
        "starts": trial.starts,
        "status": trial.status,
        "val_bpb": trial.val_bpb,
        "curve": _curve(folder, trial.experiment, trial.k),
        "log": log_tail(trial_folder(folder, trial.experiment, trial.k) / "run.log"),
    }


def _curve(folder: Path, experiment: int, k: int) -> list[tuple[float, float]]:
    """Share of the budget and loss, at most CURVE_POINTS of them, evenly thinned."""
    points = loss_curve(trial_folder(folder, experiment, k) / "events.jsonl")
    shares = resample([share for share, _ in points], CURVE_POINTS)
    losses = resample([loss for _, loss in points], CURVE_POINTS)
    return [(round(share, 4), round(loss, 5)) for share, loss in zip(shares, losses, strict=True)]


def _diff(reader: RunLookup, row: ExperimentRow) -> list[Any]:
    """What was edited; empty for the baseline."""
    if row.parent == row.number:
        return []
    return list(
        highlighted_diff(reader.text(reader.experiment(row.parent).source_sha256), reader.text(row.source_sha256))
    )


def log_tail(path: Path) -> str:
    """The end of a log, whatever was written into it."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - LOG_TAIL_BYTES, 0))
            text = file.read(LOG_TAIL_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = visible(text).split("\n")
    return "\n".join(line if len(line) <= LOG_LINE_CHARACTERS else line[:LOG_LINE_CHARACTERS] + " …" for line in lines)
