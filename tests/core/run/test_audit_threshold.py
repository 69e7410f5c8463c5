"""A trial that could become a keep is audited; one far above everything that the incumbent has measured is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.core.judge import race
from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.judge.paired import Difference
from autoresearch.core.judge.race import SAME_MARGIN
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.evidence import audit_threshold
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.trial.request import TrialResult


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "run") as ledger:
        ledger.create("run", {"backend": "null"}, "base")
        yield ledger


def propose(ledger: Ledger, number: int) -> None:
    names = {"parent": 0, "commit": f"c{number}", "fingerprint": f"f{number}", "program": "p", "created": float(number)}
    ledger.propose(number, Proposal(f"x = {number}", "try", "shape"), **names)  # type: ignore[arg-type]


def keep(ledger: Ledger, number: int, *values: float, **facts: float) -> None:
    """An experiment that is kept after these trials."""
    propose(ledger, number)
    for seed, value in enumerate(values):
        trial = ledger.start_trial(number, RunTrial("candidate", seed), subject=number)
        ledger.score(number, trial.k, TrialResult(status="ok", val_bpb=value, seed=seed, backend="null", preset="demo"))
    mean = sum(values) / len(values)
    ledger.decide(number, Decision("keep", mean, None, "good", facts), ledger.trials(experiment=number)[0])


def test_before_there_is_an_incumbent_everything_is_audited(ledger: Ledger) -> None:
    assert audit_threshold(ledger, 0, 0) is None


def test_the_threshold_lies_half_a_sigma_above_the_incumbents_highest_trial(ledger: Ledger) -> None:
    keep(ledger, 0, 2.00, 2.02, sigma=0.02)
    assert audit_threshold(ledger, 1, 0) == pytest.approx(2.02 + SAME_MARGIN * 0.02)
    keep(ledger, 1, 1.92, 1.90, sigma=0.03)
    assert audit_threshold(ledger, 2, 0) == pytest.approx(1.92 + SAME_MARGIN * 0.03)


def test_at_a_seed_where_the_incumbent_has_no_result_everything_is_audited(ledger: Ledger) -> None:
    keep(ledger, 0, 2.00, 2.02, sigma=0.02)
    assert audit_threshold(ledger, 1, 7) is None
    propose(ledger, 1)
    ledger.start_trial(1, RunTrial("incumbent", 7), subject=0)
    assert audit_threshold(ledger, 1, 7) is None


def test_every_further_trial_of_a_source_is_audited_for_the_noise_is_learnt_from_them(ledger: Ledger) -> None:
    keep(ledger, 0, 2.00, 2.02, sigma=0.02)
    propose(ledger, 1)
    trial = ledger.start_trial(1, RunTrial("candidate", 0), subject=1)
    assert audit_threshold(ledger, 1, 0) is not None
    ledger.score(1, trial.k, TrialResult(status="ok", val_bpb=1.9, seed=0, backend="null", preset="demo"))
    assert audit_threshold(ledger, 1, 1) is None


def test_while_another_experiment_has_trials_its_incumbent_may_fall_and_the_one_before_counts(ledger: Ledger) -> None:
    keep(ledger, 0, 2.5, sigma=0.02)
    keep(ledger, 1, 2.0, sigma=0.02)
    propose(ledger, 2)
    propose(ledger, 3)
    assert audit_threshold(ledger, 3, 0) == pytest.approx(2.0 + SAME_MARGIN * 0.02)
    ledger.start_trial(2, RunTrial("candidate", 1), subject=2)
    assert audit_threshold(ledger, 3, 0) == pytest.approx(2.5 + SAME_MARGIN * 0.02)
    assert audit_threshold(ledger, 2, 0) == pytest.approx(2.0 + SAME_MARGIN * 0.02)


def test_without_noise_the_threshold_is_the_number_itself(ledger: Ledger) -> None:
    keep(ledger, 0, 2.0)
    assert audit_threshold(ledger, 1, 0) == 2.0


def test_a_trial_at_the_threshold_keeps_nothing_and_only_less_code_is_tried_again_after_it(ledger: Ledger) -> None:
    keep(ledger, 0, 2.00, 2.00, sigma=0.02)
    threshold = audit_threshold(ledger, 1, 0)
    assert threshold is not None
    seen = Difference(threshold - 2.0, 0.014, 10)
    # The further trials of a change that removes code are audited, as a test above shows.
    for removes_code, step in ((False, "discard"), (True, "candidate")):
        match = race.Match(seen, None, seen, 0.02, 0.014, race.FIRST_WEALTH, 0, removes_code=removes_code)
        assert race.next_step(match).step == step
