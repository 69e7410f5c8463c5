"""From the ledger to what a judge looks at."""

from __future__ import annotations

from autoresearch.core.judge.decision import Evidence, Measured, Side
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, TrialRow


def gather_evidence(ledger: LedgerReader, row: ExperimentRow, seed: int) -> Evidence:
    """All that is measured of this candidate, of the incumbent and of the baseline. `seed` is the run's."""
    incumbent = None if row.number == 0 else ledger.incumbent()
    asked = [t for t in ledger.trials(experiment=row.number) if t.status is not None and t.started >= row.created]
    return Evidence(
        candidate=_side(ledger, row),
        incumbent=None if incumbent is None else _side(ledger, incumbent),
        baseline=_side(ledger, ledger.experiment(0)),
        seed=seed,
        decided=max(0, row.number - 1),
        asked=len(asked),
    )


def finished_trials(ledger: LedgerReader, row: ExperimentRow) -> list[TrialRow]:
    """Ended trials of an experiment's source, but not those of a baseline that was started again since."""
    trials = ledger.trials(subject=row.number)
    return [trial for trial in trials if trial.status is not None and trial.started >= row.created]


def _side(ledger: LedgerReader, row: ExperimentRow) -> Side:
    measured = tuple(
        Measured(trial.role, trial.seed, trial.status, trial.val_bpb, trial.result.get("reason"))
        for trial in finished_trials(ledger, row)
        if trial.status is not None
    )
    return Side(row.number, ledger.text(row.source_sha256), measured)
