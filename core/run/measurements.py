"""The trials of a run as researchers see them: raw scores, paired differences, and what a kept change is worth now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.paired import PairedNoise, compare
from autoresearch.core.proposal import Attempt, PairedDifference, TrialFigures
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import TrialRow, ran_on


def train_tokens(prepared: str, vocabularies: Sequence[int]) -> dict[int, int]:
    """Return the tokens of the training text by vocabulary; {} where the prepared folder cannot be read."""
    try:
        records = Prepared.open(Path(prepared)).manifest.vocabularies
    except (DataError, OSError):
        return {}
    return {record.size: record.train_tokens for record in records if record.size in vocabularies}


class Measurements:
    """The trials of a run by the source that they ran, and the noise as the judge knows it now."""

    def __init__(self, ledger: LedgerReader, machine: str = "") -> None:
        """Read them from the ledger; `machine` leaves out trials of another one."""
        self._trials: dict[int, list[TrialRow]] = {}
        for trial in ledger.ended_trials():
            if ran_on(trial, machine):
                self._trials.setdefault(trial.subject, []).append(trial)
        facts = ledger.noise_facts()
        self._noise = _noise(facts)
        self.noise = facts.get("sigma")
        self.paired_noise = facts.get("paired")
        self._decided = {row.number: row for row in ledger.experiments() if row.state == "decided"}

    def added(self, attempts: Sequence[Attempt], incumbent: Attempt) -> tuple[list[Attempt], Attempt]:
        """Return the attempts and the incumbent with their trials and differences."""
        line = set(self._line(incumbent.experiment))
        found = [self._with_trials(one, one.experiment in line) for one in attempts]
        return found, self._with_trials(incumbent, True)

    def _with_trials(self, attempt: Attempt, in_line: bool) -> Attempt:
        number, row = attempt.experiment, self._decided.get(attempt.experiment)
        ended = self._trials.get(number, [])
        own = [trial for trial in ended if trial.experiment == number]
        raw = standing = None
        if number and row is not None and row.decided is not None:
            against = int(row.judged.get("against", row.parent))
            # With what was known at the verdict, so that what is said of an experiment never changes.
            then = [trial for trial in self._trials.get(against, []) if _before(trial, row.decided)]
            raw = _difference(own, then, against, _noise(row.judged))
            if in_line:
                # A kept change was chosen by its own trials, so they are low by selection wherever there are others.
                mine, before = _unchosen(ended, number), self._trials.get(row.parent, [])
                standing = _difference(mine, _unchosen(before, row.parent), row.parent, self._noise)
        repeats = [trial for trial in ended if trial.experiment != number]
        return changed(attempt, trials=_figures(own), raw=raw, repeats=_figures(repeats), standing=standing)

    def _line(self, incumbent: int) -> Iterable[int]:
        """Return the numbers of the changes that the incumbent consists of."""
        at = incumbent
        while at and at in self._decided:
            yield at
            at = self._decided[at].parent


def _difference(
    mine: Sequence[TrialRow], others: Sequence[TrialRow], against: int, noise: tuple[Noise, PairedNoise] | None
) -> PairedDifference | None:
    """Compare trials by generalised least squares (`judge.paired`); plain means where the noise is not known."""
    one, two = _points(mine), _points(others)
    if not one or not two:
        return None
    if noise is None:
        shared = {seed for seed, _ in one} & {seed for seed, _ in two}
        if shared:
            one, two = ([(seed, bpb) for seed, bpb in side if seed in shared] for side in (one, two))
        value = sum(bpb for _, bpb in one) / len(one) - sum(bpb for _, bpb in two) / len(two)
        return PairedDifference(value, None, against, _figures(others))
    found = compare(one, two, *noise)
    return PairedDifference(found.value, found.error, against, _figures(others))


def changed(attempt: Attempt, **values: Any) -> Attempt:
    """Return the attempt with other values in some fields.

    A source that the ledger reads each time stays one: `replace` alone would read and keep it.
    """
    source = attempt.__dict__.get("_read_source")
    return replace(attempt, **values) if source is None else replace(attempt, source=source, **values)


def _unchosen(trials: Sequence[TrialRow], number: int) -> Sequence[TrialRow]:
    """Return the trials that did not decide on their source, all where there are no others."""
    return [trial for trial in trials if trial.experiment != number or number == 0] or trials


def _before(trial: TrialRow, moment: float) -> bool:
    return trial.ended is not None and trial.ended <= moment


def _points(trials: Sequence[TrialRow]) -> list[tuple[int, float]]:
    return [(one.seed, one.val_bpb) for one in trials if one.status == "ok" and one.val_bpb is not None]


def _figures(trials: Sequence[TrialRow]) -> tuple[TrialFigures, ...]:
    names = ("steps", "tokens", "train_seconds")
    return tuple(
        TrialFigures(
            one.seed, one.val_bpb, **{name: one.result.get(name) for name in names}, train_loss=_last_loss(one)
        )
        for one in trials
    )


def _last_loss(trial: TrialRow) -> float | None:
    """Return the mean training loss over the last third of a trial; None where it logged none there."""
    curve = trial.result.get("curve") or ()
    known = [float(loss) for loss in curve[len(curve) - len(curve) // 3 :] if loss is not None]
    return sum(known) / len(known) if known else None


def _noise(facts: Mapping[str, Any]) -> tuple[Noise, PairedNoise] | None:
    """Return the noises that the judge noted with a decision; None where it noted none."""
    try:
        sigma, paired = float(facts["sigma"]), float(facts["paired"])
        if min(sigma, paired) <= 0.0:
            return None
        noise = Noise(sigma, float(facts["dof"]), 0, "a decision of the judge")
        return noise, PairedNoise(paired, float(facts["paired_dof"]), 0)
    except (KeyError, TypeError, ValueError):
        return None
