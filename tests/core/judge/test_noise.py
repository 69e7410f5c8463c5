from __future__ import annotations

import math
import random
import statistics

import pytest

from autoresearch.core.judge.noise import Prior, Repeat, estimate_noise
from autoresearch.core.judge.posterior import better_than, normal_cdf, normal_score, shrink

PRIOR = Prior(0.002, "a test")


def test_without_repeats_the_prior_speaks_and_is_named():
    noise = estimate_noise([], PRIOR, 0.5)
    assert noise.sigma == pytest.approx(0.001, rel=1e-3)
    assert noise.repeats == 0
    assert 1.0 <= noise.dof < 4.0
    assert "a test" in noise.describe()
    low, high = noise.interval
    assert noise.sigma / 5 < low < noise.sigma < high < 5 * noise.sigma


@pytest.mark.parametrize("difference", [0.0, 1e-6, 0.001, 0.01, 1.0])
def test_the_interval_of_one_repeat_is_wide_and_not_absurd(difference):
    noise = estimate_noise([[Repeat(0.5), Repeat(0.5 + difference)]], PRIOR, 0.5)
    assert 1.5 < noise.interval[1] / noise.sigma < 5


@pytest.mark.parametrize("absurd", [1e30, 1e38])
def test_a_baseline_that_answers_with_an_absurd_score_at_one_seed_leaves_a_noise_that_is_finite(absurd):
    noise = estimate_noise([[Repeat(3.0), Repeat(absurd)]], PRIOR, 3.0)
    assert math.isfinite(noise.sigma) and 1.0 <= noise.dof < 1e6


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = random.Random(3)
    inside = 0
    for _ in range(400):
        truth = 0.001 * math.exp(rng.gauss(0, 0.4))
        noise = estimate_noise([[Repeat(rng.gauss(0.5, truth)) for _ in range(4)]], PRIOR, 0.5)
        inside += noise.interval[0] <= truth <= noise.interval[1]
    assert 0.92 <= inside / 400 <= 1.0


def test_repeats_are_pooled_about_their_own_means_and_outweigh_the_prior():
    rng = random.Random(1)
    groups = [[Repeat(mean + rng.gauss(0, 0.01)) for _ in range(3)] for mean in range(1, 200)]
    noise = estimate_noise(groups, PRIOR, 0.5)
    assert noise.sigma == pytest.approx(0.01, rel=0.05)
    assert noise.repeats == 2 * 199
    assert noise.interval[0] < 0.01 < noise.interval[1]


def test_a_prior_that_is_seven_times_too_large_has_faded_after_a_few_repeats():
    rng = random.Random(5)
    for count, factor in ((3, 3.0), (7, 1.6), (20, 1.3)):
        found = [
            estimate_noise([[Repeat(rng.gauss(1.8, 0.0054)) for _ in range(count + 1)]], Prior(0.02, "a test"), 1.85)
            for _ in range(20)
        ]
        assert statistics.median(noise.sigma for noise in found) < factor * 0.0054


def test_noise_from_the_number_of_tokens_is_told_from_noise_of_training():
    rng = random.Random(2)

    def repeat(mean):
        tokens = round(math.exp(rng.gauss(11, 0.2)))
        return Repeat(mean - 0.3 * math.log(tokens) + rng.gauss(0, 0.02), tokens)

    noise = estimate_noise([[repeat(mean) for _ in range(4)] for mean in range(40)], PRIOR, 1.0)
    assert noise.training == pytest.approx(0.02, rel=0.15)
    assert noise.throughput == pytest.approx(0.06, rel=0.2)
    few = estimate_noise([[Repeat(1.0, 10), Repeat(1.1, 12)]], PRIOR, 1.0)
    assert (few.training, few.throughput) == (None, None)


@pytest.mark.parametrize(
    ("t", "dof", "tail"), [(2.132, 4, 0.05), (3.747, 4, 0.01), (1.812, 10, 0.05), (2.528, 20, 0.01)]
)
def test_the_tail_of_students_t_agrees_with_the_tables(t, dof, tail):
    assert 1 - normal_cdf(normal_score(t, dof)) == pytest.approx(tail, rel=0.05)


def test_large_effects_are_left_alone_and_small_ones_are_shrunken():
    assert shrink(-20.0, 1.0, 1.0) == pytest.approx(-20.0, rel=0.02)
    assert -0.5 < shrink(-1.0, 1.0, 1.0) < 0.0
    assert shrink(0.0, 1.0, 1.0) == 0.0
    assert math.isfinite(shrink(-1e4, 1.0, 1.0))


def test_probabilities_are_calibrated_on_data_without_an_effect():
    rng = random.Random(3)
    below = [better_than(0.0, rng.gauss(0, 1), 1.0, 1e6) for _ in range(4000)]
    assert statistics.fmean(p > 0.95 for p in below) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("absurd", [5.0, 1e3, 6.9e29])
def test_a_changed_file_that_falls_apart_at_one_seed_leaves_the_noise_as_it_was(absurd: float) -> None:
    baseline = [Repeat(2.0), Repeat(2.03), Repeat(1.99)]
    before = estimate_noise([baseline], Prior(0.015, "a test"), 2.0)
    after = estimate_noise([baseline, [Repeat(1.9), Repeat(absurd)]], Prior(0.015, "a test"), 2.0)
    assert after.sigma == pytest.approx(before.sigma, rel=0.1)
    assert after.dof == pytest.approx(before.dof, rel=0.2)


def test_a_baseline_that_falls_apart_at_one_seed_is_believed() -> None:
    groups = [[Repeat(2.0), Repeat(5.0), Repeat(1.99)]]
    assert estimate_noise(groups, Prior(0.015, "a test"), 2.0).sigma > 0.5
