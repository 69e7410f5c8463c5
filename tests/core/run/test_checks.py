"""When the best file is measured again: before the first experiment of every forty that can ask for it."""

from __future__ import annotations

import pytest

from autoresearch.core.judge.decision import Decision, RunTrial
from autoresearch.core.judge.racing import CHECK_EVERY
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.evidence import gather_evidence
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.trial.request import TrialResult

FIRST = CHECK_EVERY + 1
"""Number of the first experiment that checks the best file."""


@pytest.fixture
def ledger(tmp_path):
    """A run with a baseline, and a stack on its way, number 2."""
    with Ledger(tmp_path / "t") as ledger:
        ledger.create("t", {"backend": "null", "preset": "demo", "seed": 7}, "base")
        propose(ledger, 0)
        measure(ledger, 0, 0)
        ledger.decide(0, Decision("keep", 1.0, None, ""), ledger.trials(experiment=0)[0])
        propose(ledger, 2)
        measure(ledger, 2, 2)
        yield ledger


def propose(ledger, number):
    more = {"commit": "c", "fingerprint": str(number), "program": "", "created": ledger.now()}
    ledger.propose(number, Proposal(f"x = {number}", "", "shape"), parent=0, **more)


def measure(ledger, experiment, subject):
    trial = ledger.start_trial(
        experiment, RunTrial("candidate" if experiment == subject else "incumbent", 7), subject=subject
    )
    ledger.score(
        experiment, trial.k, TrialResult(status="ok", val_bpb=1.0, seed=7, backend="null", preset="demo", machine="m")
    )


def due(ledger, number, against=None):
    return gather_evidence(ledger, ledger.experiment(number), 7, "m", against).check_due


def test_the_first_of_every_forty_checks_and_is_asked_the_same_again(ledger):
    for number in (3, FIRST, FIRST + 1, FIRST + CHECK_EVERY):
        propose(ledger, number)
    assert [due(ledger, number) for number in (0, 2, 3, FIRST)] == [False, False, False, True]
    measure(ledger, FIRST, 0)
    assert [due(ledger, number) for number in (FIRST, FIRST + 1, FIRST + CHECK_EVERY)] == [True, False, True]


def test_an_edit_of_a_stack_and_a_withdrawn_number_leave_the_check_to_the_next(ledger):
    propose(ledger, FIRST)
    propose(ledger, FIRST + 1)
    assert not due(ledger, FIRST, against=2)
    measure(ledger, FIRST, 2)  # of the stack, which is no best file
    assert due(ledger, FIRST + 1)
    propose(ledger, FIRST + CHECK_EVERY)
    propose(ledger, FIRST + CHECK_EVERY + 1)
    ledger.withdraw(FIRST + CHECK_EVERY, "a test")
    assert due(ledger, FIRST + CHECK_EVERY + 1)


def test_a_trial_that_an_idle_device_ran_before_the_experiment_is_no_check(ledger):
    propose(ledger, FIRST - 1)
    trial = ledger.start_repeat(FIRST, RunTrial("incumbent", 9), subject=0)
    result = TrialResult(status="ok", val_bpb=1.0, seed=9, backend="null", preset="demo", machine="m")
    ledger.score(FIRST, trial.k, result, repeat=True)
    propose(ledger, FIRST)
    propose(ledger, FIRST + 1)
    assert due(ledger, FIRST) and due(ledger, FIRST + 1)
