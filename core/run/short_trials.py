"""Short trials in a run's ledger: what became of changes, and how well short trials tell the order of full ones.

See `core.run.screens` for the steps that lead there.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.core.judge.screening import Agreement, Pair, agreement
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import SHORT_TRIAL, ExperimentRow, TrialRow

SCREENED = "screened"
"""Kind of the ledger's event on a change after its short trial: passed or let go, with the figures."""
SCREEN = "screen"
"""Fact of the decision on a change that was let go: the same figures."""


def stand_in(reader: LedgerReader, row: ExperimentRow) -> TrialRow:
    """Return the short trial of a change that was let go in the form of a trial, with no score."""
    verdict = next(one for one in reversed(reader.events(SCREENED)) if one["experiment"] == row.number)
    shorts = [one for one in reader.events(SHORT_TRIAL) if one["experiment"] == one["subject"] == row.number]
    best = reader.experiment(verdict["against"])
    level = best.val_bpb if best.estimate is None else best.estimate
    result = {**shorts[-1], "val_bpb": None}
    if level is not None:
        result["predicted_bpb"] = level + verdict["short"]
    return TrialRow(row.number, 0, "candidate", row.number, shorts[-1]["seed"], 1, 0.0, None, None, None, result)


def pair_of(reader: LedgerReader, row: ExperimentRow, verdict: Mapping[str, Any]) -> Pair | None:
    """Return both differences of a decided change; None without a full trial beside one of the incumbent's.

    A full trial that was stopped early counts with its prediction: without those only good ones would be left.
    """
    against, short = row.judged.get("against", verdict["against"]), verdict["short"]
    full = next((one for one in reader.trials(experiment=row.number) if one.subject == row.number), None)
    if short is None or full is None or not isinstance(against, int):
        return None
    value = full.val_bpb if full.status == "ok" else full.result.get("predicted_bpb")
    others = [
        one.val_bpb for one in reader.trials(subject=against) if one.seed == full.seed and one.val_bpb is not None
    ]
    if value is None or not others:
        return None
    share = verdict.get("anyway")
    return Pair(short, value - others[0], 1.0 / share if share else 1.0)


@dataclass(frozen=True)
class ScreenReport:
    """The short trials of a run, summed up."""

    seconds: float
    """Training seconds of the last of them."""
    screened: int
    let_go: int
    anyway: int
    """Changes above the cut that were measured in full all the same."""
    lost: int
    """Changes among those that were kept."""
    lost_estimate: float
    """Improvements that were let go, as those stand for the others."""
    agreement: Agreement
    saved_seconds: float
    """Device time that full trials of what was let go would have taken, less all short trials."""

    def describe(self) -> str:
        """Sum it up in a line."""
        saved = abs(self.saved_seconds)
        time = f"{saved:.0f} s" if saved < 600 else f"{saved / 3600:.1f} h"
        cost = f"{time} of device time {'saved' if self.saved_seconds >= 0 else 'spent beyond what was saved'}"
        text = f"short trials of {self.seconds:g} s: {self.let_go} of {self.screened} changes let go, {cost}"
        if self.anyway:
            text += (
                f"; {self.anyway} above the cut measured in full all the same, {self.lost} of them kept "
                f"(about {self.lost_estimate:.1f} improvements let go)"
            )
        return f"{text}; {self.agreement.describe()}"

    def record(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        told = {name: value for name, value in vars(self).items() if name != "agreement"}
        return {**told, "rank_correlation": self.agreement.rank, "pairs": self.agreement.pairs}


def screen_report(reader: LedgerReader) -> ScreenReport | None:
    """Sum up the short trials of a run; None for one that has screened nothing."""
    verdicts, shorts = reader.events(SCREENED), reader.events(SHORT_TRIAL)
    if not verdicts:
        return None
    decided = {row.number: row for row in reader.experiments() if row.state == "decided"}
    known = [(one, decided[one["experiment"]]) for one in verdicts if one["experiment"] in decided]
    pairs = [pair for one, row in known if (pair := pair_of(reader, row, one)) is not None]
    # What was let go has no full trial. It would have taken as long as others, of which some are stopped early.
    measured = [row for row in decided.values() if row.number and SCREEN not in row.judged]
    walls = [wall for row in measured if (wall := row.metrics.get("wall_seconds"))]
    let_go = sum(not one["passed"] for one in verdicts)
    anyway = [(one["anyway"], row) for one, row in known if one.get("anyway")]
    return ScreenReport(
        seconds=verdicts[-1]["seconds"],
        screened=len(verdicts),
        let_go=let_go,
        anyway=len(anyway),
        lost=sum(row.status == "keep" for _, row in anyway),
        lost_estimate=sum(1.0 / share - 1.0 for share, row in anyway if row.status == "keep"),
        agreement=agreement(pairs),
        saved_seconds=let_go * (statistics.mean(walls) if walls else 0.0)
        - sum(one.get("wall_seconds") or 0.0 for one in shorts),
    )


def screen_lines(reader: LedgerReader, number: int) -> list[str]:
    """Say what the short trial of an experiment was about; nothing for one without."""
    found = next((one for one in reversed(reader.events(SCREENED)) if one["experiment"] == number), None)
    if found is None:
        return []
    if found["short"] is None:
        return [f"its short trial of {found['seconds']:g} s gave no comparison; the full trial decided"]
    text = (
        f"its short trial of {found['seconds']:g} s: {found['short']:+.5f} bpb against experiment {found['against']} "
        f"at seed {found['seed']}, the cut is {found['cut']:+.5f}"
    )
    if found.get("anyway"):
        return [f"{text}; above it, and drawn to be measured in full all the same (chance {found['anyway']:.0%})"]
    return [f"{text}; {'it went on to a full trial' if found['passed'] else 'it was let go'}"]
