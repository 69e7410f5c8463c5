"""The core's bigram model: a likelihood for every pair, and low where the training text has it often."""

from __future__ import annotations

import numpy as np
import pytest

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.trial.surprise import Bigrams, bigrams_of


def test_the_likelihoods_of_all_tokens_after_one_sum_to_one() -> None:
    text = np.random.default_rng(0).integers(0, 20, 500).astype(np.uint16)
    bigrams = Bigrams.count(text, 23)
    for previous in (0, 7, 22):  # 22 was never seen
        nll = bigrams.nll(np.full(23, previous), np.arange(23))
        assert np.exp(-nll).sum() == pytest.approx(1.0)


def test_what_always_follows_is_no_surprise_and_what_never_did_is_one() -> None:
    bigrams = Bigrams.count(np.tile([1, 2, 3, 4], 1000).astype(np.uint16), 5)
    usual, never = bigrams.nll(np.array([1, 1]), np.array([2, 0]))
    assert usual < 0.01
    assert never > 8


def test_an_empty_training_text_gives_every_token_the_same() -> None:
    nll = Bigrams.count(np.zeros(0, np.uint16), 8).nll(np.arange(8), np.arange(8))
    assert nll == pytest.approx(np.full(8, np.log(8)))


def test_it_knows_real_text_better_than_chance(prepared: Prepared) -> None:
    scored = prepared.scored_rows("val", 512, 256)
    bigrams = bigrams_of(prepared, 512)
    nll = bigrams.nll(scored.rows[:, :-1][scored.mask], scored.rows[:, 1:][scored.mask])
    assert 2.0 < nll.mean() < np.log(512) - 1
    assert bigrams_of(prepared, 512) is bigrams
