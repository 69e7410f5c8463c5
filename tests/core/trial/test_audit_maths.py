"""The audit's draw and its comparison."""

from __future__ import annotations

import numpy as np
import pytest

from autoresearch.core.trial import audit
from autoresearch.core.trial.request import AuditResult
from autoresearch.core.trial.surprise import Bigrams

N, T, V = 40, 16, 50


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def rows(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, V, (N, T + 1)).astype(np.uint16)


@pytest.fixture
def mask(rng: np.random.Generator) -> np.ndarray:
    return rng.random((N, T)) < 0.7


def table_logits(tokens: np.ndarray) -> np.ndarray:
    """An honest bigram model: (B, T) -> (B, T, V)."""
    return np.random.default_rng(9).standard_normal((V, V)).astype(np.float32)[tokens]


def committed(rows: np.ndarray) -> np.ndarray:
    flat = audit.nll_from_logits(table_logits(rows[:, :-1]).reshape(-1, V), rows[:, 1:].reshape(-1).astype(int))
    return flat.reshape(N, T).astype(np.float32)


def test_459_positions_find_a_cheat_on_one_percent() -> None:
    assert audit.POSITIONS == 459
    assert 1 - 0.99**459 > 0.99 > 1 - 0.99**458


@pytest.mark.parametrize("size", [1e9, 1e17, 3e38])
def test_no_token_is_certain_because_all_logits_are_huge(size: float) -> None:
    logits = np.full((3, V), size, np.float32)
    np.testing.assert_allclose(audit.nll_from_logits(logits, np.array([0, 1, 2])), np.log(V))


def test_the_prefix_is_true_and_the_rest_is_foreign(mask: np.ndarray, rng: np.random.Generator) -> None:
    rows = np.arange(N * (T + 1), dtype=np.uint16).reshape(N, T + 1)  # every token tells where it is from
    probes = audit.draw_probes(rows, mask, np.zeros((N, T), np.float32), 200, rng)
    for tokens, position, target in zip(probes.tokens, probes.positions, probes.targets, strict=True):
        source = tokens[0] // (T + 1)
        assert mask[source, position]
        assert target == rows[source, position + 1]
        assert np.array_equal(tokens[: position + 1], rows[source, : position + 1])
        assert not np.isin(tokens[position + 1 :], rows[source]).any()


