"""Proposals and results that were made for an earlier incumbent, moved to the present one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoresearch.core.judge.decision import Decision, Judge
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.evidence import side_of
from autoresearch.core.run.merge import reapply
from autoresearch.core.run.run import Run
from autoresearch.core.store.inbox import SUBMISSION
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.trainfile.fingerprint import fingerprint

REBASED = "rebased"
"""Parameter of an edit that is tried a second time: the number of the experiment that had it first."""


@dataclass(frozen=True)
class Rebased:
    """A waiting proposal after `rebase_waiting`."""

    row: ExperimentRow | None
    """Its row, now an edit of the incumbent; None where it was withdrawn."""
    reason: str = ""
    """Why it was withdrawn."""


def rebase_waiting(run: Run, row: ExperimentRow) -> Rebased:
    """Make a waiting proposal an edit of the present incumbent, or withdraw it where it does not fit."""
    incumbent = run.incumbent_number()
    if row.parent == incumbent:
        return Rebased(row)
    source = reapply(*map(run.ledger.source, (row.number, row.parent, incumbent)))
    if source is None:
        reason = f"it edits experiment {row.parent}, and does not fit experiment {incumbent}, which is better now"
    else:
        before = run.ledger.tried_as(fingerprint(source))
        # The row's own source is in the ledger as well. Two edits that come to the same program on the new incumbent
        # would be one experiment twice.
        if before is None or before == row.number:
            return Rebased(run.rebase(row, source, incumbent))
        reason = f"re-applied to experiment {incumbent} it is the same as experiment {before}"
    run.withdraw(row, reason)
    return Rebased(None, reason)


@dataclass(frozen=True)
class CombinedProposal:
    """An edit to try again, on top of the improvement that was kept while its trial ran."""

    proposal: Proposal
    parent: int


def second_chance(run: Run, judge: Judge, row: ExperimentRow, decision: Decision) -> CombinedProposal | None:
    """Propose both edits together, where a result came after the incumbent had changed. Call before recording it.

    A discard gets a second chance once, and only when the judge would not have discarded it against its own parent.
    A kept change gets one because keeping it drops the improvement that was kept meanwhile.
    """
    incumbent = run.incumbent_number()
    if row.number == 0 or row.parent == incumbent:
        return None
    parent = run.ledger.experiment(row.parent)
    if decision.status == "discard" and REBASED not in row.parameters:
        before = side_of(run.ledger, parent, run.config.machine)
        # The judge is asked as if nothing had been kept meanwhile: only an edit that would have held against its own
        # parent is worth a trial on top of the new incumbent.
        evidence = replace(run.evidence(row), incumbent=before, predecessor=None)
        step = judge.consider(evidence)
        if isinstance(step, Decision) and step.status != "keep":
            return None
        edit, onto = row, incumbent
    elif decision.status == "keep" and parent.status == "keep":
        edit, onto = run.ledger.experiment(incumbent), row.number
    else:
        return None
    source = reapply(*map(run.ledger.source, (edit.number, parent.number, onto)))
    if source is None or run.ledger.tried_as(fingerprint(source)) is not None:
        return None
    proposal = Proposal(
        source=source,
        hypothesis=f"{edit.hypothesis} (experiment {edit.number}, re-applied to experiment {onto})",
        category=edit.category,
        predicted_delta=edit.predicted_delta,
        researcher=edit.researcher,
        # The submission has its verdict: that of the experiment which it became.
        parameters={**{k: v for k, v in edit.parameters.items() if k != SUBMISSION}, REBASED: edit.number},
        origin=edit.origin,
    )
    return CombinedProposal(proposal, onto)
