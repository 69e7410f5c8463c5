"""The content of a report, as data. page.py decides how it looks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError
from autoresearch.core.proposal import Status
from autoresearch.core.report.document.reproduction import Reproduction, reproduction_of
from autoresearch.core.report.document.statistics import (
    Certainty,
    PredictionScore,
    certainty_of,
    predictions_of,
    scores,
)
from autoresearch.core.report.web.highlight import highlighted_diff
from autoresearch.core.report.wording import withdrawn_text
from autoresearch.core.run.short_trials import screen_report
from autoresearch.core.store.headline import Headline, headline_of, steps_of
from autoresearch.core.store.liveness import shown_state
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.remarks import Marks, marks_of
from autoresearch.core.store.rows import ExperimentRow, RunRow, Totals, TrialRow
from autoresearch.core.store.samples import Samples, read_samples
from autoresearch.core.store.transfers import Transfer, counts, transfers_of

FAILED: tuple[Status, ...] = ("crash", "invalid", "timeout")
"""Statuses of an experiment that gave no number."""
NOISES = ("sigma", "paired")
"""Names of the two noises among the numbers behind a decision."""


@dataclass(frozen=True)
class Spent:
    """Sums over a run's trials; None for a number that no trial reported."""

    trials: int
    wall_seconds: float | None
    """Seconds on the device, start-up and scoring included."""
    train_seconds: float | None
    tokens: int | None
    """Tokens trained on."""
    audits_passed: int
    audits_failed: int
    stopped: int = 0
    """Trials ended early."""


@dataclass(frozen=True)
class CategoryCount:
    """Outcomes of one kind of change, the baseline left out."""

    name: str
    tried: int
    kept: int
    discarded: int
    failed: int
    best_delta: float | None
    """Lowest difference from the incumbent of its time, in bits per byte."""


@dataclass(frozen=True)
class ReportData:
    """A run as a report sees it. Differences and estimates are bits per byte; negative differences are better."""

    run: RunRow
    state: str
    """The run's state in a word, "died" when its process is gone (see `core.store.liveness`)."""
    decided: tuple[ExperimentRow, ...]
    keeps: tuple[ExperimentRow, ...]
    """Kept changes in order, without the baseline."""
    failures: tuple[ExperimentRow, ...]
    baseline: ExperimentRow | None
    best: ExperimentRow | None
    headline: Headline | None
    """The best file's measured mean against the baseline's, and its cautious estimate; None without a result."""
    means: Mapping[int, float]
    """Measured means of kept experiments, by number."""
    sigma: float | None
    """Noise: the standard deviation of one trial between seeds, as the judge last estimated it."""
    paired: float | None
    """Paired noise: the standard deviation of a difference at one seed, as the judge last estimated it."""
    totals: Totals
    spent: Spent
    screens: str | None
    """A line about what short trials have let go; None for a run without any."""
    categories: tuple[CategoryCount, ...]
    certainty: Mapping[int, Certainty]
    """Intervals of each kept change, by number, where the judge left the numbers for them."""
    withdrawn: str | None
    """A line about the numbers that withdrawn proposals have left without an experiment; None without any."""
    demoted: Mapping[int, str]
    """Numbers of kept changes that did not hold when measured again, with the reason."""
    predictions: tuple[PredictionScore, ...]
    """Scores of every researcher's predictions."""
    verified: Mapping[str, Any] | None
    """Result of the last `ar verify`."""
    ablated: Mapping[str, Any] | None
    """Result of the last `ar ablate`."""
    scaled: Mapping[str, Any] | None
    """Result of the last `ar scale`."""
    transfers: tuple[Transfer, ...]
    """Changes offered by runs on other devices, and what became of them here."""
    yardsticks: Mapping[str, float]
    """Bits per byte that compressors reach on the same text, by name."""
    reproduction: Reproduction
    marks: Mapping[int, Marks]
    """The owner's notes and pins, by experiment."""
    samples: Samples | None
    """Texts of the last `ar sample`."""
    edit: tuple[tuple[str, str], ...]
    """Lines of the difference from the baseline to the best file, each with its mark: "+", "-", " ", or "@" (a gap)."""

    @property
    def story(self) -> tuple[ExperimentRow, ...]:
        """Every decided change in order, without the baseline."""
        return tuple(row for row in self.decided if row.number > 0)

    @property
    def transferred(self) -> list[dict[str, Any]]:
        """Counts per peer run: changes offered, tried here, and kept here."""
        return counts(self.transfers)