def test_the_token_after_a_position_is_never_the_true_one(
    rows: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> None:
    probes = audit.draw_probes(rows, mask, committed(rows), 200, rng)
    inner = probes.positions < T - 1
    shown = probes.tokens[inner, probes.positions[inner] + 1]
    assert (shown == probes.targets[inner]).mean() < 0.02


def test_no_position_is_drawn_twice(rows: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    count = int(mask.sum())
    probes = audit.draw_probes(rows, mask, np.arange(N * T, dtype=np.float32).reshape(N, T), count, rng)
    assert len(set(probes.committed)) == count


def test_a_single_row_can_be_audited(rng: np.random.Generator) -> None:
    rows = np.arange(T + 1, dtype=np.uint16)[None, :]
    probes = audit.draw_probes(rows, np.ones((1, T), bool), np.zeros((1, T), np.float32), T, rng)
    for tokens, position in zip(probes.tokens, probes.positions, strict=True):
        assert np.array_equal(tokens[: position + 1], rows[0, : position + 1])


def test_an_honest_model_passes(rows: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    probes = audit.draw_probes(rows, mask, committed(rows), 100, rng)
    logits = table_logits(probes.tokens)[np.arange(100), probes.positions]
    outcome, wrong = audit.compare(probes, logits, audit.FP32)
    assert wrong is None
    assert outcome is not None
    assert outcome.ok
    assert outcome.positions == 100


def test_scores_that_are_a_little_better_than_the_logits_everywhere_are_found(
    rows: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> None:
    probes = audit.draw_probes(rows, mask, committed(rows) - 0.001, 100, rng)
    logits = table_logits(probes.tokens)[np.arange(100), probes.positions]
    outcome, wrong = audit.compare(probes, logits, audit.FP32)
    assert outcome is not None
    assert outcome.max_abs < audit.FP32.max_abs
    assert not outcome.ok
    assert wrong is not None
    assert "mean" in wrong
    assert "100 positions give other likelihoods on average" in wrong


@pytest.mark.parametrize(
    ("shift", "spread", "passes"), [(0.0, 0.004, True), (1e-3, 1e-7, False), (5e-4, 1e-5, False), (0.0025, 0.01, False)]
)
def test_rounding_to_both_sides_passes_in_bf16_and_a_shift_of_all_likelihoods_does_not(
    shift: float, spread: float, passes: bool, rng: np.random.Generator
) -> None:
    difference = shift + spread * rng.standard_normal(459)
    limit = audit.REDUCED
    assert (abs(difference.mean()) <= audit.mean_allowed(difference, limit)) == passes


def test_noise_does_not_hide_more_than_the_tolerance_allows(rng: np.random.Generator) -> None:
    room = audit.SIGMAS * audit.REDUCED.spread / 459**0.5
    assert audit.mean_allowed(5.0 * rng.standard_normal(459), audit.REDUCED) == pytest.approx(audit.REDUCED.mean + room)


def test_logits_that_are_not_finite_are_found(rows: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    probes = audit.draw_probes(rows, mask, committed(rows), 10, rng)
    logits = table_logits(probes.tokens)[np.arange(10), probes.positions]
    logits[3, 7] = np.nan
    outcome, wrong = audit.compare(probes, logits, audit.FP32)
    assert (outcome, wrong) == (None, "audit: the logits are not finite at 1 of 10 positions")


@pytest.mark.parametrize(
    ("rows_scored", "tokens", "batch", "expected"),
    [
        (5000, 10**7, 64, 459),
        (600, 135_000, 16, 90),
        (200, 45_000, 16, 60),
        (40, 9_000, 16, 40),
        (3, 600, 16, 16),
        (3, 5, 16, 5),
    ],
)
def test_the_audit_costs_its_share_of_the_scoring_or_a_few_rows(
    rows_scored: int, tokens: int, batch: int, expected: int
) -> None:
    assert audit.position_count(rows_scored, tokens, batch) == expected


def test_where_its_process_was_started_in_time_it_asks_for_more() -> None:
    assert audit.position_count(1000, 10**6, 16, audit.EARLY_SHARE) == 300


def test_no_probe_shows_what_another_one_still_asks_for(
    rows: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> None:
    probes = audit.draw_probes(rows, mask, committed(rows), 300, rng)
    batches = audit.schedule(probes, 16, rng)
    assert set(np.concatenate(batches).tolist()) == set(range(300))
    assert len(batches) <= 300 // 16 + 2
    longest = dict.fromkeys(range(N), -1)
    for take in batches:
        assert len(take) == 16
        distinct = set(take.tolist())
        assert len({int(probes.rows[index]) for index in distinct}) == len(distinct)
        for index in distinct:
            assert probes.positions[index] > longest[int(probes.rows[index])]
        longest.update({int(probes.rows[index]): int(probes.positions[index]) for index in distinct})


def test_the_foreign_rest_gives_no_piece_of_scored_text_away(rng: np.random.Generator) -> None:
    rows = np.arange(N * (T + 1), dtype=np.uint16).reshape(N, T + 1)
    probes = audit.draw_probes(rows, np.ones((N, T), bool), np.zeros((N, T), np.float32), 200, rng)
    follows = probes.tokens[:, 1:].astype(int) - probes.tokens[:, :-1] == 1
    inside = np.arange(1, T)[None, :] > probes.positions[:, None]
    assert follows[inside].mean() < 0.02


def test_fewer_rows_than_a_batch_are_asked_one_after_the_other(rng: np.random.Generator) -> None:
    rows = np.arange(T + 1, dtype=np.uint16)[None, :]
    probes = audit.draw_probes(rows, np.ones((1, T), bool), np.zeros((1, T), np.float32), T, rng)
    batches = audit.schedule(probes, 4, rng)
    assert [probes.positions[take].tolist() for take in batches] == [[n] * 4 for n in range(T)]


def audited(difference: np.ndarray, limit: audit.Tolerance = audit.REDUCED) -> AuditResult:
    """One trial's audit with these differences (K,) between logits and scores."""
    return AuditResult(
        positions=len(difference),
        max_abs=float(np.abs(difference).max()),
        mean_diff=float(difference.mean()),
        ok=True,
        spread=float(difference.std()),
        mean_limit=limit.mean,
        spread_limit=limit.spread,
    )


def test_an_advantage_under_noise_that_one_audit_lets_pass_shows_over_several(rng: np.random.Generator) -> None:
    refused = {1: 0, 6: 0}
    for _ in range(200):
        audits = [audited(0.0012 + 0.008 * rng.standard_normal(459)) for _ in range(6)]
        for count in refused:
            refused[count] += audit.pooled(audits[:count]) is not None
    assert refused[1] < 100 < 190 < refused[6]


def test_honest_rounding_is_not_refused_over_several_trials(rng: np.random.Generator) -> None:
    # One logit of fifty is rounded to a neighbour in bf16: two spacings apart half of the time, to either side.
    for _ in range(300):
        draws = [np.where(rng.random(459) < 0.01, rng.choice([-1, 1], 459) / 16, 0.0) for _ in range(3)]
        assert audit.pooled([audited(draw) for draw in draws]) is None


def test_audits_of_an_earlier_version_are_left_out_of_the_pool() -> None:
    old = AuditResult(positions=459, max_abs=0.1, mean_diff=0.1, ok=True)
    assert audit.pooled([old]) is None
    assert audit.pooled([]) is None


def test_half_of_the_positions_are_drawn_where_the_scores_beat_the_bigrams_most(
    rows: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> None:
    bigrams = Bigrams.count(rng.integers(0, V, 20_000).astype(np.uint16), V)  # all tokens alike: 3.9 nats everywhere
    scores = np.full((N, T), 10.0, np.float32)
    cheated = np.flatnonzero(mask)[:40]
    scores.flat[cheated] = 1.0
    drawn = [audit.draw_probes(rows, mask, scores, 60, rng, bigrams) for _ in range(20)]
    assert all(len(set(zip(p.rows, p.positions, strict=True))) == 60 for p in drawn)
    found = np.mean([(probes.committed == 1.0).sum() for probes in drawn])
    uniform = 30 * 40 / mask.sum()
    # The weighted half takes 30 of those that the uniform half has left; without weight it goes anywhere else.
    assert 30 <= found <= 30 + 2 * uniform + 1


def test_a_weight_that_is_nowhere_leaves_a_uniform_draw(
    rows: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> None:
    bigrams = Bigrams.count(rng.integers(0, V, 20_000).astype(np.uint16), V)
    probes = audit.draw_probes(rows, mask, np.full((N, T), 10.0, np.float32), 60, rng, bigrams)
    assert len(set(zip(probes.rows, probes.positions, strict=True))) == 60
    assert len(set(probes.rows.tolist())) > N // 2
