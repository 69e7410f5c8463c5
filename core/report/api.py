"""What the dashboard's page asks for, as data. Text is handed on as it is: the page shows it as text, never as HTML."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoresearch.core.report.curves import resample
from autoresearch.core.report.follow import Snapshot
from autoresearch.core.report.panel import best_words, current_words
from autoresearch.core.report.trial_events import loss_curve
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, TrialRow

CURVE_POINTS = 300
LOG_TAIL_BYTES = 16 * 2**10
DIFF_LINES = 4000


def state(snapshot: Snapshot, yardsticks: Mapping[str, float]) -> dict[str, Any]:
    """The run at one moment."""
    config, totals, current = snapshot.run.config, snapshot.totals, snapshot.current
    sigmas = [row.judged["sigma"] for row in snapshot.last if row.judged.get("sigma") is not None]
    return {
        "tag": snapshot.run.tag,
        "state": snapshot.state,
        "setting": f"{config['backend']}/{config['preset']} on {config['device']}",
        "isolation": snapshot.isolation,
        "judge": config["judge"],
        "experiments": totals.decided,
        "by_status": dict(totals.by_status),
        "usd": totals.usd,
        "next": snapshot.decided,
        "best": snapshot.best.number if snapshot.best else None,
        "best_words": best_words(snapshot),
        "gain": snapshot.gain,
        "sigma": sigmas[-1] if sigmas else None,
        "keeps": snapshot.keeps,
        "yardsticks": dict(yardsticks),
        "current": None if current is None else {"experiment": current.number, "hypothesis": current.hypothesis},
        "doing": current_words(snapshot),
        "losses": [round(loss, 5) for loss in resample(snapshot.losses, CURVE_POINTS)],
    }


def experiments(reader: LedgerReader, after: int) -> list[dict[str, Any]]:
    """Every decided experiment with a number above `after`, in order."""
    rows = reader.experiments() if after < 0 else reader.last(max(reader.next_number() - after - 1, 0))
    return [_line(row) for row in rows if row.state == "decided" and row.number > after]


def experiment(reader: LedgerReader, number: int) -> dict[str, Any]:
    """Everything about one. Raises `LedgerError` when there is none of that number."""
    row = reader.experiment(number)
    return {
        **_line(row),
        "state": row.state,
        "reason": row.reason,
        "parent": row.parent,
        "commit": row.commit,
        "researcher": row.researcher,
        "predicted_delta": row.predicted_delta,
        "usd": row.usd,
        "peak_memory_mb": row.peak_memory_mb,
        "judged": {name: value for name, value in row.judged.items() if isinstance(value, int | float)},
        "diff": _diff(reader, row),
        "runs": [_trial(reader.folder, trial) for trial in reader.trials(experiment=number)],
        "log": _log_tail(reader.folder, reader.trials(experiment=number)),
    }


def _line(row: ExperimentRow) -> dict[str, Any]:
    return {
        "n": row.number,
        "status": row.status,
        "val_bpb": row.val_bpb,
        "estimate": row.estimate,
        "delta": row.delta if row.number else None,
        "trials": row.trials,
        "category": row.category,
        "hypothesis": row.hypothesis,
    }


def _trial(folder: Path, trial: TrialRow) -> dict[str, Any]:
    names = ("isolation", "tokens", "steps", "wall_seconds", "peak_memory_mb", "audit", "reason")
    events = trial_folder(folder, trial.experiment, trial.k) / "events.jsonl"
    curve = [loss for _, loss in loss_curve(events)]
    return {
        **{name: trial.result.get(name) for name in names},
        "k": trial.k,
        "role": trial.role,
        "subject": trial.subject,
        "seed": trial.seed,
        "status": trial.status,
        "val_bpb": trial.val_bpb,
        "curve": [round(loss, 5) for loss in resample(curve, CURVE_POINTS)],
    }


def _diff(reader: LedgerReader, row: ExperimentRow) -> list[str]:
    """What was edited, as lines of a unified diff; empty for the baseline."""
    if row.parent == row.number:
        return []
    before = reader.text(reader.experiment(row.parent).source_sha256).splitlines()
    after = reader.text(row.source_sha256).splitlines()
    lines = difflib.unified_diff(before, after, f"experiment {row.parent}", f"experiment {row.number}", lineterm="")
    return [line for line, _ in zip(lines, range(DIFF_LINES), strict=False)]


def _log_tail(folder: Path, trials: list[TrialRow]) -> str:
    if not trials:
        return ""
    path = trial_folder(folder, trials[-1].experiment, trials[-1].k) / "run.log"
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - LOG_TAIL_BYTES, 0))
            return file.read(LOG_TAIL_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
