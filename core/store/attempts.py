"""The ledger's rows as researchers see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoresearch.core.proposal import Attempt, Finding, History
from autoresearch.core.store.rows import ExperimentRow


class _Read:
    """A field that holds a text, or what reads it whenever it is asked for; to others it is always a text."""

    def __get__(self, one: StoredAttempt | None, owner: type) -> Any:
        if one is None:
            return self
        held: str | Callable[[], str] = one.__dict__["_source"]
        return held if isinstance(held, str) else held()

    def __set__(self, one: StoredAttempt, value: str | Callable[[], str]) -> None:
        one.__dict__["_source"] = value


class StoredAttempt(Attempt):
    """An attempt whose source lies in the ledger: those of thousands of experiments are too much for memory."""

    source = _Read()


def attempt_of(row: ExperimentRow, source: str | Callable[[], str]) -> Attempt:
    """A decided experiment and its source, or what reads it when it is asked for."""
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


def history_of(
    config: Mapping[str, Any],
    program: str,
    attempts: Sequence[Attempt],
    incumbent: Attempt,
    findings: Sequence[Finding] = (),
) -> History:
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
        findings=tuple(findings),
    )
