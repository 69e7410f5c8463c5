from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.core.data.documents import offsets_of
from autoresearch.core.data.packing import HELD, Packer
from autoresearch.core.data.shards import Shard

BOS = 1
Draw = Callable[[Packer, int, int], np.ndarray]
DRAWS: dict[str, Draw] = {"best_fit": Packer.best_fit, "stream": Packer.stream}


def shard(lengths: list[int], first: int = 2) -> Shard:
    """Documents of BOS and `lengths` tokens each; every token has a number of its own."""
    documents, number = [], first
    for length in lengths:
        documents.append(np.array([BOS, *range(number, number + length)], dtype=np.uint16))
        number += length
    sizes = np.array([len(document) for document in documents])
    return Shard(Path("made-up"), np.concatenate(documents), offsets_of(sizes))


def targets(rows: np.ndarray) -> list[int]:
    """Tokens in the order in which they are targets, without BOS."""
    return [token for token in rows[:, 1:].ravel().tolist() if token != BOS]


@pytest.mark.parametrize("packing", DRAWS)
@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=40),
    batch=st.integers(1, 4),
    seq=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_every_token_is_a_target_exactly_once_an_epoch(
    packing: str, lengths: list[int], batch: int, seq: int, seed: int
) -> None:
    middle = len(lengths) // 2
    shards = [shard(lengths[middle:], first=2 + sum(lengths[:middle]))]
    if middle:
        shards.append(shard(lengths[:middle]))
    packer, total, drawn = Packer(shards, seed), sum(lengths), []
    while len(drawn) < 3 * total:
        drawn += targets(DRAWS[packing](packer, batch, seq))
    for epoch in range(3):
        assert sorted(drawn[epoch * total : (epoch + 1) * total]) == list(range(2, 2 + total))
    assert packer.epoch >= 2


@pytest.mark.parametrize("packing", DRAWS)
def test_a_target_follows_its_own_document_wherever_rows_are_cut(packing: str) -> None:
    packer = Packer([shard([5, 300, 17, 1, 64, 90])], seed=3)
    rows = DRAWS[packing](packer, 40, 16)
    inputs, wanted = rows[:, :-1], rows[:, 1:]
    inside = (wanted != BOS) & (inputs != BOS)
    assert np.array_equal(wanted[inside], inputs[inside] + 1)


@pytest.mark.parametrize("packing", DRAWS)
def test_order_depends_on_seed_and_epoch_and_on_nothing_else(packing: str) -> None:
    corpus = [shard([7] * 50)]
    first, again, other = (DRAWS[packing](Packer(corpus, seed), 60, 8) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[:40], DRAWS[packing](Packer(corpus, 1), 100, 8)[50:90])


def test_best_fit_fills_rows_exactly_where_lengths_allow() -> None:
    rows = Packer([shard([7, 3] * 100)], seed=0).best_fit(80, 11)
    assert (rows[:, 0] == BOS).all()
    assert ((rows == BOS).sum(axis=1) >= 2).all()


def test_long_documents_come_in_time() -> None:
    rng = np.random.default_rng(0)
    lengths = [int(length) for length in rng.integers(4, 10, size=4000)]
    lengths[1234] = 500
    start = 2 + sum(lengths[:1234])
    packer = Packer([shard(lengths)], seed=5)
    place = np.random.default_rng([5, 0]).permutation(4000).tolist().index(1234)
    rows = packer.best_fit(2000, 32)
    came = np.flatnonzero((rows == start).any(axis=1))[0]
    # Each row takes the oldest document, or goes on with one; so the wait is bounded by what was drawn before it.
    assert came <= place + 500 // 32 + 1
    assert place - HELD < 6 * came


@pytest.mark.parametrize("packing", DRAWS)
def test_shapes_may_change_without_losing_text(packing: str) -> None:
    lengths = [13, 40, 7, 99, 21] * 4
    packer, drawn, seqs = Packer([shard(lengths)], seed=1), [], [8, 16, 5, 32]
    while len(drawn) < sum(lengths):
        drawn += targets(DRAWS[packing](packer, 1, seqs[len(drawn) % 4]))
    assert sorted(drawn[: sum(lengths)]) == list(range(2, 2 + sum(lengths)))


def test_documents_come_whole_and_each_once_an_epoch() -> None:
    lengths = [13, 40, 7, 99, 21]
    packer = Packer([shard(lengths)], seed=1)
    drawn = [packer.documents(1)[0] for _ in lengths]
    assert sorted(len(document) - 1 for document in drawn) == sorted(lengths)
    assert all(document[0] == BOS for document in drawn)
    assert packer.epoch == 0
    packer.documents(1)
    assert packer.epoch == 1


def test_documents_are_whole_even_after_rows_were_given_back() -> None:
    packer = Packer([shard([50] * 20)], seed=1)
    packer.give_back(packer.best_fit(4, 16))
    assert all(document[0] == BOS and len(document) == 51 for document in packer.documents(500))
    assert len(set(targets(packer.best_fit(4, 16)))) >= 60
