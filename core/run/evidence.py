"""Measurements read from the ledger: evidence for the judge, the threshold for audits, and the check of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoresearch.core.judge.decision import Evidence, Measured, Side
from autoresearch.core.judge.paired import Raced
from autoresearch.core.judge.race import SAME_MARGIN
from autoresearch.core.judge.racing import CHECK_EVERY
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow, TrialRow, processors, ran_on
from autoresearch.core.trial.audit import pooled
from autoresearch.core.trial.request import AuditResult, TrialResult


def gather_evidence(
    ledger: LedgerReader, row: ExperimentRow, seed: int, machine: str = "", against: int | None = None
) -> Evidence:
    """Collect every measurement of this candidate, of the incumbent and of the baseline. `seed` is the run's.

    `machine` is what trials run on now: those of another one are left out. "" takes all. `against` is an experiment
    that takes the incumbent's place, decided or not; nothing is known to come before it.
    """
    incumbent = None if row.number == 0 else ledger.incumbent()
    before = None if incumbent is None or against is not None else ledger.keep_before(incumbent.number)
    best = None if incumbent is None else side_of(ledger, incumbent, machine)
    if best is not None and against is not None:
        incumbent = ledger.experiment(against)
        side = side_of(ledger, incumbent, machine)
        # One without a verdict has no estimate; the judge would take its machine for a new one.
        best = side if side.estimate is not None else replace(side, estimate=best.estimate)
    asked = [t for t in ledger.trials(experiment=row.number) if t.status is not None and t.started >= row.created]
    baseline = ledger.experiment(0)
    return Evidence(
        candidate=_audited(ledger, row, _own(side_of(ledger, row, machine)), machine),
        incumbent=best,
        baseline=side_of(ledger, baseline, machine),
        seed=seed,
        asked=len(asked),
        roles=tuple(trial.role for trial in asked if ran_on(trial, machine)),
        check_due=against is None and _check_due(ledger, row.number),
        predecessor=None if before is None else side_of(ledger, before, machine),
        repeats=gather_repeats(ledger, machine),
        raced=gather_raced(ledger, machine),
        pending=() if incumbent is None else _pending(ledger, incumbent.number, row.number),
        facts=ledger.last_facts(),
    )


def _check_due(ledger: LedgerReader, number: int) -> bool:
    """Tell whether the incumbent is measured again before this experiment: the first of CHECK_EVERY that can ask.

    An edit of a stack cannot, which is compared with the stack, and a number may have been withdrawn.
    """
    # By numbers and not by counting decisions: the same experiment must get the same answer when it is asked about
    # again, whatever was decided meanwhile.
    first = (number - 1) // CHECK_EVERY * CHECK_EVERY + 1
    return first > 1 and not ledger.remeasured(first, number)


def gather_repeats(ledger: LedgerReader, machine: str = "") -> tuple[tuple[Measured, ...], ...]:
    """Return groups of trials, each of one source and none chosen by its result; the baseline's group is the first."""
    groups = [_unchosen(group) for group in ledger.repeats() if group[0].subject != 0]
    return (
        tuple(_measured(trial) for trial in finished_trials(ledger, ledger.experiment(0), machine)),
        *(tuple(_measured(trial) for trial in group if ran_on(trial, machine)) for group in groups),
    )


def gather_raced(ledger: LedgerReader, machine: str = "") -> tuple[Raced, ...]:
    """Return the paired differences of decided candidates with trials at several seeds, as the judge noted them.

    `machine` leaves out those that were measured on another one.
    """
    return tuple(
        Raced(tuple(float(one) for one in facts["differences"]), facts.get("cut"))
        for facts in ledger.raced_facts(machine)
        if facts.get("differences")
    )


def _pending(ledger: LedgerReader, incumbent: int, experiment: int) -> tuple[int, ...]:
    """Return the seeds of the incumbent's trials that other undecided experiments have under way.

    Trials of `experiment` itself are left out: after a crash it is the one that starts them again.
    """
    others = {row.number for row in ledger.undecided() if row.number != experiment}
    trials = ledger.trials(subject=incumbent) if others else []
    return tuple(trial.seed for trial in trials if trial.status is None and trial.experiment in others)


def finished_trials(ledger: LedgerReader, row: ExperimentRow, machine: str = "") -> list[TrialRow]:
    """Return the ended trials of an experiment's source, without those of a baseline before it was restarted."""
    trials = ledger.trials(subject=row.number)
    return [t for t in trials if t.status is not None and t.started >= row.created and ran_on(t, machine)]


