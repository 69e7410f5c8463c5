"""The dashboard's data: a run's state, its experiments, one of them, and the lessons of the run.

Descriptions, reasons and logs are a model's text. They are put on one line here, without control characters, and the
page inserts them as text, never as HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoresearch.core.events import is_number, loss_curve
from autoresearch.core.report.curves import resample
from autoresearch.core.report.document.gather import by_category
from autoresearch.core.report.document.statistics import Interval, certainty_of, predictions_of, scores
from autoresearch.core.report.follow import Running, Snapshot
from autoresearch.core.report.web.highlight import DiffLine, highlighted_diff
from autoresearch.core.report.web.queries import RunQueries
from autoresearch.core.report.wording import experiment_of, file_name, one_line, trial_of, visible
from autoresearch.core.store.columns import COLUMNS, NUMERIC, PAGE, Column
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.headline import NO_HEADLINE, steps_of
from autoresearch.core.store.liveness import shown_state
from autoresearch.core.store.remarks import NO_MARKS, marks_of
from autoresearch.core.store.rows import ExperimentRow, TrialRow
from autoresearch.core.store.samples import read_samples
from autoresearch.core.store.transfers import transfers_of
from autoresearch.core.store.wishes import Wish

CURVE_POINTS = 300
"""Points drawn of one loss curve."""
MAX_POINTS = 2000
"""Points drawn of one figure, the latest ones."""
MAX_REPEATED = 200
"""Sources of which the repeated trials are listed."""
MAX_STORY = 100
"""Experiments told at a time."""
MAX_PARAMETERS = 40
LOG_TAIL_BYTES = 16 * 2**10
LOG_LINE_CHARACTERS = 2000
REASON_CHARACTERS = 2000
SAMPLE_CHARACTERS = 4000
"""Characters of a sample that are shown."""
TRIAL_FACTS = (
    *("isolation", "tokens", "steps", "params", "tokens_per_second", "peak_memory_mb", "mfu", "audit"),
    *("wall_seconds", "startup_seconds", "train_seconds", "eval_seconds"),
)
"""Fields of a trial's result that the page shows."""
Quotas = Callable[[Sequence[ExperimentRow]], Mapping[str, Any] | None]
"""Tells from every decided experiment, without its `metrics`, what the researchers' quotas ask for next.

None where they do not apply."""


# ---- the run


def state(snapshot: Snapshot, yardsticks: Mapping[str, float], wish: Wish | None = None) -> dict[str, Any]:
    """Describe the run at one moment; `wish` is what a person asked of its loop."""
    config, totals = snapshot.run.config, snapshot.totals
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
        **(dict(NO_HEADLINE) if snapshot.headline is None else snapshot.headline.plain()),
        "sigma": _last_known(snapshot.last, "sigma"),
        "paired": _last_known(snapshot.last, "paired"),
        "keeps": snapshot.keeps,
        "yardsticks": dict(yardsticks),
        "memory_mb": snapshot.peak_memory_mb,
        "columns": [_column(COLUMNS[name]) for name in PAGE],
        "running": [_running(one, snapshot.now) for one in snapshot.running],
        "wish": wish,
    }


def _last_known(rows: Sequence[ExperimentRow], name: str) -> float | None:
    """Return a figure of the judge's from the latest decision that has it."""
    known = [row.judged[name] for row in rows if is_number(row.judged.get(name))]
    return known[-1] if known else None


def _running(one: Running, now: float) -> dict[str, Any]:
    progress = one.progress
    return {
        "n": one.experiment.number,
        "name": _name(one),
        "hypothesis": one_line(one.experiment.hypothesis, 300),
        "progress": ", ".join(progress.parts(now, with_bar=False)) if progress else _between_trials(one),
        "share": progress.share(now) if progress else None,
        "losses": [round(loss, 5) for loss in resample(one.losses, CURVE_POINTS)],
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "title": column.title,
        "kind": column.kind,
        "numeric": column.kind in NUMERIC,
        "minor": column.minor,
    }


def _name(one: Running) -> str:
    name = experiment_of(one.experiment.number)
    return f"{name}, {trial_of(one.trial.k)}" if one.trial and one.trial.k > 1 else name


def _between_trials(one: Running) -> str:
    return "waiting" if one.experiment.state == "proposed" else "deciding"


def experiments(reader: RunQueries, since: float) -> list[dict[str, Any]]:
    """List every experiment decided at `since` (seconds since the epoch) or later, by number."""
    rows = reader.outcomes(since)
    for row in rows:
        for name in ("category", "researcher", "description"):
            row[name] = one_line(row[name])
    return rows


# ---- all runs


