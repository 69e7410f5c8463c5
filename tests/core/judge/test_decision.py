from __future__ import annotations

import pytest

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.judge.decision import Decision, Evidence, Measured, RunTrial, Side
from autoresearch.core.judge.greedy import Greedy


def side(experiment, *trials, role="candidate"):
    measured = tuple(Measured(role, 3, status, bpb, reason) for status, bpb, reason in trials)
    return Side(experiment, "source", measured)


def ok(bpb):
    return ("ok", bpb, None)


def consider(candidate, incumbent=None):
    baseline = incumbent or candidate
    return Greedy().consider(Evidence(candidate, incumbent, baseline, seed=3, asked=0))


def test_the_baseline_is_measured_once_with_the_runs_seed_and_kept():
    assert consider(side(0)) == RunTrial("baseline", 3)
    assert consider(side(0, ok(1.5))) == Decision("keep", 1.5, None, "the baseline")


def test_a_candidate_is_measured_once():
    assert consider(side(1), side(0, ok(1.5))) == RunTrial("candidate", 3)


@pytest.mark.parametrize(("bpb", "status"), [(1.4999999, "keep"), (1.5, "discard"), (1.6, "discard")])
def test_only_a_strictly_lower_number_is_kept(bpb, status):
    decision = consider(side(1, ok(bpb)), side(0, ok(1.5)))
    assert decision.status == status
    assert decision.estimate == bpb
    assert decision.delta == pytest.approx(bpb - 1.5)


@pytest.mark.parametrize("status", ["crash", "invalid", "timeout"])
def test_a_trial_that_is_not_ok_is_decided_at_once_with_its_reason(status):
    decision = consider(side(1, (status, None, "in words")), side(0, ok(1.5)))
    assert decision == Decision(status, None, None, "in words")
    assert consider(side(0, (status, None, "in words"))).status == status


def test_a_number_beside_a_status_that_is_not_ok_is_not_believed():
    assert consider(side(1, ("invalid", 0.1, "it looked ahead")), side(0, ok(1.5))).status == "invalid"


def test_an_ok_trial_without_a_number_is_invalid():
    assert consider(side(1, ok(None)), side(0, ok(1.5))).status == "invalid"


def test_the_best_file_that_fails_on_a_new_machine_is_not_held_against_a_candidate():
    failed = ("crash", None, "in words")
    candidate = side(2, ok(1.5))
    assert consider(candidate, side(1)) == RunTrial("incumbent", 3)
    assert consider(candidate, side(1, failed)) == RunTrial("incumbent", 3)
    assert consider(candidate, side(1, failed, ok(1.6))).status == "keep"
    with pytest.raises(PrerequisiteError, match=r"experiment 1 does not run on this machine: in words\."):
        consider(candidate, side(1, failed, failed, failed))
