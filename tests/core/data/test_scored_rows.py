import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.core.data.scored_rows import first_fit, rows_sha256, score_rows

BOS = 1
DOCUMENTS = st.lists(st.lists(st.integers(2, 400), min_size=1, max_size=60), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS, st.integers(min_value=1, max_value=40))
def test_every_token_is_a_target_exactly_once_after_the_token_before_it(
    documents: list[list[int]], seq_len: int
) -> None:
    # Tokens are made unique, so that a pair of tokens names its place.
    unique, number = [], 2
    for document in documents:
        unique.append(np.array([BOS, *range(number, number + len(document))], dtype=np.uint16))
        number += len(document)
    rows, mask = score_rows(unique, seq_len, BOS)
    assert rows.shape[1] == seq_len + 1
    assert mask.shape == (len(rows), seq_len)
    assert int(mask.sum()) == number - 2
    scored = sorted(zip(rows[:, 1:][mask].tolist(), rows[:, :-1][mask].tolist(), strict=True))
    expected = [(int(token), int(before)) for tokens in unique for before, token in itertools.pairwise(tokens)]
    assert scored == sorted(expected)


@given(st.lists(st.integers(1, 30), max_size=60))
def test_first_fit_puts_each_length_into_the_first_row_with_room(lengths: list[int]) -> None:
    lengths = sorted(lengths, reverse=True)
    places, count = first_fit(lengths, 30)
    used: list[int] = []
    for length, (row, column) in zip(lengths, places, strict=True):
        expected = next((i for i, size in enumerate(used) if size + length <= 30), len(used))
        if expected == len(used):
            used.append(0)
        assert (row, column) == (expected, used[expected])
        used[expected] += length
    assert count == len(used)


def test_the_checksum_notices_tokens_mask_and_byte_count() -> None:
    rows, mask = score_rows([np.array([1, 5, 6, 7], dtype=np.uint16)], 2, BOS)
    other_rows, other_mask = rows.copy(), mask.copy()
    other_rows[0, 1] += 1
    other_mask[0, 0] = not other_mask[0, 0]
    sums = {
        rows_sha256(*each) for each in [(rows, mask, 9), (other_rows, mask, 9), (rows, other_mask, 9), (rows, mask, 8)]
    }
    assert len(sums) == 4
