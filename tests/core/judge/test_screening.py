"""The cut of short trials: set by their measured agreement with full ones, and by a bound on what is lost."""

from __future__ import annotations

import random

import numpy as np
import pytest

from autoresearch.core.judge.screening import (
    LOSS,
    SHARE,
    Pair,
    agreement,
    cut,
    measured_anyway,
    rank_correlation,
)

SIGMA = 0.01


def pairs(count, correlation, seed=0, weight=1.0):
    rng = np.random.default_rng(seed)
    full = rng.normal(0.0, 3 * SIGMA, count)
    rest = rng.normal(0.0, 3 * SIGMA, count)
    short = correlation * full + (1 - correlation**2) ** 0.5 * rest
    return [Pair(float(a), float(b), weight) for a, b in zip(short, full, strict=True)]


def test_the_rank_correlation_is_that_of_the_ranks_and_needs_several_changes():
    assert rank_correlation([Pair(0.1 * i, i**3) for i in range(5)]) == pytest.approx(1.0)
    assert rank_correlation([Pair(0.1 * i, -(i**3)) for i in range(5)]) == pytest.approx(-1.0)
    assert rank_correlation([Pair(0.1 * i, i) for i in range(3)]) is None
    assert rank_correlation([Pair(0.1, i) for i in range(9)]) is None


def test_a_change_that_stands_for_others_counts_as_often():
    some = pairs(12, 0.5)
    assert rank_correlation([*some, *some[:3], *some[:3]]) == pytest.approx(
        rank_correlation([Pair(p.short, p.full, 3.0 if i < 3 else 1.0) for i, p in enumerate(some)])
    )


def test_what_is_let_go_loses_no_more_good_changes_than_the_bound_says():
    for correlation in (0.3, 0.6, 0.9):
        known, fresh = pairs(60, correlation), pairs(20000, correlation, seed=5)
        limit = cut([p.short for p in known], known, agreement(known).believed, SIGMA)
        good = [p for p in fresh if p.full < -SIGMA]
        lost = sum(p.short > limit for p in good) / len(good)
        assert lost < 1.6 * LOSS, (correlation, lost)


def test_a_high_agreement_lets_more_go_than_a_low_one_and_no_agreement_next_to_nothing():
    def gone(correlation):
        known, fresh = pairs(60, correlation), pairs(2000, correlation, seed=5)
        limit = cut([p.short for p in known], known, agreement(known).believed, SIGMA)
        return sum(p.short > limit for p in fresh) / len(fresh)

    assert gone(0.95) > gone(0.6) > gone(0.0)
    assert gone(0.95) > 0.4 and gone(0.0) < 0.2 and gone(-0.9) < 0.2


def test_a_change_that_looks_better_is_never_let_go():
    for some in ([], pairs(60, 0.99), [Pair(-0.1 * i, -0.1 * i) for i in range(60)]):
        assert cut([p.short for p in some], some, 0.99, SIGMA) >= 0.0


def test_without_any_measurement_the_prior_lets_only_clear_losers_go():
    limit = cut([], [], agreement([]).believed, SIGMA)
    assert SIGMA < limit < 6 * SIGMA
    assert agreement([]).describe() == "no rank correlation of short and full trials yet (0 changes measured both ways)"


def test_the_draw_of_what_is_measured_all_the_same_is_repeatable_and_even():
    drawn = [measured_anyway(7, number, 100) for number in range(4000)]
    assert drawn == [measured_anyway(7, number, 100) for number in range(4000)]
    assert {share for _, share in drawn} == {SHARE}
    assert sum(one for one, _ in drawn) / 4000 == pytest.approx(SHARE, abs=0.02)
    assert measured_anyway(7, 1, 0)[1] > SHARE


def test_only_survivors_would_look_less_alike_than_changes_are():
    """The weights undo the selection: survivors with the measured share of the others give back the correlation."""
    everything, rng = pairs(3000, 0.8), random.Random(1)
    known = [p for p in everything if p.short < 0.0]
    known += [Pair(p.short, p.full, 8.0) for p in everything if p.short >= 0.0 and rng.random() < 1 / 8]
    survivors = rank_correlation([p for p in known if p.weight == 1.0])
    assert rank_correlation(known) == pytest.approx(rank_correlation(everything), abs=0.05)
    assert survivors < rank_correlation(everything) - 0.1
