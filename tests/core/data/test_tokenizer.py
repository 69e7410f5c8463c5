from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_corpora import prose

from autoresearch.core.data.tokenizer import PIECE_BYTES, Tokenizer, train_tokenizer, training_pieces
from autoresearch.core.errors import DataError

TRAINING = prose(0, 80) + "\t<s>strike</s> <unk> <0x41> 2581 \u2581 \u2585 äöü€\r\n" * 40


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer([TRAINING], 420), threads=1)


ODD = st.sampled_from(
    [
        "\0",
        "\r\n",
        "\u2581",
        "\u2585",
        "\u0301",
        "\u200d",
        "\ufeff",
        "\ufffd",
        "<s>",
        "</s>",
        "<unk>",
        "<0x41>",
        "\u2047",
    ]
)
TEXT = st.one_of(st.text(), st.lists(st.one_of(ODD, st.text(max_size=5), st.just(" " * 70))).map("".join))


@settings(max_examples=400, deadline=None)
@given(TEXT)
@example("")
@example("\0")
@example(" ")
@example("\u2581 \u2581\u2581")
@example("\u0301\u0301 a")
@example("\r\n\r\n\t")
@example(" " * 3000)
@example("<s><unk><0x41><0xE2><0x96><0x81>")
def test_any_text_comes_back(text: str) -> None:
    [tokens] = tokenizer().encode([text])
    assert tokens.dtype == np.uint16
    assert tokenizer().decode(tokens) == text


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_no_text_yields_the_control_tokens(text: str) -> None:
    [tokens] = tokenizer().encode([text])
    assert not np.isin(tokens, [0, tokenizer().bos_id]).any()


@given(st.lists(TEXT, max_size=5))
@settings(max_examples=50, deadline=None)
def test_texts_are_encoded_together_as_they_are_alone(texts: list[str]) -> None:
    together = tokenizer().encode(texts)
    assert [tokens.tolist() for tokens in together] == [tokenizer().encode([text])[0].tolist() for text in texts]


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_training_pieces_are_short_and_lose_only_reserved_characters(text: str) -> None:
    pieces = list(training_pieces([text * 50]))
    assert "".join(pieces) == (text * 50).replace("\u2581", "").replace("\u2585", "")
    assert all(len(piece.encode()) <= PIECE_BYTES for piece in pieces)


def test_text_full_of_special_spellings_can_be_learned_from() -> None:
    model = train_tokenizer(["<s>" * 2000 + "<0x41><unk>" * 500 + prose(1, 20)], 320)
    text = "<s><s><0x41>"
    assert Tokenizer(model).decode(Tokenizer(model).encode([text])[0]) == text


def test_a_vocabulary_too_large_for_the_text_names_the_largest() -> None:
    with pytest.raises(DataError, match=r"5000 is too large .* at most \d+ pieces.* Fix: choose --vocab \d+ or less"):
        train_tokenizer(["one two three"], 5000)


def test_a_vocabulary_too_small_for_the_bytes_names_a_larger_one() -> None:
    with pytest.raises(DataError, match=r"100 is too small.* Fix: choose --vocab \d+ or more"):
        train_tokenizer([prose(0, 5)], 100)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")], ids=["Ctrl-C", "disk"])
def test_what_interrupts_the_reading_of_the_text_is_not_taken_for_a_bad_vocabulary(error) -> None:
    def texts():
        yield prose(1, 20)
        raise error

    with pytest.raises(type(error)):
        train_tokenizer(texts(), 300)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(DataError, match="surrogate"):
        tokenizer().encode(["ok", "bad \ud800"])


@settings(max_examples=50, deadline=None)
@given(TEXT)
@example("<s> \u2581 äöü€ 7")
def test_the_bytes_of_the_tokens_add_up_to_those_of_the_text(text: str) -> None:
    sizes = tokenizer().token_bytes()
    assert len(sizes) == 420 and sizes[tokenizer().bos_id] == 0
    assert sum(sizes[token] for token in tokenizer().encode([text])[0]) == len(text.encode())
