"""The judge that knows noise, on evidence made by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from autoresearch.core.judge.decision import Decision, Demotion, Evidence, Measured, RunTrial, Side
from autoresearch.core.judge.racing import CHECK_EVERY, Racing

SIGMA = 0.001


def measured(*values, role="candidate", own=True):
    return tuple(Measured(role, 0, "ok", value, None, 1000, own) for value in values)


BASELINE = Side(0, "x = 1 + 1", measured(1.0, 1.0 + SIGMA, role="baseline"), estimate=1.0, estimate_trials=8)
REPEATS = tuple(measured(1.0, 1.0 + SIGMA, 1.0 - SIGMA) for _ in range(10))  # sigma 0.001 with 20 degrees of freedom


def evidence(*values, roles=None, **more):
    side = Side(1, more.pop("source", "x = 2 + 2"), measured(*values), more.pop("category", "shape"))
    filled = {"roles": tuple(roles or ("candidate",) * len(values)), "repeats": REPEATS, "facts": {"wealth": 0.6}}
    return Evidence(side, BASELINE, BASELINE, **{"seed": 5, "decided": 1, "asked": len(values), **filled, **more})


def decide(*values, **more):
    return Racing().consider(evidence(*values, **more))


def test_the_baseline_is_measured_twice_and_the_noise_is_said():
    side = Side(0, "x")
    start = Evidence(side, None, side, seed=5, decided=0, asked=0)
    assert Racing().consider(start) == RunTrial("baseline", 5)
    once = Side(0, "x", measured(1.0, role="baseline"))
    assert Racing().consider(replace(start, candidate=once, baseline=once, asked=1)) == RunTrial("baseline", 6)
    both = Side(0, "x", measured(1.0, 1.002, role="baseline"))
    decision = Racing().consider(replace(start, candidate=both, baseline=both, asked=2))
    assert (decision.status, decision.estimate) == ("keep", pytest.approx(1.001))
    assert "noise (1 sigma)" in decision.reason


def test_a_candidate_that_does_not_stand_out_is_discarded_after_one_trial():
    for value in (1.01, 1.0, 1.0 - 0.5 * SIGMA):
        decision = decide(value)
        assert decision.status == "discard"
        assert "no clear gain" in decision.reason


def test_a_very_clear_winner_is_kept_after_one_trial():
    decision = decide(1.0 - 10 * SIGMA)
    assert decision.status == "keep"
    assert decision.facts["wealth"] > 0.6  # a keep earns


def test_a_promising_one_is_raced_with_a_fresh_seed_and_its_screening_is_not_counted_again():
    first = decide(1.0 - 2.2 * SIGMA)
    assert isinstance(first, RunTrial)
    assert first.role == "candidate"
    again = decide(1.0 - 2.2 * SIGMA, 1.0 + SIGMA)  # two trials whose mean is lower than the incumbent
    assert again.status == "discard"
    assert again.facts["measured"] == pytest.approx(SIGMA)
    held = decide(1.0 - 2.2 * SIGMA, 1.0 - 3 * SIGMA)
    assert held.status == "keep"
    assert held.facts["measured"] == pytest.approx(-3 * SIGMA)
    assert -3 * SIGMA < held.delta < 0  # shrunken


def test_a_race_takes_at_most_three_more_trials():
    values = [1.0 - 2.2 * SIGMA] + [1.0 - 0.9 * SIGMA] * 3
    for count in range(1, 5):
        step = decide(*values[:count])
        if isinstance(step, Decision):
            break
    assert isinstance(step, Decision)


def test_without_wealth_nothing_is_kept_by_luck_and_with_it_the_bar_is_lower():
    values = (1.0 - 2.2 * SIGMA, 1.0 - 2.0 * SIGMA)
    poor = Racing().consider(evidence(*values, facts={"wealth": 0.02}))
    rich = Racing().consider(evidence(*values, facts={"wealth": 2.0}))
    assert not (isinstance(poor, Decision) and poor.status == "keep")
    assert rich.status == "keep"


def test_less_code_is_kept_when_it_is_not_worse_and_only_then():
    same = decide(1.0 - 0.3 * SIGMA, category="simplification", source="x = 2")
    assert same.status == "keep"
    assert "less code" in same.reason
    assert decide(1.0 + 5 * SIGMA, category="simplification", source="x = 2").status == "discard"
    # Calling it a simplification is not enough.
    assert decide(1.0 - 0.3 * SIGMA, category="simplification", source="x = 2 + 2 + 2").status == "discard"


@pytest.mark.parametrize("status", ["crash", "invalid", "timeout"])
def test_a_failure_is_decided_at_once_and_costs_no_wealth(status):
    failed = Side(1, "x", (Measured("candidate", 0, status, None, "in words"),))
    decision = Racing().consider(replace(evidence(), candidate=failed, asked=1, roles=("candidate",)))
    assert (decision.status, decision.reason, decision.facts) == (status, "in words", {"wealth": 0.6})


def test_the_incumbent_is_measured_again_and_demoted_when_it_does_not_hold():
    due = {"decided": CHECK_EVERY, "predecessor": BASELINE}
    incumbent = Side(3, "x", measured(0.99), estimate=0.999, estimate_trials=1.0)
    assert Racing().consider(replace(evidence(), incumbent=incumbent, **due)).role == "incumbent"
    seen = {**due, "roles": ("incumbent",), "asked": 1}
    fallen = replace(incumbent, trials=incumbent.trials + measured(1.003, role="incumbent", own=False))
    step = Racing().consider(replace(evidence(), incumbent=fallen, **seen))
    assert isinstance(step, Demotion)
    assert step.experiment == 3
    holds = replace(incumbent, trials=incumbent.trials + measured(0.998, role="incumbent", own=False))
    assert Racing().consider(replace(evidence(), incumbent=holds, **seen)).role == "candidate"
    # With the predecessor in its place, the same evidence goes on with the candidate.
    assert Racing().consider(replace(evidence(), **{**seen, "predecessor": None})).role == "candidate"


def test_equal_evidence_gives_an_equal_answer():
    rng = random.Random(0)
    for _ in range(20):
        one = evidence(1.0 - rng.random() * 4 * SIGMA)
        assert Racing().consider(one) == Racing().consider(one)
