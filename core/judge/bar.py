"""Which trials need no audit: those whose val_bpb is too high to speak for a keep, whatever comes after."""

from __future__ import annotations

from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow

SIGMAS = 3.0
"""Above everything that the incumbent, or the keep before it, has measured: room for a simplification, for noise and
for a demotion while the trial runs."""


def audit_bar(ledger: LedgerReader) -> float | None:
    """The val_bpb from which on a candidate's trial is not audited; None while there is nothing to compare with.

    A keep needs trials below its incumbent, and those are all audited: a trial above the bar only speaks against it.
    """
    best = ledger.incumbent()
    if best is None:
        return None
    rows = [best, *filter(None, [ledger.keep_before(best.number)])]
    levels = [level for row in rows for level in _levels(ledger, row)]
    sigmas = [float(facts["sigma"]) for facts in (ledger.experiment(0).judged, ledger.last_facts()) if "sigma" in facts]
    return max(levels) + SIGMAS * max(sigmas, default=0.0) if levels else None


def _levels(ledger: LedgerReader, row: ExperimentRow) -> list[float]:
    """The estimate, and every val_bpb that its source was measured at."""
    measured = [trial.val_bpb for trial in ledger.trials(subject=row.number)]
    return [float(level) for level in (row.estimate, row.val_bpb, *measured) if level is not None]