def run_summary(reader: RunQueries) -> dict[str, Any]:
    """Describe a run for the table of all runs, with the steps of its best result."""
    run, totals = reader.run(), reader.totals()
    keeps, noises = reader.keeps(), reader.noise_estimates()
    means = steps_of(reader, keeps)
    steps = [(row.number, means[row.number], row.decided or run.created) for row in keeps if row.number in means]
    return {
        # The folder's name, which addresses have: a copied or renamed folder holds a run of another name.
        "tag": reader.folder.name,
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
        "sigma": noises[-1][1] if noises else None,
        "wall_seconds": reader.wall_seconds(),
        "steps": [(n, mean, round((at - run.created) / 3600, 5)) for n, mean, at in steps],
    }


# ---- one experiment


def experiment(reader: RunQueries, number: int) -> dict[str, Any]:
    """Describe one experiment in full. Raises `LedgerError` when there is none of that number."""
    row = reader.experiment(number)
    trials = reader.trials(experiment=number)
    certainty = certainty_of(row.judged)
    first = reader.first_trial(row.parent) if row.parent != row.number else None
    marks = marks_of(reader).get(number, NO_MARKS)
    previous, following = reader.neighbours(number)
    return {
        "n": row.number,
        "previous": previous,
        "next": following,
        "state": row.state,
        "status": row.status,
        "hypothesis": one_line(row.hypothesis, REASON_CHARACTERS),
        "category": one_line(row.category, 80),
        "researcher": one_line(row.researcher, 80),
        "reason": one_line(row.reason or "", REASON_CHARACTERS),
        "notes": [one_line(note, REASON_CHARACTERS) for note in marks.notes],
        "pinned": marks.pinned,
        "val_bpb": row.val_bpb,
        "estimate": row.estimate,
        "delta": row.delta if row.number else None,
        "predicted_delta": row.predicted_delta,
        "measured": _interval(certainty.raw) if certainty else None,
        "shrunken": _interval(certainty.shrunken) if certainty else None,
        "better": row.judged.get("better"),
        "origin": None if row.origin is None else one_line(f"{row.origin} on {row.origin.device}", 200),
        "parent": row.parent,
        "commit": row.commit,
        "created": row.created,
        "decided": row.decided,
        "cost": {**reader.proposal_cost(number), "usd": row.usd},
        "parameters": {
            one_line(str(k), 60): one_line(str(v), 120) for k, v in list(row.parameters.items())[:MAX_PARAMETERS]
        },
        "diff": _lines(_diff(reader, row)),
        "trials": [_trial(reader.folder, trial) for trial in trials],
        "before": [] if first is None else _curve(reader.folder, first.experiment, first.k),
    }


