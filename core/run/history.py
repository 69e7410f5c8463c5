"""A run as researchers see it: ledger rows turned into the history that they are asked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from autoresearch.core.proposal import Attempt, Finding, History, InFlight
from autoresearch.core.run.trial_notes import last_profile, loss_curve
from autoresearch.core.store.exports import trial_folder
from autoresearch.core.store.rows import ExperimentRow


class StoredAttempt(Attempt):
    """An attempt that reads its source from the ledger each time: all sources of a long run would fill the memory."""

    @property
    def source(self) -> str:
        """The train file."""
        read: Callable[[], str] = self.__dict__["_read_source"]
        return read()

    @source.setter
    def source(self, value: str | Callable[[], str]) -> None:
        # The frozen dataclass's own __init__ arrives here, with a reader from `attempt_of`, or with a text from
        # `dataclasses.replace`.
        self.__dict__["_read_source"] = value if callable(value) else partial(str, value)


def attempt_of(row: ExperimentRow, source: str | Callable[[], str]) -> Attempt:
    """Return a decided experiment as an attempt. `source` is its train file, or reads it whenever it is asked for."""
    return StoredAttempt(
        experiment=row.number,
        source=source,  # type: ignore[arg-type]
        status=row.status or "discard",
        reason=row.reason or "",
        hypothesis=row.hypothesis,
        category=row.category,
        researcher=row.researcher,
        predicted_delta=row.predicted_delta,
        val_bpb=row.val_bpb,
        estimate=row.estimate,
        delta=row.delta,
        parent=row.parent,
        parameters=row.parameters,
        metrics=row.metrics,
        origin=row.origin,
    )


def in_flight_of(row: ExperimentRow, source: str) -> InFlight:
    """Return an undecided experiment as researchers see it."""
    return InFlight(
        experiment=row.number,
        source=source,
        hypothesis=row.hypothesis,
        category=row.category,
        researcher=row.researcher,
        predicted_delta=row.predicted_delta,
        parent=row.parent,
        parameters=row.parameters,
        origin=row.origin,
    )


def with_notes(attempt: Attempt, run_folder: Path, config: Mapping[str, Any]) -> Attempt:
    """Add its first trial's loss curve and the last profile to an attempt's metrics, where there are any."""
    curve = loss_curve(trial_folder(run_folder, attempt.experiment, 1), config["train_seconds"])
    profile = last_profile(run_folder.parent, config["backend"], config["preset"], attempt.source)
    notes = {name: text for name, text in (("loss_curve", curve), ("profile", profile)) if text}
    return replace(attempt, metrics={**attempt.metrics, **notes})


def history_of(
    config: Mapping[str, Any],
    program: str,
    attempts: Sequence[Attempt],
    incumbent: Attempt,
    findings: Sequence[Finding] = (),
    in_flight: Sequence[InFlight] = (),
    thinking: int = 0,
) -> History:
    """Return the history of a run. `config` is the run's, as the ledger holds it."""
    return History(
        program=program,
        backend=config["backend"],
        device=config["device"],
        preset=config["preset"],
        budget_seconds=config["train_seconds"],
        seed=config["seed"],
        vocabularies=tuple(config["vocabularies"]),
        incumbent=incumbent,
        attempts=tuple(attempts),
        in_flight=tuple(in_flight),
        thinking=thinking,
        findings=tuple(findings),
    )
