"""What a moving incumbent does to proposals that wait, and to results that come late."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoresearch.core.judge.decision import Decision, Judge
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.evidence import side_of
from autoresearch.core.run.run import Run
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trainfile.merge import reapply

REBASED = "rebased"
"""The parameter of an edit that is offered a second time: the experiment that had it first."""


def refit(run: Run, row: ExperimentRow) -> ExperimentRow | str:
    """A proposal that waits, as an edit of the present incumbent; in words why it is none. Does nothing if it is one.

    A proposal that does not fit is withdrawn.
    """
    incumbent = run.incumbent_number()
    if row.parent == incumbent:
        return row
    source = reapply(*(_source(run, number) for number in (row.number, row.parent, incumbent)))
    if source is None:
        reason = f"it edits experiment {row.parent}, and does not fit experiment {incumbent}, which is better now"
    else:
        before = run.ledger.tried_as(fingerprint(source))
        if before is None or before == row.number:
            return run.rebase(row, source, incumbent)
        reason = f"re-applied to experiment {incumbent} it is the same as experiment {before}"
    run.withdraw(row, reason)
    return reason


@dataclass(frozen=True)
class Offer:
    """An edit that deserves another trial, beside what was kept meanwhile."""

    proposal: Proposal
    parent: int


def second_chance(run: Run, judge: Judge, row: ExperimentRow, decision: Decision) -> Offer | None:
    """Another experiment with both edits, where a result came after the incumbent had moved.

    Asked before the decision is recorded.
    A discard gets it when the judge would not have discarded it against its own parent; a keep gets it because it
    throws out what was kept meanwhile. A discard gets it once.
    """
    incumbent = run.incumbent_number()
    if row.number == 0 or row.parent == incumbent:
        return None
    parent = run.ledger.experiment(row.parent)
    if decision.status == "discard" and REBASED not in row.parameters:
        before = side_of(run.ledger, parent, run.config.machine)
        evidence = replace(run.evidence(row), incumbent=before, predecessor=None)
        step = judge.consider(evidence)
        if isinstance(step, Decision) and step.status != "keep":
            return None
        edit, onto = row, incumbent
    elif decision.status == "keep" and parent.status == "keep":
        edit, onto = run.ledger.experiment(incumbent), row.number
    else:
        return None
    source = reapply(*(_source(run, number) for number in (edit.number, parent.number, onto)))
    if source is None or run.ledger.tried_as(fingerprint(source)) is not None:
        return None
    proposal = Proposal(
        source=source,
        hypothesis=f"{edit.hypothesis} (experiment {edit.number}, re-applied to experiment {onto})",
        category=edit.category,
        predicted_delta=edit.predicted_delta,
        researcher=edit.researcher,
        parameters={**edit.parameters, REBASED: edit.number},
        origin=edit.origin,
    )
    return Offer(proposal, onto)


def _source(run: Run, number: int) -> str:
    return run.ledger.text(run.ledger.experiment(number).source_sha256)
