"""A run for the dashboard's page, as data: where it stands, its experiments, and several runs side by side.

Words are a model's: they are put on one line here, without control characters, and shown by the page as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoresearch.core.report.terminal.curves import resample
from autoresearch.core.report.follow import Running, Snapshot, is_alive
from autoresearch.core.report.terminal.live import Progress
from autoresearch.core.report.lookup import RunLookup
from autoresearch.core.report.trial_events import is_number
from autoresearch.core.report.wording import compact, one_line

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


def side(reader: RunLookup, now: float) -> dict[str, Any]:
    """A run in a line, with the steps of its best: to be laid beside others."""
    run, totals = reader.run(), reader.totals()
    steps, sigmas = reader.steps(), reader.sigmas()
    alive = run.state != "running" or is_alive(run, now)
    return {
        "tag": run.tag,
        "state": run.state if alive else "died",
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
