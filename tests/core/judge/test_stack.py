"""A stack's gain split over its parts, and the way on when it is discarded."""

from __future__ import annotations

import pytest

from autoresearch.core.judge.stack import Part, additive, facts_of, share_out, shares_in, take_apart

SIGMA = 0.002


def parts(*values, error=0.002):
    return [Part(number, value, error) for number, value in enumerate(values, 1)]


def test_shares_add_up_to_what_a_well_measured_stack_gains():
    shares = share_out(parts(-0.010, -0.006, -0.004), -0.024, 1e-6, SIGMA)
    assert sum(share.value for share in shares) == pytest.approx(-0.024, abs=1e-6)
    assert [share.value for share in shares] == sorted(share.value for share in shares)
    assert all(0.5 < share.better <= 1.0 for share in shares)


def test_a_stack_that_gains_less_than_its_parts_promised_makes_every_part_less_likely():
    apart = share_out(parts(-0.006, -0.006), -0.010, 1.0, SIGMA)
    together = share_out(parts(-0.006, -0.006), -0.004, 0.001, SIGMA)
    assert all(new.better < old.better and new.error < old.error for new, old in zip(together, apart, strict=True))


def test_gains_that_do_not_add_up_say_nothing_of_a_part():
    strong = parts(-0.02, -0.02, error=0.001)
    assert not additive(strong, 0.01, 0.001, SIGMA)
    assert [share.better for share in share_out(strong, 0.01, 0.001, SIGMA)] == pytest.approx([1.0, 1.0])
    assert take_apart(strong, (0.01, 0.001), SIGMA).groups == ((1,), (2,))


def test_a_stack_that_failed_is_halved_the_strongest_parts_together():
    plan = take_apart(parts(-0.004, -0.010, -0.006, -0.005, -0.003), None, SIGMA)
    assert plan.groups == ((2, 3, 4), (1, 5)) and not plan.dropped


def test_parts_that_were_luck_are_dropped_after_one_trial_of_all_together():
    plan = take_apart(parts(-0.003, -0.0035, -0.003, -0.004), (0.001, 0.001), SIGMA)
    assert not plan.groups and sorted(plan.dropped) == [1, 2, 3, 4]


def test_a_part_that_is_still_likely_better_goes_on_without_the_others():
    plan = take_apart(parts(-0.030, -0.003, -0.003), (-0.020, 0.004), SIGMA)
    assert plan.groups == ((1,),) and sorted(plan.dropped) == [2, 3]


def test_shares_come_back_from_a_decisions_facts():
    shares = share_out(parts(-0.01, -0.02), -0.03, 0.001, SIGMA)
    assert shares_in({"parts": facts_of(shares)}) == shares
    assert shares_in({}) == [] and shares_in({"parts": 3}) == []
