"""Differences at shared seeds, and the noise that they have."""

from __future__ import annotations

import random

import numpy as np
import pytest

from autoresearch.core.judge.noise import Noise
from autoresearch.core.judge.paired import PairedNoise, Raced, compare, estimate_paired

BETWEEN = Noise(1.0, 20.0, 16, "own repeats")
"""Noise between seeds of 1 bpb."""
RATIO = 1.1


def draw(rng, paired, effect, seeds, cut):
    """One candidate's differences to an incumbent: the first alone where it is not below the cut."""
    found, rest = [], paired / 2**0.5
    for _ in range(seeds):
        found.append(effect + rng.gauss(0.0, rest) - rng.gauss(0.0, rest))
        if found[0] >= cut:
            break
    return Raced(tuple(found), cut)


@pytest.mark.parametrize("paired", [0.2, 0.5, 1.2])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_paired_noise_is_learnt_from_candidates_that_their_first_trial_selected(paired, spread):
    found = []
    for seed in range(8):
        rng = random.Random(seed)
        raced = [draw(rng, paired, rng.gauss(0.0, spread), 3, -0.5 * paired) for _ in range(100)]
        found.append(estimate_paired(raced, BETWEEN, RATIO).sigma)
    assert np.median(found) == pytest.approx(paired, rel=0.25)


def test_without_pairs_the_prior_holds_and_it_fades():
    nothing = estimate_paired([Raced((0.1,), -0.5)], BETWEEN, RATIO)
    assert nothing.pairs == 0
    assert 0.8 < nothing.sigma < 1.5
    rng = random.Random(1)
    some = estimate_paired([draw(rng, 0.03, 0.0, 3, 1.0) for _ in range(10)], BETWEEN, RATIO)
    many = estimate_paired([draw(rng, 0.03, 0.0, 3, 1.0) for _ in range(60)], BETWEEN, RATIO)
    assert nothing.sigma > some.sigma >= 0.8 * many.sigma
    assert nothing.dof < some.dof < many.dof


def test_large_gains_that_differ_from_seed_to_seed_do_not_count_as_noise():
    # The first keeps of a real run (docs/night.md); its later changes lay within 0.011 of the best file.
    raced = [Raced(pair, -0.06) for pair in [(-0.209, -0.218), (-0.166, -0.095), (-0.152, -0.094), (-0.070, -0.045)]]
    assert estimate_paired(raced, Noise(0.024, 3.0, 1, ""), 0.7).sigma < 0.02


def test_gains_that_are_equal_at_every_seed_still_tell_of_little_noise():
    raced = [Raced((gain, gain + 0.004, gain - 0.004), -0.06) for gain in (-0.2, -0.15, -0.1, -0.08)]
    assert estimate_paired(raced, Noise(0.024, 3.0, 1, ""), 0.7).sigma < 0.015


@pytest.mark.parametrize("cut", [-0.0024, -0.004, -0.05, -10.0])
def test_a_cut_that_the_first_difference_did_not_pass_does_not_explain_all_noise_away(cut):
    raced = [Raced((-0.00242, -0.00235), cut)]
    assert estimate_paired(raced, Noise(0.0014, 3.5, 2, ""), RATIO).sigma > 0.0005


def by_matrices(candidate, incumbent, noise, paired):
    """The textbook's formula, with the whole covariance matrix."""
    seeds = np.array([seed for seed, _ in (*candidate, *incumbent)])
    values = np.array([value for _, value in (*candidate, *incumbent)])
    rest = paired.sigma**2 / 2
    covariance = rest * np.eye(len(values)) + (noise.sigma**2 - rest) * (seeds[:, None] == seeds[None, :])
    design = np.column_stack([np.ones(len(values)), np.arange(len(values)) < len(candidate)])
    inverse = np.linalg.inv(covariance)
    information = np.linalg.inv(design.T @ inverse @ design)
    return (information @ design.T @ inverse @ values)[1], information[1, 1] ** 0.5


def test_a_difference_is_that_of_generalised_least_squares():
    rng = random.Random(0)
    for _ in range(100):
        candidate = [(rng.randrange(4), rng.random()) for _ in range(rng.randint(1, 4))]
        incumbent = [(rng.randrange(4), rng.random()) for _ in range(rng.randint(1, 5))]
        paired = PairedNoise(rng.uniform(0.1, 1.3), 10.0, 5)
        found = compare(candidate, incumbent, BETWEEN, paired)
        value, error = by_matrices(candidate, incumbent, BETWEEN, paired)
        assert (found.value, found.error) == (pytest.approx(value), pytest.approx(error))


def test_one_shared_seed_gives_the_plain_difference_with_the_paired_noise():
    paired = PairedNoise(0.3, 10.0, 5)
    found = compare([(1, 2.5)], [(1, 2.6)], BETWEEN, paired)
    assert (found.value, found.error, found.dof) == (pytest.approx(-0.1), pytest.approx(0.3), pytest.approx(10.0))
    # A second seed of the incumbent's adds nothing where the seed is almost all of the noise.
    more = compare([(1, 2.5)], [(1, 2.6), (2, 9.0)], BETWEEN, PairedNoise(1e-3, 10.0, 5))
    assert more.value == pytest.approx(-0.1, abs=1e-3)


def test_a_comparison_without_trials_is_an_error():
    with pytest.raises(ValueError, match="a trial of each"):
        compare([], [(1, 2.0)], BETWEEN, PairedNoise(0.3, 10.0, 5))


@pytest.mark.parametrize("absurd", [30.0, 1e4, 6.9e29])
@pytest.mark.parametrize("others", [0, 5])
def test_a_candidate_that_falls_apart_at_its_second_seed_leaves_the_paired_noise_as_it_was(absurd, others):
    rng = random.Random(3)
    raced = [draw(rng, 0.7, 0.0, 3, 0.0) for _ in range(others)]
    before, after = (estimate_paired([*raced, *more], BETWEEN, RATIO) for more in ([], [Raced((-1.5, absurd), -1.0)]))
    assert after.sigma == pytest.approx(before.sigma, rel=0.15)
    assert after.dof <= 1.2 * before.dof
