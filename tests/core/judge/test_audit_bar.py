"""A trial that could become a keep is audited; one far above everything that the incumbent has measured is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.core.judge.bar import SIGMAS, audit_bar
from autoresearch.core.judge.decision import Decision, Demotion, RunTrial
from autoresearch.core.proposal import Proposal
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.trial.result import TrialResult


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "run") as ledger:
        ledger.create("run", {"backend": "null"}, "base")
        yield ledger


def keep(ledger: Ledger, number: int, *values: float, **facts: float) -> None:
    """An experiment that is kept after these trials."""
    names = {"parent": 0, "commit": f"c{number}", "fingerprint": f"f{number}", "program": "p", "created": float(number)}
    ledger.propose(number, Proposal(f"x = {number}", "try", "shape"), **names)  # type: ignore[arg-type]
    for seed, value in enumerate(values):
        trial = ledger.start_trial(number, RunTrial("candidate", seed), subject=number)
        ledger.score(number, trial.k, TrialResult(status="ok", val_bpb=value, seed=seed, backend="null", preset="demo"))
    mean = sum(values) / len(values)
    ledger.decide(number, Decision("keep", mean, None, "good", facts), ledger.trials(experiment=number)[0])


def test_before_there_is_an_incumbent_everything_is_audited(ledger: Ledger) -> None:
    assert audit_bar(ledger) is None


def test_the_bar_lies_some_sigmas_above_the_worst_that_the_incumbent_measured(ledger: Ledger) -> None:
    keep(ledger, 0, 2.00, 2.04, sigma=0.02)
    assert audit_bar(ledger) == pytest.approx(2.04 + SIGMAS * 0.02)


def test_after_a_keep_the_one_before_it_still_counts_for_it_may_become_the_incumbent_again(ledger: Ledger) -> None:
    keep(ledger, 0, 2.5, sigma=0.02)
    keep(ledger, 1, 2.0, sigma=0.03)
    assert audit_bar(ledger) == pytest.approx(2.5 + SIGMAS * 0.03)
    keep(ledger, 2, 1.5, sigma=0.03)
    assert audit_bar(ledger) == pytest.approx(2.0 + SIGMAS * 0.03)
    ledger.demote(Demotion(2, "it did not hold"), 1)
    assert audit_bar(ledger) == pytest.approx(2.5 + SIGMAS * 0.03)


def test_without_noise_the_bar_is_the_number_itself(ledger: Ledger) -> None:
    keep(ledger, 0, 2.0)
    assert audit_bar(ledger) == 2.0
