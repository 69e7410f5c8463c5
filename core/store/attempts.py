"""The ledger's rows as researchers see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.core.proposal import Attempt, History
from autoresearch.core.store.rows import ExperimentRow


def attempt_of(row: ExperimentRow, source: str) -> Attempt:
    """A decided experiment and its source."""
    return Attempt(
        experiment=row.number,
        source=source,
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
    )


def history_of(config: Mapping[str, Any], program: str, attempts: Sequence[Attempt], incumbent: Attempt) -> History:
    """What a researcher may know of a run that nobody writes; `config` is the run's, as the ledger holds it."""
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
    )