def _interval(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _trial(folder: Path, trial: TrialRow) -> dict[str, Any]:
    return {
        **{name: trial.result.get(name) for name in TRIAL_FACTS},
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
    """Give (share of the budget, loss) of at most CURVE_POINTS points, evenly thinned."""
    points = loss_curve(trial_folder(folder, experiment, k))
    shares = resample([share for share, _ in points], CURVE_POINTS)
    losses = resample([loss for _, loss in points], CURVE_POINTS)
    return [(round(share, 4), round(loss, 5)) for share, loss in zip(shares, losses, strict=True)]


def _diff(reader: RunQueries, row: ExperimentRow) -> tuple[DiffLine, ...]:
    """Give the lines of the edit; none for the baseline."""
    return () if row.parent == row.number else _edit(reader, reader.experiment(row.parent), row)


def _edit(reader: RunQueries, before: ExperimentRow, after: ExperimentRow) -> tuple[DiffLine, ...]:
    """Compare the train files of two experiments."""
    return highlighted_diff(reader.text(before.source_sha256), reader.text(after.source_sha256))


def _lines(diff: Sequence[DiffLine]) -> list[Any]:
    return [(line.mark, line.number, line.parts) for line in diff]


def log_tail(path: Path) -> str:
    """Read the end of a log, whatever was written into it."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - LOG_TAIL_BYTES, 0))
            text = file.read(LOG_TAIL_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = visible(text).split("\n")
    return "\n".join(line if len(line) <= LOG_LINE_CHARACTERS else line[:LOG_LINE_CHARACTERS] + " …" for line in lines)


# ---- what was tried, and what other runs offered


def story(reader: RunQueries, before: int) -> list[dict[str, Any]]:
    """Tell hypothesis, prediction and outcome of at most MAX_STORY changes below number `before`, the latest first."""
    return [
        {
            "n": row.number,
            "status": row.status,
            "hypothesis": one_line(row.hypothesis, REASON_CHARACTERS),
            "category": one_line(row.category, 80),
            "researcher": one_line(row.researcher, 80),
            "predicted": row.predicted_delta,
            "change": row.change,
            "reason": one_line(row.reason or "", REASON_CHARACTERS),
        }
        for row in reader.story(before, MAX_STORY)
    ]


def findings(reader: RunQueries) -> list[dict[str, Any]]:
    """List the changes that other runs offered, and what became of each here; `key` names one in an address."""
    return [
        {
            "key": f"{one.origin.run} {one.origin.experiment} {one.origin.backend} {one.origin.device}",
            "run": one_line(one.origin.run, 100),
            "number": one.origin.experiment,
            "backend": one_line(one.origin.backend, 40),
            "device": one_line(one.origin.device, 100),
            "there": one.origin.delta,
            "hypothesis": one_line(one.hypothesis, REASON_CHARACTERS),
            "category": one_line(one.category, 80),
            "outcome": one.outcome,
            "experiment": one.experiment,
            "here": one.delta,
            "gone": one.gone,
            "tried_as": one_line(one.tried_as or "", REASON_CHARACTERS),
        }
        for one in transfers_of(reader)
    ]


# ---- lessons of the run


def overview(reader: RunQueries, quotas: Quotas) -> dict[str, Any]:
    """Describe the lessons of the run: lineage, predictions, noise, categories, quotas and samples."""
    decided = reader.decided()
    predictions = predictions_of(decided)
    incumbent = reader.run().incumbent
    best = next((row for row in decided if row.number == incumbent), None)
    return {
        "edit": _lines(_edit(reader, decided[0], best)) if best is not None and best.number else [],
        "lineage": lineage(reader, decided),
        "predictions": [(one.experiment, one.predicted, one.outcome) for one in predictions[-MAX_POINTS:]],
        "scores": [{**asdict(one), "researcher": one_line(one.researcher, 80)} for one in scores(predictions)],
        "noise": noise(reader, decided),
        "categories": [{**asdict(one), "name": one_line(one.name, 80)} for one in by_category(decided)],
        "quotas": quotas(decided),
        "samples": samples(reader.folder),
    }


def samples(folder: Path) -> dict[str, Any] | None:
    """Describe the texts of the last `ar sample`; None where there are none."""
    found = read_samples(folder)
    if found is None:
        return None
    prompts = [
        {
            "prompt": visible(prompt[:SAMPLE_CHARACTERS]),
            "sides": [
                {"name": file_name(file.experiment, file.val_bpb), "text": visible(text[:SAMPLE_CHARACTERS])}
                for file, text in sides
            ],
        }
        for prompt, sides in found.sides()
    ]
    return {"temperature": found.temperature, "top_p": found.top_p, "seed": found.seed, "prompts": prompts}


def lineage(reader: RunQueries, decided: Sequence[ExperimentRow]) -> list[dict[str, Any]]:
    """List the baseline and every kept experiment in order, later demoted ones too.

    `now` says whether today's best file descends from it.
    """
    by_number = {row.number: row for row in decided}
    demoted = set(reader.numbers_of("demoted"))
    ancestors, number = set[int](), reader.run().incumbent
    means = steps_of(reader, [row for row in decided if row.status == "keep"])
    # The baseline is its own parent.
    while number is not None and number not in ancestors and number in by_number:
        ancestors.add(number)
        number = by_number[number].parent
    return [
        {
            "n": row.number,
            "parent": row.parent,
            "hypothesis": one_line(row.hypothesis, 300),
            "category": one_line(row.category, 80),
            "change": row.change,
            "mean": means.get(row.number),
            "estimate": row.estimate,
            "trials": row.trials,
            "demoted": row.number in demoted,
            "now": row.number in ancestors,
        }
        for row in decided
        if row.status == "keep" or row.number in demoted
    ]


def noise(reader: RunQueries, decided: Sequence[ExperimentRow]) -> dict[str, Any]:
    """Describe the judge's estimate of the noise over the run, its parts, and the repeated trials behind it."""
    known = [row.judged for row in decided if row.judged.get("sigma") is not None]
    last = known[-1] if known else {}
    groups = []
    for number in [0, *(row.number for row in decided if row.number and row.trials > 1)][:MAX_REPEATED]:
        values = [trial.val_bpb for trial in reader.trials(subject=number) if trial.val_bpb is not None]
        if len(values) > 1:
            groups.append({"n": number, "values": values})
    return {
        **{name: last.get(name) for name in ("sigma", "dof", "training", "throughput", "paired", "paired_dof")},
        "sigmas": reader.noise_estimates()[-MAX_POINTS:],
        "repeats": groups,
    }
