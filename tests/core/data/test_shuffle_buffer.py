from pathlib import Path

import numpy as np
import pytest

from autoresearch.core.data.documents import offsets_of
from autoresearch.core.data.packing import Packer
from autoresearch.core.data.shards import Shard
from autoresearch.core.data.shuffle_buffer import POOL_ROWS, POOLS, ShuffleBuffer

BOS = 1


def corpus(lengths: list[int]) -> Shard:
    """Documents whose tokens are all the document's own number, from 2."""
    documents = [np.array([BOS] + [2 + i] * length, dtype=np.uint16) for i, length in enumerate(lengths)]
    sizes = np.array([len(document) for document in documents])
    return Shard(Path("made-up"), np.concatenate(documents), offsets_of(sizes))


def buffer(lengths: list[int], seed: int = 0) -> ShuffleBuffer:
    return ShuffleBuffer(Packer([corpus(lengths)], seed), seed)


@pytest.mark.parametrize("packing", ["best_fit", "stream"])
def test_a_batch_holds_many_documents_even_when_each_fills_hundreds_of_rows(packing: str) -> None:
    rows = buffer([4000] * 20).rows(packing, 16, 64)
    assert len({int(row[-1]) for row in rows}) >= 5


@pytest.mark.parametrize("packing", ["best_fit", "stream"])
def test_a_pool_holds_the_rows_that_the_packer_made_and_no_others(packing: str) -> None:
    lengths = [30, 500, 9, 77] * 50
    packer = Packer([corpus(lengths)], 3)
    count = packer.epoch_tokens // 16 // 8 * 8
    buffered = buffer(lengths, seed=3)
    drawn = np.concatenate([buffered.rows(packing, count // 8, 16) for _ in range(8)])
    made = (packer.best_fit if packing == "best_fit" else packer.stream)(packer.epoch_tokens // 16, 16)
    assert not np.array_equal(drawn, made)
    left_over = len(made) - count
    assert len(set(map(tuple, made.tolist())) - set(map(tuple, drawn.tolist()))) <= left_over
    assert set(map(tuple, drawn.tolist())) <= set(map(tuple, made.tolist()))


def test_a_small_text_comes_once_before_it_comes_again_and_the_epoch_counts_that() -> None:
    buffered = buffer([50] * 40)
    first = buffered.rows("best_fit", 90, 16)  # of 127 in an epoch
    assert buffered.epoch == 0
    assert all((first[:, 1:] == document).sum() <= 50 for document in range(2, 42))
    buffered.rows("best_fit", 90, 16)
    assert buffered.epoch == 0  # filled when the last document of the first epoch was not yet through
    buffered.rows("best_fit", 127, 16)
    assert buffered.epoch == 1


def test_the_order_is_the_seeds_own() -> None:
    lengths = [50] * 300
    first, again, other = (buffer(lengths, seed).rows("best_fit", 64, 8) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_text_in_the_pool_of_a_shape_that_is_given_up_comes_back() -> None:
    lengths = [100] * 2000
    buffered = buffer(lengths)
    seen: set[int] = set()
    seqs = [8 + i for i in range(POOLS + 1)]
    for seq in seqs:
        seen |= set(buffered.rows("best_fit", 4, seq).ravel().tolist())
    last = seqs[-1]
    while buffered.epoch == 0:
        seen |= set(buffered.rows("best_fit", 64, last).ravel().tolist())
    for seq in seqs[1:-1]:
        seen |= set(buffered.rows("best_fit", POOL_ROWS - 4, seq).ravel().tolist())
    seen |= set(buffered.rows("best_fit", 2 * POOL_ROWS, last).ravel().tolist())
    assert seen >= {BOS, *range(2, 2002)}
