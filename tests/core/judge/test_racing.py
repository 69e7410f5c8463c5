"""The judge that knows noise, on evidence made by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from autoresearch.core.judge.decision import Decision, Demotion, Evidence, Measured, RunTrial, Side, Wait
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.options import JudgeOptions
from autoresearch.core.judge.paired import Raced
from autoresearch.core.judge.race import LOOKS, MAX_RACE, at_once_of, bid_of, screen_level
from autoresearch.core.judge.racing import Racing, standing_trials

SIGMA = 0.001


def measured(*values, role="candidate", own=True, seeds=(6, 5, 1000, 1001, 1002, 1003)):
    return tuple(Measured(role, seed, "ok", value, None, 1000, own) for seed, value in zip(seeds, values, strict=False))


BASELINE = Side(0, "x = 1 + 1", measured(1.0, 1.0 + SIGMA, role="baseline", seeds=(5, 6)), estimate=1.0)
REPEATS = tuple(measured(1.0, 1.0 + SIGMA, 1.0 - SIGMA) for _ in range(10))  # sigma 0.001 with 20 degrees of freedom
RACED = tuple(Raced((0.0005 * sign, -0.0005 * sign)) for sign in (1, -1) * 10)  # the paired noise is about 0.0007


def evidence(*values, roles=None, **more):
    """A candidate with these differences to the baseline: at seeds 6 and 5, then at seeds of its own."""
    levels = (1.0 + SIGMA, 1.0, 1.0, 1.0, 1.0, 1.0)
    trials = measured(*(level + value for level, value in zip(levels, values, strict=False)))
    side = Side(1, more.pop("source", "x = 2 + 2"), trials, more.pop("category", "shape"))
    filled = {"roles": tuple(roles or ("candidate",) * len(values)), "repeats": REPEATS, "raced": RACED}
    filled["facts"] = {"wealth": 0.6}
    return Evidence(side, BASELINE, BASELINE, **{"seed": 5, "asked": len(values), **filled, **more})


def decide(*values, **more):
    return Racing().consider(evidence(*values, **more))


def test_the_baseline_is_measured_twice_and_the_noise_is_said():
    side = Side(0, "x")
    start = Evidence(side, None, side, seed=5, asked=0)
    assert Racing().consider(start) == RunTrial("baseline", 5)
    once = Side(0, "x", measured(1.0, role="baseline"))
    assert Racing().consider(replace(start, candidate=once, baseline=once, asked=1)) == RunTrial("baseline", 6)
    both = Side(0, "x", measured(1.0, 1.002, role="baseline"))
    decision = Racing().consider(replace(start, candidate=both, baseline=both, asked=2))
    assert (decision.status, decision.estimate) == ("keep", pytest.approx(1.001))
    assert "noise (1 sigma)" in decision.reason


def test_a_candidate_is_screened_at_the_latest_seed_of_the_incumbent():
    assert decide() == RunTrial("candidate", 6)


def test_a_candidate_without_a_clear_gain_is_discarded_after_one_trial():
    for value in (0.01, 0.0, -0.2 * SIGMA):
        decision = decide(value)
        assert decision.status == "discard"
        assert "no clear gain" in decision.reason


def test_a_very_clear_gain_is_kept_after_one_trial():
    decision = decide(-10 * SIGMA)
    assert decision.status == "keep"
    assert decision.facts["wealth"] > 0.6  # an improvement earns


def test_a_promising_candidate_is_raced_at_other_seeds_and_its_screening_is_not_counted_again():
    assert decide(-1.3 * SIGMA) == RunTrial("candidate", 5)
    again = decide(-1.3 * SIGMA, SIGMA)
    assert again.status == "discard"
    assert again.facts["measured"] == pytest.approx(SIGMA, abs=0.7 * SIGMA)
    held = decide(-1.3 * SIGMA, -4 * SIGMA)
    assert held.status == "keep"
    assert held.facts["measured"] < -2.5 * SIGMA
    assert held.facts["measured"] < held.delta < 0  # cautious


KEPT = Side(3, "x = 1 + 1", measured(0.9) + measured(1.001, role="incumbent", own=False, seeds=(6,)), estimate=0.99)


def raced(*values, **more):
    """A candidate against an incumbent that was measured again at seed 6 alone."""
    return Racing().consider(replace(evidence(*values, **more), incumbent=KEPT))


def test_where_the_incumbent_has_no_other_seed_it_is_measured_at_one_before_the_candidate():
    assert raced(-1.5 * SIGMA) == RunTrial("incumbent", 1006)
    again = replace(KEPT, trials=KEPT.trials + measured(1.0, role="incumbent", own=False, seeds=(1006,)))
    there = replace(evidence(-1.5 * SIGMA, roles=("candidate", "incumbent")), incumbent=again)
    assert Racing().consider(there) == RunTrial("candidate", 1006)


def test_a_seed_at_which_the_incumbent_fails_costs_one_attempt_for_each_trial_of_the_candidate():
    failed = replace(KEPT, trials=(*KEPT.trials, Measured("incumbent", 1006, "crash", None, own=False)))
    there = replace(evidence(-1.5 * SIGMA, roles=("candidate", "incumbent")), incumbent=failed)
    step = Racing().consider(there)
    assert (step.role, step.seed) == ("candidate", 1006)
    # What the candidate got there counts, unpaired.
    alone = replace(evidence(-1.5 * SIGMA, roles=("candidate", "incumbent", "candidate")), incumbent=failed)
    alone = replace(alone, candidate=replace(alone.candidate, trials=measured(1.0 - SIGMA, 1.1, seeds=(6, 1006))))
    assert Racing().consider(alone).status == "discard"


def test_a_seed_that_only_the_candidate_has_is_given_to_the_incumbent_before_it_is_judged():
    lucky = decide(-1.3 * SIGMA, -0.55 * SIGMA, -9 * SIGMA)
    assert lucky == RunTrial("incumbent", 1000)
    assert decide(-1.3 * SIGMA, -0.55 * SIGMA, -9 * SIGMA, pending=(1000,)) == Wait()


def test_a_second_trial_never_needs_a_higher_probability_than_keeping_does():
    for wealth in (0.001, 0.03, 0.2, 0.75, 1.0, 3.0, 100.0):
        assert screen_level(wealth) >= bid_of(wealth) * LOOKS[0] >= at_once_of(wealth)


def test_a_race_ends_after_its_last_look():
    everywhere = replace(BASELINE, trials=measured(1.0 + SIGMA, *[1.0] * 5, role="baseline"))
    for count in range(1, MAX_RACE + 3):
        here = evidence(*([-1.5 * SIGMA] + [-0.72 * SIGMA] * MAX_RACE)[:count])
        step = Racing().consider(replace(here, incumbent=everywhere, baseline=everywhere))
        if isinstance(step, Decision):
            break
        assert step.role == "candidate"
    assert isinstance(step, Decision)
    assert count > 2


def test_a_change_that_was_just_kept_is_measured_once_more_before_anything_is_compared_with_it():
    kept = Side(3, "x", measured(0.99, 0.991), estimate=0.995)
    assert Racing().consider(replace(evidence(), incumbent=kept)) == RunTrial("incumbent", 1005)
    again = replace(kept, trials=kept.trials + measured(0.992, role="incumbent", own=False, seeds=(77,)))
    assert Racing().consider(replace(evidence(), incumbent=again)) == RunTrial("candidate", 77)


def test_while_that_trial_is_under_way_others_go_to_its_seed_and_wait_for_it():
    kept = Side(3, "x", measured(0.99, 0.991), estimate=0.995)
    assert Racing().consider(replace(evidence(), incumbent=kept, pending=(77,))) == RunTrial("candidate", 77)
    there = Side(1, "y", measured(0.98, seeds=(77,)))
    waiting = replace(evidence(), candidate=there, incumbent=kept, pending=(77,), roles=("candidate",))
    assert Racing().consider(waiting) == Wait()


def test_an_incumbent_that_fails_when_it_is_measured_again_is_compared_by_what_it_has():
    failed = tuple(Measured("incumbent", 70 + n, "crash", None, "x", None, own=False) for n in range(3))
    kept = Side(3, "x", measured(0.99, 0.991) + failed, estimate=0.995)
    assert Racing().consider(replace(evidence(), incumbent=kept)) == RunTrial("candidate", 5)


def test_a_slow_trial_of_the_incumbent_is_no_measure_for_candidates():
    slow = Measured("baseline", 7, "ok", 1.2, None, 500)
    baseline = replace(BASELINE, trials=(*BASELINE.trials, slow))
    here = replace(evidence(0.0), incumbent=baseline, baseline=baseline)
    found = Racing().consider(here)
    assert (found.status, found.facts["incumbent"]) == ("discard", pytest.approx(1.0 + SIGMA / 2))
    # One that is slow whenever it is measured again is compared by what it has, and asked for no more.
    again = tuple(Measured("incumbent", 70 + n, "ok", 1.2, None, 500, own=False) for n in range(3))
    kept = Side(3, "x", measured(0.99, 0.991) + again, estimate=0.995)
    assert Racing().consider(replace(evidence(), incumbent=kept)) == RunTrial("candidate", 5)


def test_a_sluggish_trial_of_a_kept_change_is_run_again_once_and_serves_nobody_while_there_is_a_brisk_one():
    def again(*tokens):
        seeds = range(70, 70 + len(tokens))
        trials = (Measured("incumbent", n, "ok", 0.995, None, t, own=False) for n, t in zip(seeds, tokens, strict=True))
        return replace(evidence(), incumbent=Side(3, "x", measured(0.99, 0.991) + tuple(trials), estimate=0.995))

    assert Racing().consider(again(900)) == RunTrial("candidate", 70)
    assert Racing().consider(again(800)) == RunTrial("incumbent", 1005)
    # Under way for another candidate, it is not asked for twice.
    assert Racing().consider(replace(again(800), pending=(2005,))).role == "candidate"
    assert [one.seed for one in standing_trials(again(800, 1000).incumbent)] == [71]
    # A file that is slow twice is as slow as that: both count, and no third one is asked for.
    assert Racing().consider(again(800, 700)) == RunTrial("candidate", 71)
    assert [one.seed for one in standing_trials(again(800, 700).incumbent)] == [70, 71]


@pytest.mark.parametrize("gain", [1, 3, 10])
def test_after_a_real_gain_an_edit_that_changes_nothing_is_not_kept(gain):
    # The incumbent's own trials are low by selection. Its unselected ones say where it really stands.
    level = 1.0 - gain * SIGMA
    own = measured(level - 0.8 * SIGMA, level - 0.9 * SIGMA)
    again = measured(level + 0.1 * SIGMA, level - 0.1 * SIGMA, role="incumbent", own=False, seeds=(70, 71))
    kept = Side(3, "x", own + again, estimate=level - 0.5 * SIGMA)
    for difference in (-0.5 * SIGMA, 0.0, 0.5 * SIGMA):
        nothing = Side(4, "y = 1", measured(level - 0.1 * SIGMA + difference, seeds=(71,)))
        found = Racing().consider(replace(evidence(), candidate=nothing, incumbent=kept, roles=("candidate",)))
        assert found.status == "discard"
        assert found.facts["incumbent"] == pytest.approx(level)


def test_without_wealth_nothing_is_kept_by_luck_and_with_it_the_bar_is_lower():
    values = (-1.3 * SIGMA, -0.9 * SIGMA)
    poor = Racing().consider(evidence(*values, facts={"wealth": 0.02}))
    rich = Racing().consider(evidence(*values, facts={"wealth": 2.0}))
    assert not (isinstance(poor, Decision) and poor.status == "keep")
    assert rich.status == "keep"


def test_less_code_is_kept_when_it_is_not_worse_and_only_then():
    same = decide(-0.3 * SIGMA, category="simplification", source="x = 2")
    assert same.status == "keep"
    assert "less code" in same.reason
    assert decide(5 * SIGMA, category="simplification", source="x = 2").status == "discard"
    # Calling it a simplification is not enough.
    assert decide(-0.3 * SIGMA, category="simplification", source="x = 2 + 2 + 2").status == "discard"


def test_less_code_counts_whatever_the_change_is_called_where_there_is_enough_of_it():
    long = "\n".join(f"a{n} = {n} + 1" for n in range(100))
    incumbent = replace(BASELINE, source=long)

    def named(category, removed):
        lines = long.splitlines()[removed:]
        here = evidence(-0.3 * SIGMA, category=category, source="\n".join(lines))
        return Racing().consider(replace(here, incumbent=incumbent))

    assert named("mlp", 3).status == "keep"
    assert "less code" in named("mlp", 3).reason
    assert named("mlp", 1).status == "discard"  # a hundredth of the file is the least
    assert named("simplification", 1).status == "keep"
    # Comments and blank lines are no code.
    commented = replace(BASELINE, source=long + "\n# a comment" * 50)
    here = replace(evidence(-0.3 * SIGMA, source=long), incumbent=commented)
    assert Racing().consider(here).status == "discard"


@pytest.mark.parametrize("status", ["crash", "invalid", "timeout"])
def test_a_failure_is_decided_at_once_and_costs_no_wealth(status):
    failed = Side(1, "x", (Measured("candidate", 0, status, None, "in words"),))
    decision = Racing().consider(replace(evidence(), candidate=failed, asked=1, roles=("candidate",)))
    assert (decision.status, decision.reason, decision.facts) == (status, "in words", {"wealth": 0.6})


def test_the_incumbent_is_measured_again_and_demoted_when_it_does_not_hold():
    due = {"check_due": True, "predecessor": BASELINE}
    incumbent = Side(3, "x", measured(0.99), estimate=0.999)
    assert Racing().consider(replace(evidence(), incumbent=incumbent, **due)).role == "incumbent"
    seen = {**due, "roles": ("incumbent",), "asked": 1}
    fallen = replace(incumbent, trials=incumbent.trials + measured(1.003, role="incumbent", own=False, seeds=(77,)))
    step = Racing().consider(replace(evidence(), incumbent=fallen, **seen))
    assert isinstance(step, Demotion)
    assert step.experiment == 3
    holds = replace(incumbent, trials=incumbent.trials + measured(0.998, role="incumbent", own=False, seeds=(77,)))
    assert Racing().consider(replace(evidence(), incumbent=holds, **seen)).role == "candidate"
    # With the predecessor in its place, the same evidence goes on with the candidate.
    assert Racing().consider(replace(evidence(), **{**seen, "predecessor": None})).role == "candidate"


def test_equal_evidence_gives_an_equal_answer():
    rng = random.Random(0)
    for _ in range(20):
        one = evidence(-rng.random() * 4 * SIGMA)
        assert Racing().consider(one) == Racing().consider(one)


def test_a_run_expects_the_paired_noise_that_trials_of_its_preset_have():
    between = Noise(SIGMA, 3.0, 1, "a test")
    cpu, larger = (Racing(JudgeOptions(preset)).pool_pairs([], between).sigma for preset in ("cpu", "h100"))
    assert cpu == pytest.approx(larger * 0.7 / 1.1)
