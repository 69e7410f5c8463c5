"""Trials that lost their device or their machine, and when such a trial is given up.

Its device's end says nothing of a train file. But a file that brings down every device that it runs on would be run
again for ever, night after night. So a trial that has lost as many as `GIVEN_UP_AFTER` counts as a crash.

A machine that dies takes all of its trials along. A loss in which other files' trials were lost too, at about the same
time, is therefore no sign against any of them.
"""

from __future__ import annotations

import time
from typing import Any

from autoresearch.core.run.excuses import key_of
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.rows import TrialRow

LOST = "trial lost"
"""Kind of the ledger's note on a trial that lost its device or its machine."""
GIVEN_UP_AFTER = 3
"""Losses of one trial, no other file's at the same time, after which it is not run again."""
SAME_TIME_SECONDS = 60.0
"""Seconds within which the losses of several trials count as one: the end of a node is not noticed at once."""


class Losses:
    """Counts the losses of a run's trials, those of earlier invocations included."""

    def __init__(self, ledger: Ledger) -> None:
        """Read the notes of earlier invocations."""
        self._ledger = ledger
        # Only losses that a file may have caused have a time. Those of earlier versions do not say which file ran.
        self._known: list[dict[str, Any]] = [
            {"experiment": number, **told} for number, told in ledger.noted(LOST) if "at" in told
        ]

    def note(self, trial: TrialRow, reason: str, *, by_file: bool = True) -> None:
        """Record that a trial lost its device or its machine; `by_file` is false where no file can have caused it."""
        told: dict[str, Any] = {"k": trial.k, "subject": trial.subject, "seed": trial.seed, "reason": reason}
        if by_file:
            told["at"] = time.time()
            self._known.append({"experiment": trial.experiment, **told})
        self._ledger.note(LOST, trial.experiment, told)

    def given_up(self, trial: TrialRow) -> str | None:
        """Return in words why a trial is not run again; None where it is.

        Only a candidate's own trial is given up: the baseline and the best file have run well before.
        """
        if trial.subject != trial.experiment or trial.experiment == 0:
            return None
        mine = [one for one in self._known if _key_of(one) == key_of(trial)]
        alone = [one for one in mine if not self._shared(one)]
        if len(alone) < GIVEN_UP_AFTER:
            return None
        return (
            f"its trial lost its device {len(mine)} times, so it may be what brings devices down; the last time: "
            f"{mine[-1]['reason']}"
        )

    def _shared(self, loss: dict[str, Any]) -> bool:
        """Tell whether another file lost its device at about the same time."""
        return any(
            other["subject"] != loss["subject"] and abs(other["at"] - loss["at"]) <= SAME_TIME_SECONDS
            for other in self._known
        )


def _key_of(loss: dict[str, Any]) -> tuple[Any, ...]:
    return loss["experiment"], loss["k"], loss["subject"], loss["seed"]