def _unchosen(group: list[TrialRow]) -> list[TrialRow]:
    """Drop the first trial: it decided whether there would be others, so its result is low by selection."""
    return [trial for trial in group if trial.status is not None][1:]


def side_of(ledger: LedgerReader, row: ExperimentRow, machine: str = "") -> Side:
    """Return an experiment's source and every measurement of it on `machine`."""
    trials = finished_trials(ledger, row, machine)
    # An estimate rests on the experiment's own trials. Without any of those here, it is about another machine.
    here = any(trial.experiment == row.number for trial in trials)
    return Side(
        row.number,
        ledger.text(row.source_sha256),
        tuple(_measured(trial) for trial in trials),
        row.category,
        row.estimate if here else None,
    )


def _own(side: Side) -> Side:
    """Leave out trials that others have asked for, of a stack that they are edits of: a race counts its own alone."""
    return replace(side, trials=tuple(trial for trial in side.trials if trial.own))


def _audited(ledger: LedgerReader, row: ExperimentRow, side: Side, machine: str) -> Side:
    """Hold a candidate's audits against each other: an advantage too small for one of them shows in their sum."""
    results = [trial.result for trial in finished_trials(ledger, row, machine) if trial.status == "ok"]
    words = pooled([AuditResult.model_validate(result["audit"]) for result in results if result.get("audit")])
    if words is None or row.number == 0 or not side.trials:  # the baseline is what the tolerance comes from
        return side
    return replace(side, trials=(*side.trials[:-1], replace(side.trials[-1], status="invalid", reason=words)))


def _measured(trial: TrialRow) -> Measured:
    if trial.status is None:
        raise ValueError("a trial that has not ended is no evidence")
    result = trial.result
    own = trial.experiment == trial.subject
    return Measured(
        *(trial.role, trial.seed, trial.status, trial.val_bpb, result.get("reason"), result.get("tokens"), own),
        processors(result),
    )


def audit_threshold(ledger: LedgerReader, experiment: int, seed: int) -> float | None:
    """Return the val_bpb from which on a trial of this experiment needs no audit; None where all do.

    A change is kept when it is below its incumbent at shared seeds, or for less code within `SAME_MARGIN` sigmas of it
    (`race.next_step`). So it rests on trials below the threshold, the incumbent's highest trial, which are all audited;
    a trial above it only speaks against its source. At a seed where the incumbent has no trial yet nothing is known of
    the part of the seed, so that every trial is audited. So is every trial of a source that has a result already: their
    differences tell how large the noise is, against its source or not. While other experiments have trials, the
    incumbent may be demoted, so the one before it counts as well.
    """
    best = ledger.incumbent()
    if best is None or not any(t.seed == seed and t.val_bpb is not None for t in ledger.trials(subject=best.number)):
        return None
    if any(trial.val_bpb is not None for trial in ledger.trials(subject=experiment)):
        return None
    others = [row for row in ledger.undecided() if row.number != experiment and row.state != "proposed"]
    before = ledger.keep_before(best.number) if others else None
    levels = [level for row in (best, before) if row is not None for level in _levels(ledger, row)]
    sigmas = [
        float(facts["sigma"]) for facts in (ledger.experiment(0).judged, ledger.noise_facts()) if "sigma" in facts
    ]
    return max(levels) + SAME_MARGIN * max(sigmas, default=0.0) if levels else None


def _levels(ledger: LedgerReader, row: ExperimentRow) -> list[float]:
    """Return every trial of a source and its estimate, in bits per byte."""
    measured = [trial.val_bpb for trial in ledger.trials(subject=row.number) if trial.val_bpb is not None]
    return [*measured, *([] if row.estimate is None else [row.estimate])]


def ignores_seed(result: TrialResult, same: Sequence[TrialRow]) -> str | None:
    """Return a warning when two seeds gave the same weights or val_bpb: such repeats look less noisy than they are.

    `same` are earlier trials of the result's source. The order of the training text follows the seed as well, so this
    happens only to a file that learns nothing from the text or orders it by itself, and takes a fixed number of steps.
    """
    if result.status != "ok":
        return None
    for trial in same:
        if trial.status != "ok" or trial.seed == result.seed:
            continue
        weights = trial.result.get("weights_sha256")
        if weights is not None and weights == result.weights_sha256:
            return f"seeds {trial.seed} and {result.seed} give the same weights: the train file ignores its seed"
        if trial.val_bpb is not None and trial.val_bpb == result.val_bpb:
            return f"seeds {trial.seed} and {result.seed} give the same val_bpb: the train file ignores its seed"
    return None
