"""Which trials need no audit: those whose val_bpb is too high to speak for a keep, whatever comes after."""

from __future__ import annotations

from autoresearch.core.judge.race import SAME_MARGIN
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow


def audit_bar(ledger: LedgerReader, experiment: int) -> float | None:
    """The val_bpb from which on a trial of this experiment is not audited; None while there is nothing to compare with.

    A keep needs a mean below its incumbent's, or for less code within `SAME_MARGIN` sigmas of it (`race.judge`). So it
    rests on trials below the bar, which are all audited; one above it only speaks against its source. While other
    experiments have trials, the incumbent may be demoted, so the keep before it counts as well.
    """
    best = ledger.incumbent()
    if best is None:
        return None
    others = [row for row in ledger.undecided() if row.number != experiment and row.state != "proposed"]
    before = ledger.keep_before(best.number) if others else None
    levels = [level for row in (best, before) if row is not None for level in _levels(ledger, row)]
    sigmas = [float(facts["sigma"]) for facts in (ledger.experiment(0).judged, ledger.last_facts()) if "sigma" in facts]
    return max(levels) + SAME_MARGIN * max(sigmas, default=0.0) if levels else None


def _levels(ledger: LedgerReader, row: ExperimentRow) -> list[float]:
    """The estimate, the mean of every trial of its source, and the last one, which may be another machine's."""
    measured = [trial.val_bpb for trial in ledger.trials(subject=row.number) if trial.val_bpb is not None]
    if not measured:
        return [] if row.estimate is None else [row.estimate]
    return [sum(measured) / len(measured), measured[-1], *([] if row.estimate is None else [row.estimate])]
