"""Intervals of keeps, and scores of predictions."""

from __future__ import annotations

import random

import pytest

from autoresearch.core.judge.posterior import SLAB, shrink
from autoresearch.core.report.document.statistics import Prediction, certainty_of, posterior_interval, score, spearman


def test_the_posterior_interval_is_where_the_truth_is():
    """Truths drawn from the prior, measured with noise: those with nearly the same measurement are the posterior."""
    draw, sigma, error, seen = random.Random(1), 0.002, 0.0015, -0.003
    weights, scales = zip(*SLAB, strict=True)
    truths = []
    while len(truths) < 2000:
        truth = draw.gauss(0.0, draw.choices(scales, weights)[0] * sigma)
        if abs(truth + draw.gauss(0.0, error) - seen) < 0.0001:
            truths.append(truth)
    span = posterior_interval(seen, error, sigma)
    inside = sum(span.low < truth < span.high for truth in truths) / len(truths)
    assert inside == pytest.approx(0.95, abs=0.02)
    assert sum(truth < span.low for truth in truths) / len(truths) == pytest.approx(0.025, abs=0.012)
    assert span.value == pytest.approx(shrink(seen, error, sigma), rel=1e-9)


def test_a_far_difference_is_hardly_shrunken():
    span = posterior_interval(-1.0, 0.001, 0.001)
    assert span.low < span.value < span.high < -0.9


def test_certainty_needs_the_judges_numbers():
    judged = {"measured": -0.01, "error": 0.002, "sigma": 0.002}
    found = certainty_of(judged)
    assert (found.raw.low, found.raw.high) == pytest.approx((-0.01392, -0.00608), abs=1e-5)
    assert found.raw.value < found.shrunken.value < 0.0
    for name in judged:
        assert certainty_of({**judged, name: None}) is None
    assert certainty_of({}) is None


def test_predictions_are_scored():
    some = [
        Prediction(k, "me", guess, out)
        for k, (guess, out) in enumerate([(-0.02, -0.01), (-0.01, 0.01), (-0.03, -0.02)])
    ]
    found = score("me", some)
    assert (found.count, found.right_sign) == (3, pytest.approx(2 / 3))
    assert (found.error, found.error_of_zero, found.bias) == pytest.approx((0.04 / 3, 0.04 / 3, 0.04 / 3))
    assert found.rank_correlation == pytest.approx(1.0)


def test_rank_correlation_knows_ties_and_its_limits():
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 1, 2, 3], [1, 1, 2, 3]) == pytest.approx(1.0)
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None
