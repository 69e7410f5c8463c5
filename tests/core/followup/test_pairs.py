"""The interval of a paired difference: it holds the truth as often as it says, whatever the run has expected."""

from __future__ import annotations

import random

import pytest

from autoresearch.core.followup.pairs import RunNoise, interval_of, learn_paired, pairs_needed
from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.paired import PairedNoise
from autoresearch.core.judge.posterior import Z_95, t_quantile

NOISE = RunNoise(Noise(1.0, 5.0, 2, "a test"), PairedNoise(1.0, 3.0, 0))


@pytest.mark.parametrize("true", [0.1, 1.0, 10.0])
def test_the_interval_holds_the_truth_although_the_run_expected_another_paired_noise(true):
    rng, held, runs = random.Random(1), 0, 300
    for _ in range(runs):
        first = {seed: rng.gauss(0.0, 1.0) for seed in range(4)}
        second = {seed: value - 0.5 + rng.gauss(0.0, true) for seed, value in first.items()}
        found = interval_of(first, second, NOISE)
        held += found.low <= -0.5 <= found.high
    assert held / runs > 0.88


def test_a_difference_is_taken_at_shared_seeds_and_so_is_free_of_the_seeds_part():
    first = {1: 5.0, 2: 1.0, 3: 9.0}
    second = {seed: value - 1.0 for seed, value in first.items()}
    found = interval_of(first, second, NOISE)
    assert found.difference == pytest.approx(-1.0)
    assert found.verdict == "better"
    assert interval_of(second, first, NOISE).verdict == "worse"
    assert interval_of({1: 1.0, 2: 2.0, 3: 3.0}, {1: 2.0, 2: 1.0, 3: 3.0}, NOISE).verdict == "not certain"


def test_files_that_ignore_their_seeds_still_have_an_interval_with_a_width():
    assert interval_of({1: 1.0, 2: 1.0, 3: 1.0}, {1: 1.0, 2: 1.0, 3: 1.0}, NOISE).width > 0.0
    assert learn_paired([0.5], NOISE.paired) == NOISE.paired


def test_more_seeds_are_needed_for_a_smaller_gain_and_never_more_than_the_limit():
    needed = [pairs_needed(gain, PairedNoise(0.001, 20.0, 5), 10) for gain in (-0.01, -0.002, -0.0001, 0.0)]
    assert needed == sorted(needed)
    assert (needed[0], needed[-1]) == (2, 10)


def test_the_quantile_is_students():
    assert t_quantile(Z_95, 4.0) == pytest.approx(2.776, rel=0.01)
    assert t_quantile(Z_95, 1000.0) == pytest.approx(1.962, rel=0.001)
