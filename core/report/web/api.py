"""A run for the dashboard's page, as data: where it stands, its experiments, and several runs side by side.

Words are a model's: they are put on one line here, without control characters, and shown by the page as text.

One experiment for the dashboard's page, as data.

What a run has learnt about itself, for the dashboard: lineage, predictions, noise, and what is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoresearch.core.report.document.gather import by_category
from autoresearch.core.report.document.statistics import certainty_of, predictions_of, scores
from autoresearch.core.report.follow import Running, Snapshot
from autoresearch.core.report.terminal.curves import resample
from autoresearch.core.report.terminal.live import Progress
from autoresearch.core.report.trial_events import is_number, loss_curve
from autoresearch.core.report.web.highlight import highlighted_diff
from autoresearch.core.report.web.queries import RunLookup
from autoresearch.core.report.wording import compact, one_line, visible
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.liveness import shown_state
from autoresearch.core.store.rows import ExperimentRow, TrialRow

CURVE_POINTS = 300


def state(snapshot: Snapshot, yardsticks: Mapping[str, float]) -> dict[str, Any]:
    """The run at one moment."""
    config, totals = snapshot.run.config, snapshot.totals
    sigmas = [row.judged["sigma"] for row in snapshot.last if is_number(row.judged.get("sigma"))]
    return {
        "tag": snapshot.run.tag,
        "state": snapshot.state,
        "ended": one_line(snapshot.run.ended or "", 300),
        "backend": config["backend"],
        "preset": config["preset"],
        "device": one_line(str(config["device"]), 60),
        "isolation": snapshot.isolation,
        "judge": config["judge"],
        "experiments": totals.decided,
        "by_status": dict(totals.by_status),
        "usd": totals.usd,
        "decided": snapshot.decided,
        "best": snapshot.best.number if snapshot.best else None,
        "best_estimate": snapshot.best.estimate if snapshot.best else None,
        "gain": snapshot.gain,
        "sigma": sigmas[-1] if sigmas else None,
        "keeps": snapshot.keeps,
        "yardsticks": dict(yardsticks),
        "memory_mb": snapshot.peak_memory_mb,
        "running": [_running(one, snapshot.now) for one in snapshot.running],
    }


def experiments(reader: RunLookup, since: float) -> list[dict[str, Any]]:
    """Every experiment that was decided at `since` (seconds since the epoch) or later, by number."""
    rows = reader.outcomes(since)
    for row in rows:
        for name in ("category", "researcher", "hypothesis"):
            row[name] = one_line(row[name])
    return rows


def side(reader: RunLookup) -> dict[str, Any]:
    """A run in a line, with the steps of its best: to be laid beside others."""
    run, totals = reader.run(), reader.totals()
    steps, sigmas = reader.steps(), reader.sigmas()
    return {
        "tag": run.tag,
        "state": shown_state(run),
        "backend": run.config["backend"],
        "preset": run.config["preset"],
        "device": one_line(str(run.config["device"]), 60),
        "judge": run.config["judge"],
        "budget": run.config["train_seconds"],
        "corpus": one_line(str(run.config["corpus"]), 60),
        "text": run.config["prepared_sha256"],
        "experiments": totals.decided,
        "kept": totals.by_status.get("keep", 0),
        "usd": totals.usd,
        "sigma": sigmas[-1][1] if sigmas else None,
        "wall_seconds": reader.wall_seconds(),
        "steps": [(n, estimate, round((at - run.created) / 3600, 5)) for n, estimate, at in steps],
    }


def _running(one: Running, now: float) -> dict[str, Any]:
    progress, trial = one.progress, one.trial
    return {
        "n": one.experiment.number,
        "k": trial.k if trial else None,
        "role": trial.role if trial else None,
        "hypothesis": one_line(one.experiment.hypothesis, 300),
        "words": progress_words(progress, now) if progress else _between(one),
        "share": _share(progress, now) if progress else None,
        "losses": [round(loss, 5) for loss in resample(one.losses, CURVE_POINTS)],
    }


def _between(one: Running) -> str:
    return "waiting" if one.experiment.state == "proposed" else "deciding"


def progress_words(progress: Progress, now: float) -> str:
    """How far a trial is, for example "training, 3 s left, step 120, loss 2.31, 12k tokens/s"."""
    elapsed = max(now - progress.since, 0.0)
    if progress.phase != "training":
        return progress.phase if progress.phase == "scoring" else f"{progress.phase} {elapsed:.0f} s"
    parts = [f"training, {max(progress.budget_seconds - elapsed, 0.0):.0f} s left"]
    if progress.step is not None:
        parts.append(f"step {progress.step:.0f}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.tokens and elapsed > 1.0:
        parts.append(f"{compact(progress.tokens / elapsed)} tokens/s")
    return ", ".join(parts)


def _share(progress: Progress, now: float) -> float | None:
    """Of the training or the scoring, 0..1."""
    if progress.phase == "training":
        return round(min(max(now - progress.since, 0.0) / max(progress.budget_seconds, 1e-9), 1.0), 3)
    return progress.scored if progress.phase == "scoring" else None


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


Quotas = Callable[[Sequence[ExperimentRow]], Mapping[str, Any] | None]
"""What the researchers' quotas ask for next, from every decided experiment; None where they do not apply."""
MAX_POINTS = 2000


def overview(reader: RunLookup, quotas: Quotas) -> dict[str, Any]:
    """Everything of it."""
    decided = [row for row in reader.experiments() if row.state == "decided"]
    predictions = predictions_of(decided)
    return {
        "lineage": lineage(reader, decided),
        "predictions": [(one.experiment, one.predicted, one.outcome) for one in predictions[-MAX_POINTS:]],
        "scores": [{**asdict(one), "researcher": one_line(one.researcher, 80)} for one in scores(predictions)],
        "noise": noise(reader, decided),
        "categories": [{**asdict(one), "name": one_line(one.name, 80)} for one in by_category(decided)],
        "quotas": quotas(decided),
    }


def lineage(reader: RunLookup, decided: Sequence[ExperimentRow]) -> list[dict[str, Any]]:
    """The baseline and every keep in order, those that were demoted since too.

    `now` says whether the best file of today descends from it.
    """
    by_number = {row.number: row for row in decided}
    demoted = set(reader.numbers_of("demoted"))
    path, number = set[int](), reader.run().incumbent
    while number is not None and number not in path and number in by_number:
        path.add(number)
        number = by_number[number].parent
    return [
        {
            "n": row.number,
            "parent": row.parent,
            "hypothesis": one_line(row.hypothesis, 300),
            "category": one_line(row.category, 80),
            "delta": row.delta if row.number else None,
            "estimate": row.estimate,
            "trials": row.trials,
            "demoted": row.number in demoted,
            "now": row.number in path,
        }
        for row in decided
        if row.status == "keep" or row.number in demoted
    ]


def noise(reader: RunLookup, decided: Sequence[ExperimentRow]) -> dict[str, Any]:
    """The judge's idea of the noise as it went, its parts, and the repeats that it comes from."""
    known = [row.judged for row in decided if row.judged.get("sigma") is not None]
    last = known[-1] if known else {}
    groups = []
    for number in [0, *(row.number for row in decided if row.number and row.trials > 1)][:200]:
        values = [trial.val_bpb for trial in reader.trials(subject=number) if trial.val_bpb is not None]
        if len(values) > 1:
            groups.append({"n": number, "values": values})
    return {
        **{name: last.get(name) for name in ("sigma", "dof", "training", "throughput")},
        "sigmas": reader.sigmas()[-MAX_POINTS:],
        "repeats": groups,
    }
