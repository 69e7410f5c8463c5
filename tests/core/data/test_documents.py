from hypothesis import given
from hypothesis import strategies as st

from autoresearch.core.data.documents import Documents, in_blocks, join, split_long


@given(st.text(), st.integers(min_value=4, max_value=50))
def test_long_documents_are_cut_without_loss_between_characters(text: str, limit: int) -> None:
    pieces = split_long(text.encode(), limit)
    assert b"".join(pieces) == text.encode()
    assert all(len(piece) <= limit for piece in pieces)
    assert "".join(piece.decode() for piece in pieces) == text


def test_long_documents_are_cut_at_line_ends_where_there_are_any() -> None:
    assert split_long(b"one\ntwo\nthree\n", 9) == [b"one\ntwo\n", b"three\n"]


@given(st.lists(st.binary(max_size=20)), st.integers(min_value=1, max_value=60))
def test_blocks_keep_every_document_but_empty_ones_in_order(documents: list[bytes], block_bytes: int) -> None:
    kept = [document for document in documents if document]
    assert list(join(in_blocks(documents, block_bytes))) == kept


def test_documents_are_selected_by_place() -> None:
    assert list(Documents.of([b"a", b"bb", b"ccc"]).select([2, 0])) == [b"ccc", b"a"]
