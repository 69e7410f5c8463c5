"""What a report says about a run, as data. How it looks is for page.py."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError
from autoresearch.core.proposal import Status
from autoresearch.core.report.trial_events import device_event
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, RunRow, Totals, TrialRow
from autoresearch.core.store.source import branch_name

FAILED: tuple[Status, ...] = ("crash", "invalid", "timeout")


@dataclass(frozen=True)
class Spent:
    """What the trials took. What no trial reported is None."""

    trials: int
    wall_seconds: float | None
    """Start-up and scoring included."""
    train_seconds: float | None
    tokens: int | None
    """Training tokens."""
    audits_passed: int
    audits_failed: int


@dataclass(frozen=True)
class Category:
    """What came of one kind of change. The baseline is none."""

    name: str
    tried: int
    kept: int
    discarded: int
    failed: int
    best_delta: float | None
    """The lowest delta against the incumbent of its time."""


@dataclass(frozen=True)
class Reproduction:
    """What another person needs to do it again."""

    branch: str
    commit: str | None
    base_commit: str
    run_command: str
    trial_command: str
    device: str
    framework: str | None
    precision: str | None
    isolation: tuple[str, ...]
    ar_version: str
    corpus: str
    prepared_sha256: str


@dataclass(frozen=True)
class RunReport:
    """A run as a report sees it. Deltas and estimates are bits per byte; negative deltas are better."""

    run: RunRow
    decided: tuple[ExperimentRow, ...]
    keeps: tuple[ExperimentRow, ...]
    """The changes that were kept, in order; the baseline is not among them."""
    failures: tuple[ExperimentRow, ...]
    baseline: ExperimentRow | None
    best: ExperimentRow | None
    sigma: float | None
    """The judge's last idea of the noise of one trial."""
    totals: Totals
    spent: Spent
    categories: tuple[Category, ...]
    verified: Mapping[str, Any] | None
    """The last `ar verify`."""
    yardsticks: Mapping[str, float]
    reproduction: Reproduction

    @property
    def gain(self) -> tuple[float, float, float] | None:
        """Estimates of the baseline and the best, and their difference."""
        return _pair(self.baseline, self.best, "estimate")

    @property
    def raw_gain(self) -> tuple[float, float, float] | None:
        """The same of the two first trials."""
        return _pair(self.baseline, self.best, "val_bpb")


def gather(reader: LedgerReader) -> RunReport:
    """Read a run. Safe while a loop writes it. Raises `LedgerError` when the ledger is damaged."""
    run = reader.run()
    decided = tuple(row for row in reader.experiments() if row.state == "decided")
    trials = [trial for row in decided for trial in reader.trials(experiment=row.number)]
    by_number = {row.number: row for row in decided}
    best = None if run.incumbent is None else by_number.get(run.incumbent)
    sigmas = [row.judged["sigma"] for row in decided if row.judged.get("sigma") is not None]
    looks = reader.events("verified")
    return RunReport(
        run=run,
        decided=decided,
        keeps=tuple(row for row in decided if row.status == "keep" and row.number > 0),
        failures=tuple(row for row in decided if row.status in FAILED),
        baseline=by_number.get(0),
        best=best,
        sigma=sigmas[-1] if sigmas else None,
        totals=reader.totals(),
        spent=spent_on(trials),
        categories=by_category(decided),
        verified=looks[-1] if looks else None,
        yardsticks=yardsticks_of(run),
        reproduction=reproduction_of(run, best, trials, reader.folder),
    )


def spent_on(trials: Sequence[TrialRow]) -> Spent:
    """Sums over trials."""
    results = [trial.result for trial in trials]
    audits = [result["audit"]["ok"] for result in results if result.get("audit")]
    return Spent(
        trials=len(trials),
        wall_seconds=_sum(results, "wall_seconds"),
        train_seconds=_sum(results, "train_seconds"),
        tokens=None if (tokens := _sum(results, "tokens")) is None else int(tokens),
        audits_passed=sum(audits),
        audits_failed=len(audits) - sum(audits),
    )


def by_category(decided: Sequence[ExperimentRow]) -> tuple[Category, ...]:
    """One entry for every kind of change that was tried, the most tried first."""
    groups: dict[str, list[ExperimentRow]] = defaultdict(list)
    for row in decided:
        if row.number > 0:
            groups[row.category].append(row)
    found = []
    for name, rows in groups.items():
        count = Counter(row.status for row in rows)
        deltas = [row.delta for row in rows if row.delta is not None]
        failed = sum(count[status] for status in FAILED)
        best = min(deltas) if deltas else None
        found.append(Category(name, len(rows), count["keep"], count["discard"], failed, best))
    return tuple(sorted(found, key=lambda one: (-one.tried, one.name)))


def yardsticks_of(run: RunRow) -> dict[str, float]:
    """What compressors reach on the same text, by name; empty when the prepared text is gone."""
    try:
        yardsticks = Prepared.open(Path(run.config["prepared"])).manifest.yardsticks
    except (DataError, OSError):
        return {}
    return {"gzip": yardsticks.gzip_bpb, "xz": yardsticks.xz_bpb}


def reproduction_of(run: RunRow, best: ExperimentRow | None, trials: Sequence[TrialRow], folder: Path) -> Reproduction:
    """Commands, commits and versions, from the run's settings and the best experiment's first trial."""
    config = run.config
    common = ["ar", "--backend", config["backend"], "--preset", config["preset"]]
    text = ["--corpus", config["corpus"], "--budget", f"{config['train_seconds']:g}", "--seed", str(config["seed"])]
    loop = [*common, "loop", *text, "--judge", config["judge"], "--calibrate", str(config.get("calibrate", 1))]
    device = device_event(trial_folder(folder, best.number if best else 0, 1) / "events.jsonl")
    levels = sorted({str(trial.result["isolation"]) for trial in trials if trial.result.get("isolation")})
    return Reproduction(
        branch=branch_name(run.tag),
        commit=best.commit if best else None,
        base_commit=run.base_commit,
        run_command=shlex.join(loop),
        trial_command=shlex.join([*common, "train", *text]),
        device=str(config["device"]),
        framework=_words(device.get("framework")),
        precision=_words(device.get("precision")),
        isolation=tuple(levels),
        ar_version=config["ar_version"],
        corpus=config["corpus"],
        prepared_sha256=config["prepared_sha256"],
    )


def _sum(results: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = [result[name] for result in results if result.get(name) is not None]
    return sum(known) if known else None


def _pair(first: ExperimentRow | None, then: ExperimentRow | None, name: str) -> tuple[float, float, float] | None:
    before, after = getattr(first, name, None), getattr(then, name, None)
    return None if before is None or after is None else (before, after, after - before)


def _words(value: Any) -> str | None:
    return None if value is None else str(value)
