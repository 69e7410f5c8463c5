"""Deciding an experiment again from the recorded trials: do the figures that `--why` states follow from them?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from autoresearch.core.errors import ArError
from autoresearch.core.judge.decision import Decision
from autoresearch.core.judge.options import JUDGES, JudgeOptions, make_judge
from autoresearch.core.judge.stack import SHARES, STACK
from autoresearch.core.run.evidence import gather_evidence
from autoresearch.core.run.short_trials import SCREEN
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, TrialRow, ran_on

TOLERANCE = 1e-9
"""Relative difference up to which two figures are the same: sums may be taken in another order."""


@dataclass(frozen=True)
class Replay:
    """A decision made again."""

    decision: Decision | None
    """The decision by the recorded trials; None where they lead to none, or the run's judge is not known."""
    differences: tuple[str, ...]
    """Figures that are not as recorded, in words."""
    instead: str = ""
    """Name of whatever decided it, where the judge did not."""

    def describe(self) -> str:
        """Say for a person whether the figures follow from the trials."""
        if self.instead:
            return self.instead
        if self.decision is None:
            return "the recorded trials lead to no decision by this version of ar"
        if self.differences:
            return f"decided again from the recorded trials, these figures differ: {'; '.join(self.differences)}"
        return "decided again from the recorded trials: the same verdict and figures"


def decide_again(reader: LedgerReader, row: ExperimentRow) -> Replay:
    """Decide an experiment again by the trials that had ended by then, and compare with what is recorded."""
    config = reader.run().config
    if STACK in row.judged:
        stack = row.judged[STACK]
        return Replay(None, (), "decided by the best file" if stack is None else f"decided with experiment {stack}")
    if SCREEN in row.judged:
        return Replay(None, (), "let go by its short trial, which the judge has no part in")
    name = str(config.get("judge"))
    past = Past(reader, row)
    own = past.trials(experiment=row.number)
    machine = str(own[-1].result.get("machine") or "") if own else ""
    if name not in JUDGES or not own:
        return Replay(None, ())
    judge = make_judge(name, JudgeOptions.choose(str(config["preset"]), {}, config))
    # As it was before the decision: its estimate would otherwise count as measured.
    before = replace(row, estimate=None, status=None, judged={})
    against, best = row.judged.get("against"), past.incumbent()
    other = against if isinstance(against, int) and best is not None and against != best.number else None
    try:
        step = judge.consider(gather_evidence(past, before, int(config["seed"]), machine, other))
    except (ArError, ArithmeticError, KeyError, TypeError, ValueError):  # a ledger may hold anything
        return Replay(None, ())
    if not isinstance(step, Decision):
        return Replay(None, ())
    recorded = {"status": past.status_then(row), "estimate": row.estimate, "delta": row.delta, **row.judged}
    recorded.pop(SHARES, None)  # of a stack, which the judge knows nothing of
    found = {"status": step.status, "estimate": step.estimate, "delta": step.delta, **step.facts}
    names = list(dict.fromkeys([*recorded, *found]))
    return Replay(
        step,
        tuple(
            f"{name} {_text(found.get(name))} where {_text(recorded.get(name))} is recorded"
            for name in names
            if not _same(found.get(name), recorded.get(name))
        ),
    )


class Past(LedgerReader):
    """A ledger as it was when one of its experiments was about to be decided."""

    def __init__(self, reader: LedgerReader, row: ExperimentRow) -> None:
        """Look back from the decision of `row`. The reader stays open, and is the one to close."""
        self.folder, self.path, self._connection = reader.folder, reader.path, reader._connection
        self._now = row.decided or math.inf
        rows = list(reader.experiments())
        self._demoted = reader.demotions()
        decided = [one for one in rows if one.state == "decided" and (one.decided or 0.0) < self._now]
        self._decided = sorted(decided, key=lambda one: (one.decided or 0.0, one.number))
        self._numbers = {one.number: one for one in rows}
        self._next = max((one.number for one in rows if one.created <= self._now), default=-1) + 1
        self._trials = [trial for trial in reader.every_trial() if trial.started <= self._now]

    def close(self) -> None:
        """Leave the file open for the reader that it belongs to."""

    def status_then(self, row: ExperimentRow) -> str | None:
        """Return an experiment's verdict at this time: one that is demoted by now was kept before."""
        at = [time for time, number, _ in self._demoted if number == row.number]
        return "keep" if at and at[0] >= self._now else row.status

    def incumbent(self) -> ExperimentRow | None:
        """Return the best experiment of that time."""
        steps = [(one.decided or 0.0, one.number) for one in self._decided if self._was_kept(one)]
        steps += [(time, successor) for time, _, successor in self._demoted if time < self._now]
        return self._numbers[max(steps)[1]] if steps else None

    def keep_before(self, number: int) -> ExperimentRow | None:
        """Return the experiment that was decided last before that one, of those kept then."""
        before = list(takewhile(lambda one: one.number != number, self._decided))
        return next((one for one in reversed(before) if self.status_then(one) == "keep"), None)

    def trials(self, *, experiment: int | None = None, subject: int | None = None) -> list[TrialRow]:
        """Return the trials that had ended."""
        return [
            trial
            for trial in self._trials
            if self._ended(trial)
            and (trial.subject == subject if experiment is None else trial.experiment == experiment)
        ]

    def repeats(self, latest: int = 2000) -> list[list[TrialRow]]:
        """Return the trials of every source with more than two."""
        groups: dict[int, list[TrialRow]] = {}
        for trial in sorted(self._trials, key=lambda one: (one.subject, one.started)):
            if trial.subject > self._next - latest and self._ended(trial):
                groups.setdefault(trial.subject, []).append(trial)
        return [group for group in groups.values() if len(group) > 2]

    def raced_facts(self, machine: str = "", latest: int = 2000) -> list[Mapping[str, Any]]:
        """Return the judge's facts of every experiment with several trials that was decided by then."""
        least = max(0, self._next - latest)
        last = {one.experiment: one for one in self._trials if one.subject == one.experiment and self._ended(one)}
        return [
            one.judged
            for one in self._decided
            if one.number > least and one.trials > 1 and (one.number not in last or ran_on(last[one.number], machine))
        ]

    def undecided(self) -> list[ExperimentRow]:
        """Return nothing: trials under way for others change no decision, only the next trial."""
        return []

    def last_facts(self) -> Mapping[str, Any]:
        """Return the facts of the decision before."""
        recent = [one for one in self._decided if one.number == 0 or one.number > self._next - 1001]
        return recent[-1].judged if recent else {}

    def next_number(self) -> int:
        """Return the number that the next experiment had."""
        return self._next

    def _ended(self, trial: TrialRow) -> bool:
        return trial.status is not None and trial.ended is not None and trial.ended <= self._now

    def _was_kept(self, row: ExperimentRow) -> bool:
        return row.status == "keep" or any(number == row.number for _, number, _ in self._demoted)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return (
            one == other
            or math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-15)
            or (one != one and other != other)
        )
    return bool(one == other)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)[:60]
