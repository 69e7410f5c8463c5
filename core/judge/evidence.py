"""From the ledger to what a judge looks at."""

from __future__ import annotations

from autoresearch.core.judge.decision import Evidence, Measured, Side
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, TrialRow


def gather_evidence(ledger: LedgerReader, row: ExperimentRow, seed: int) -> Evidence:
    """All that is measured of this candidate, of the incumbent and of the baseline. `seed` is the run's."""
    incumbent = None if row.number == 0 else ledger.incumbent()
    before = None if incumbent is None else ledger.keep_before(incumbent.number)
    asked = [t for t in ledger.trials(experiment=row.number) if t.status is not None and t.started >= row.created]
    baseline = ledger.experiment(0)
    return Evidence(
        candidate=side_of(ledger, row),
        incumbent=None if incumbent is None else side_of(ledger, incumbent),
        baseline=side_of(ledger, baseline),
        seed=seed,
        decided=max(0, row.number - 1),
        asked=len(asked),
        roles=tuple(trial.role for trial in asked),
        predecessor=None if before is None else side_of(ledger, before),
        repeats=gather_repeats(ledger),
        extra=ledger.extra_trials(),
        facts=ledger.last_facts(),
    )


def gather_repeats(ledger: LedgerReader) -> tuple[tuple[Measured, ...], ...]:
    """Trials of one source each that were not chosen by their result, the baseline's first."""
    groups = [group for group in ledger.repeats() if group[0].subject != 0]
    return (
        tuple(_measured(trial) for trial in finished_trials(ledger, ledger.experiment(0))),
        *(tuple(_measured(trial) for trial in _unchosen(group)) for group in groups),
    )


def finished_trials(ledger: LedgerReader, row: ExperimentRow) -> list[TrialRow]:
    """Ended trials of an experiment's source, but not those of a baseline that was started again since."""
    trials = ledger.trials(subject=row.number)
    return [trial for trial in trials if trial.status is not None and trial.started >= row.created]


def _unchosen(group: list[TrialRow]) -> list[TrialRow]:
    """Without the first, which decided whether there would be others and so lies low."""
    return [trial for trial in group if trial.status is not None][1:]


def side_of(ledger: LedgerReader, row: ExperimentRow) -> Side:
    """An experiment's source and everything that is measured of it."""
    return Side(
        row.number,
        ledger.text(row.source_sha256),
        tuple(_measured(trial) for trial in finished_trials(ledger, row)),
        row.category,
        row.estimate,
        float(row.judged.get("n", 1)),
    )


def _measured(trial: TrialRow) -> Measured:
    if trial.status is None:
        raise ValueError("a trial that has not ended is no evidence")
    result = trial.result
    own = trial.experiment == trial.subject
    return Measured(
        trial.role, trial.seed, trial.status, trial.val_bpb, result.get("reason"), result.get("tokens"), own
    )
