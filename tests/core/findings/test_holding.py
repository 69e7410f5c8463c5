"""How likely another device's change is to help here, by its category."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_runs import SOURCE, baseline

from autoresearch.core.findings.holding import by_promise, holding_rates, rate_of
from autoresearch.core.proposal import Finding, Origin


def origin(number, delta=-0.01, run="mac"):
    return Origin(run, number, "mlx", "Apple M4", delta)


def finding(number, category, delta=-0.01, run="mac"):
    return Finding(origin(number, delta, run), "", category, "", "")


def tried(number, category, status):
    return replace(baseline(SOURCE), experiment=number, category=category, status=status, origin=origin(number))


PAST = [
    baseline(SOURCE),
    *(tried(n, "attention", "keep") for n in (1, 2)),
    *(tried(n, "batch_sequence", status) for n, status in ((3, "discard"), (4, "crash"), (5, "discard"))),
]


def numbers(findings):
    return [one.origin.experiment for one in findings]


def test_a_category_that_held_comes_before_one_that_did_not():
    offered = [finding(10, "batch_sequence", -0.012), finding(11, "attention"), finding(12, "loss", -0.011)]
    assert numbers(by_promise(offered, [baseline(SOURCE)])) == [10, 12, 11], "by the gain there, as nothing is known"
    assert numbers(by_promise(offered, PAST)) == [11, 12, 10]


def test_a_large_gain_outweighs_a_poor_chance():
    offered = [finding(11, "attention", -0.01), finding(10, "batch_sequence", -0.1)]
    assert numbers(by_promise(offered, PAST)) == [10, 11]


def test_gains_of_two_runs_are_not_compared_as_they_are():
    offered = [finding(10, "loss", -0.3), finding(11, "loss", -0.1), finding(12, "loss", -0.001, run="h100")]
    assert numbers(by_promise(offered, PAST)) == [10, 12, 11], "the largest of each run first"


def test_one_result_moves_a_rate_a_little_and_many_decide_it():
    rates = [rate_of(holding_rates([tried(k, "loss", "keep") for k in range(n)]), "loss") for n in (0, 1, 4, 40)]
    assert rates[0] == 0.5 and rates == sorted(rates) and rates[1] < 0.75 and rates[-1] > 0.95
    known = holding_rates(PAST)
    assert (known["attention"].held, known["attention"].tried) == (2, 2)
    assert known["batch_sequence"].rate < rate_of(known, "optimizer") < known["attention"].rate
    assert rate_of(known, "optimizer") == pytest.approx((2 + 1) / (5 + 2))


def test_own_experiments_say_nothing_of_transfer():
    assert holding_rates([baseline(SOURCE), replace(PAST[1], origin=None)]) == {}


@pytest.mark.parametrize("delta", [None, 0.0, 0.5])
def test_a_change_without_a_known_gain_is_offered_all_the_same(delta):
    offered = [finding(10, "loss", delta), finding(11, "loss", -0.01)]
    assert numbers(by_promise(offered, PAST)) == [11, 10]
    assert numbers(by_promise(offered[:1], PAST)) == [10]
