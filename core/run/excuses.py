"""Trials that were run again, unjudged, and the excuses that were used up by it.

A train file can make itself slow, or fail in a device's words, when it sees that it does badly. So a trial is excused
once: every further time would be one more draw for its file. An excuse belongs to one file in one experiment: a trial
of the best file, which an experiment asks for or an idle device runs before it, takes none from the candidate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from autoresearch.core.run.rerun_policy import EXCUSES, FREE_RERUNS, RERUNS_PER_EXPERIMENT
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.rows import TrialRow

REPEATED = "trial repeated"
"""Kind of the ledger's note on a trial that is run again."""

Key = tuple[int, int, int, int]


def key_of(trial: TrialRow) -> Key:
    """Return what a trial is known by. A row that never ended may be taken over by another trial of its experiment."""
    return trial.experiment, trial.k, trial.subject, trial.seed


class Excuses:
    """Counts the excuses of a run, those of earlier invocations included."""

    def __init__(self, ledger: Ledger) -> None:
        """Read the notes of earlier invocations."""
        self._ledger = ledger
        self._again: set[Key] = set()
        self._used: Counter[tuple[int, int]] = Counter()
        self._paid = 0
        for number, told in ledger.noted(REPEATED):
            self._count(number, told)

    def excused(self, trial: TrialRow) -> bool:
        """Tell whether this trial was run again already."""
        return key_of(trial) in self._again

    def used_up(self, trial: TrialRow) -> bool:
        """Tell whether this trial's file has no excuse left in its experiment.

        Every trial of the baseline has one of its own: nothing can be won by it.
        """
        used = self._used[trial.experiment, trial.subject]
        return self.excused(trial) or (trial.experiment != 0 and used >= EXCUSES)

    def too_many(self, decided: int) -> bool:
        """Tell whether the run has paid for as many slow trials as it may after `decided` experiments."""
        return self._paid >= FREE_RERUNS + RERUNS_PER_EXPERIMENT * decided

    def note(self, trial: TrialRow, reason: str, *, idle: bool, by_machine: bool) -> None:
        """Record that a trial is run again.

        One on an `idle` device costs the run nothing. A sleep, or a device that was found gone, is `by_machine` and no
        file's doing, so that no excuse is used up (see `losses` for files that bring devices down).
        """
        told = {"k": trial.k, "subject": trial.subject, "seed": trial.seed, "reason": reason}
        # Under the name that it has in ledgers of earlier versions.
        told |= {"idle": idle, "slept": by_machine}
        self._ledger.note(REPEATED, trial.experiment, told)
        self._count(trial.experiment, told)

    def _count(self, number: int, told: Mapping[str, Any]) -> None:
        if told.get("slept"):
            return
        # Ledgers of earlier versions do not say which file it was.
        subject = told.get("subject", number)
        self._used[number, subject] += 1
        self._paid += not told.get("idle")
        if "seed" in told:
            self._again.add((number, told["k"], subject, told["seed"]))
