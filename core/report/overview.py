"""What a run has learnt about itself, for the dashboard: lineage, predictions, noise, and what is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autoresearch.core.report.document.gather import by_category
from autoresearch.core.report.lookup import RunLookup
from autoresearch.core.report.document.statistics import predictions_of, scores
from autoresearch.core.report.wording import one_line
from autoresearch.core.store.rows import ExperimentRow

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
