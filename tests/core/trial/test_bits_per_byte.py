"""The score's arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoresearch.core.trial.evaluation import ScoreFault, bits_per_byte, row_batches


def test_a_uniform_model_over_bytes_has_eight_bits_per_byte() -> None:
    nll = np.full((3, 4), math.log(256), np.float32)
    assert bits_per_byte(nll, np.ones((3, 4), bool), 12) == pytest.approx(8.0, rel=1e-7)


def test_masked_targets_do_not_count_whatever_they_hold() -> None:
    nll = np.array([[1.0, np.nan], [2.0, np.inf]], np.float32)
    mask = np.array([[True, False], [True, False]])
    assert bits_per_byte(nll, mask, 10) == pytest.approx(3.0 / (math.log(2) * 10))


def test_the_sum_does_not_lose_small_terms() -> None:
    nll = np.full((4096, 2048), 0.1, np.float32)
    expected = nll.size * float(np.float32(0.1)) / math.log(2)
    assert bits_per_byte(nll, np.ones(nll.shape, bool), 1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not a finite"), (np.inf, "not a finite"), (-0.5, "negative")])
def test_an_impossible_loss_is_no_score(value: float, words: str) -> None:
    nll = np.ones((2, 2), np.float32)
    nll[1, 0] = value
    with pytest.raises(ScoreFault, match=words):
        bits_per_byte(nll, np.ones((2, 2), bool), 1)


@pytest.mark.parametrize(("rows", "batch"), [(5, 2), (4, 2), (1, 8), (3, 7)])
def test_every_batch_has_one_shape_and_every_row_comes_once(rows: int, batch: int) -> None:
    array = np.arange(rows * 3, dtype=np.uint16).reshape(rows, 3)
    batches = list(row_batches(array, batch))
    assert {part.shape for part in batches} == {(batch, 3)}
    assert np.array_equal(np.concatenate(batches)[:rows], array)
