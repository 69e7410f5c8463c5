"""What two trials share, by made-up scores whose parts are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.seed_shares import FILES, SHARED, components, rows_of, spreads, variances


def made(rng, by_draw, by_order, rest, shape):
    """Scores by draw and order, with parts of these standard deviations."""
    return (
        by_draw * rng.standard_normal((shape[0], 1))
        + by_order * rng.standard_normal((1, shape[1]))
        + rest * rng.standard_normal(shape)
    )


def test_the_parts_of_the_noise_are_told_apart():
    found = np.mean([components(made(np.random.default_rng(n), 3.0, 1.0, 0.5, (5, 4))) for n in range(3000)], axis=0)
    assert found == pytest.approx([9.0, 1.0, 0.25], rel=0.06)


def test_a_difference_loses_what_both_trials_share():
    found = []
    for n in range(3000):
        rng = np.random.default_rng(n)
        shared = made(rng, 3.0, 1.0, 0.0, (5, 4))
        mine, theirs = (shared + made(rng, 0.5, 0.2, 0.1, (5, 4)) for _ in range(2))
        found.append(variances(mine, theirs))
    own, both = 0.25 + 0.04 + 0.01, 10.0
    expected = [2 * (own + both), 2 * (own + 1.0), 2 * (own + 9.0), 2 * own]
    assert np.mean(found, axis=0) == pytest.approx(expected, rel=0.06)


def test_the_table_names_what_is_shared_and_how_sure_it_is():
    rng = np.random.default_rng(1)
    shared = made(rng, 3.0, 1.0, 0.0, (4, 4))
    scores = {file: 1.0 + 0.01 * shared + 0.001 * rng.standard_normal((4, 4)) for file in FILES}
    rows = rows_of(scores)
    assert len(rows) == 2 * len(SHARED)
    assert rows[3]["name"] == "equal files, both shared"
    assert rows[3]["median"] < 0.3 * rows[0]["median"]
    assert "standard error" in rows[3]["note"]
    few = {file: one[:2, :2] for file, one in scores.items()}
    assert all(np.isnan(error) for *_, error in spreads(few[FILES[0]], few[FILES[1]]))