def gather(reader: LedgerReader) -> ReportData:
    """Read one state of a run, also while a loop writes it. Raises `LedgerError` when the ledger is damaged."""
    with reader.snapshot():
        return _gather(reader)


def _gather(reader: LedgerReader) -> ReportData:
    run = reader.run()
    decided = tuple(row for row in reader.experiments() if row.state == "decided")
    trials = [trial for row in decided for trial in reader.trials(experiment=row.number)]
    by_number = {row.number: row for row in decided}
    best = None if run.incumbent is None else by_number.get(run.incumbent)
    sigmas, paired = ([row.judged[name] for row in decided if row.judged.get(name) is not None] for name in NOISES)
    keeps = tuple(row for row in decided if row.status == "keep" and row.number > 0)
    verifications, ablations, scalings = (reader.events(kind) for kind in ("verified", "ablated", "scaled"))
    demoted = [by_number[number] for number in reader.numbers_of("demoted") if number in by_number]
    return ReportData(
        run=run,
        state=shown_state(run),
        decided=decided,
        keeps=keeps,
        failures=tuple(row for row in decided if row.status in FAILED),
        baseline=by_number.get(0),
        best=best,
        headline=headline_of(reader),
        means=steps_of(reader, reader.keeps()),
        sigma=sigmas[-1] if sigmas else None,
        paired=paired[-1] if paired else None,
        totals=reader.totals(),
        spent=spent_on(trials),
        screens=None if (screened := screen_report(reader)) is None else screened.describe(),
        categories=by_category(decided),
        certainty={row.number: found for row in keeps if (found := certainty_of(row.judged)) is not None},
        withdrawn=withdrawn_text(reader.withdrawn()),
        demoted={row.number: row.reason or "" for row in demoted if row.status != "keep"},
        predictions=tuple(scores(predictions_of(decided))),
        verified=verifications[-1] if verifications else None,
        ablated=ablations[-1] if ablations else None,
        scaled=scalings[-1] if scalings else None,
        transfers=transfers_of(reader),
        yardsticks=yardsticks_of(run),
        reproduction=reproduction_of(run, best, trials, reader.folder),
        marks=marks_of(reader),
        samples=read_samples(reader.folder),
        edit=() if best is None or best.number == 0 else edit_lines(reader, by_number[0], best),
    )


def edit_lines(reader: LedgerReader, before: ExperimentRow, after: ExperimentRow) -> tuple[tuple[str, str], ...]:
    """Compare the files of two experiments; return the lines of the difference with their marks."""
    found = highlighted_diff(reader.text(before.source_sha256), reader.text(after.source_sha256))
    lines = [(line.mark, "".join(text for _, text in line.parts)) for line in found]
    while lines and lines[-1] == (" ", ""):
        lines.pop()
    return tuple(lines)


def spent_on(trials: Sequence[TrialRow]) -> Spent:
    """Add up what the trials took."""
    results = [trial.result for trial in trials]
    audits = [result["audit"]["ok"] for result in results if result.get("audit")]
    return Spent(
        trials=len(trials),
        wall_seconds=_sum(results, "wall_seconds"),
        train_seconds=_sum(results, "train_seconds"),
        tokens=None if (tokens := _sum(results, "tokens")) is None else int(tokens),
        audits_passed=sum(audits),
        audits_failed=len(audits) - sum(audits),
        stopped=sum(trial.status == "stopped" for trial in trials),
    )


def by_category(decided: Sequence[ExperimentRow]) -> tuple[CategoryCount, ...]:
    """Count the outcomes of every kind of change, the most tried first."""
    groups: dict[str, list[ExperimentRow]] = defaultdict(list)
    for row in decided:
        if row.number > 0:
            groups[row.category].append(row)
    found = []
    for name, rows in groups.items():
        count = Counter(row.status for row in rows)
        deltas = [row.change for row in rows if row.change is not None]
        failed = sum(count[status] for status in FAILED)
        best = min(deltas) if deltas else None
        found.append(CategoryCount(name, len(rows), count["keep"], count["discard"] + count["stopped"], failed, best))
    return tuple(sorted(found, key=lambda one: (-one.tried, one.name)))


def yardsticks_of(run: RunRow) -> dict[str, float]:
    """Read the bits per byte that compressors reach on the same text, by name; empty when the prepared text is gone."""
    try:
        yardsticks = Prepared.open(Path(run.config["prepared"])).manifest.yardsticks
    except (DataError, OSError):
        return {}
    return {"gzip": yardsticks.gzip_bpb, "xz": yardsticks.xz_bpb}


def _sum(results: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = [result[name] for result in results if result.get(name) is not None]
    return sum(known) if known else None
