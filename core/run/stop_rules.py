"""The rule by which a candidate's trial is ended early, made from the ledger: equal ledgers give equal rules."""

from __future__ import annotations

from collections.abc import Iterable

from autoresearch.core.judge.decision import RunTrial
from autoresearch.core.judge.futility import LESSONS, Curve, Lesson, StopRule, learn, unit_of
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import COMPUTES_ITSELF, TrialRow, processors, ran_on


def stop_rule(ledger: LedgerReader, trial: RunTrial, machine: str = "") -> StopRule | None:
    """Return the rule for a trial of a candidate; None where the judge wants it to run to its end.

    It compares with the incumbent's trial at the same seed, on the same machine. Without one, or where the trial has no
    score to reach, the rule is for divergence, stalls and speed alone.
    """
    if trial.target is None:
        return None
    incumbent = ledger.incumbent()
    other = None if incumbent is None else _at_seed(ledger.trials(subject=incumbent.number), trial.seed, machine)
    if other is None or other.val_bpb is None:
        return StopRule()
    curve, tokens = curve_of(other), other.result.get("tokens")
    unit = unit_of(curve, other.val_bpb)
    if unit is None or trial.target.val_bpb is None:
        return StopRule(curve=curve, tokens=tokens)
    forecasts = learn(lessons(ledger, machine), curve, unit, trial.target.noise)
    busy = processors(other.result) if other.result.get("device_kind") in COMPUTES_ITSELF else None
    return StopRule(curve, other.val_bpb, unit, trial.target.val_bpb, forecasts, tokens, busy, trial.target.epsilon)


def lessons(ledger: LedgerReader, machine: str = "", latest: int = LESSONS) -> list[Lesson]:
    """Return the run's finished trials of candidates beside the incumbent's of their time, the oldest first.

    Only trials that ran to their end teach anything. Which do depends on their curves alone, which the regression is
    given, so this selection does not bias it.
    """
    found: list[Lesson] = []
    for row in ledger.scored(latest):
        against = row.judged.get("against")
        if not isinstance(against, int):
            continue
        others = ledger.trials(subject=against)
        for trial in ledger.trials(experiment=row.number):
            if trial.subject != row.number or trial.status != "ok" or not ran_on(trial, machine):
                continue
            other = _at_seed(others, trial.seed, machine)
            if other is None or other.val_bpb is None or trial.val_bpb is None:
                continue
            mine, theirs = curve_of(trial), curve_of(other)
            unit = unit_of(theirs, other.val_bpb)
            if mine and unit is not None:
                found.append(Lesson(mine, theirs, unit, trial.val_bpb - other.val_bpb))
    return found[-latest:]


def curve_of(trial: TrialRow) -> tuple[float | None, ...]:
    """Return a trial's curve as its result holds it; empty where it has none."""
    curve: Curve = trial.result.get("curve") or ()
    return tuple(curve)


def _at_seed(trials: Iterable[TrialRow], seed: int, machine: str) -> TrialRow | None:
    """Return the first successful trial at that seed on this machine, with a curve."""
    return next(
        (one for one in trials if one.seed == seed and one.status == "ok" and curve_of(one) and ran_on(one, machine)),
        None,
    )
