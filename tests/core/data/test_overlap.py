import numpy as np
from made_corpora import prose

from autoresearch.core.data.documents import Documents
from autoresearch.core.data.overlap import STRIDE, WINDOW, OverlapIndex, window_hashes

SHARED = prose(1000, 8)[: WINDOW + STRIDE + 100].replace("\n", " ")


def test_windows_hash_alike_wherever_they_stand_and_differ_otherwise() -> None:
    text = np.frombuffer((prose(1, 3) + SHARED + prose(2, 3) + SHARED).encode(), dtype=np.uint8)
    hashes = window_hashes(text)
    first, second = len(prose(1, 3)), len(text) - len(SHARED)
    count = len(SHARED) - WINDOW + 1
    assert np.array_equal(hashes[first : first + count], hashes[second : second + count])
    windows = {text[i : i + WINDOW].tobytes() for i in range(len(hashes))}
    assert len(np.unique(hashes)) == len(windows) < len(hashes)


def test_a_shared_run_is_cut_out_and_the_rest_stays() -> None:
    before, after = prose(3, 3), prose(4, 3)
    index = OverlapIndex(Documents.of([(prose(5, 2) + SHARED).encode()]))
    rest, cut = index.remove(Documents.of([b"untouched " * 30, (before + SHARED + "\n" + after).encode()]))
    assert [document.decode() for document in rest] == ["untouched " * 30, before, after]
    assert (cut.documents, cut.bytes) == (1, len(SHARED) + 1)


def test_runs_shorter_than_a_window_stay() -> None:
    short = SHARED[: WINDOW - 1]
    documents = Documents.of([(prose(6, 2) + short).encode()])
    rest, cut = OverlapIndex(Documents.of([(short + prose(7, 2)).encode()])).remove(documents)
    assert (list(rest), cut.bytes) == (list(documents), 0)


def test_a_document_that_is_held_out_whole_disappears() -> None:
    document = prose(8, 20).encode()
    rest, cut = OverlapIndex(Documents.of([document])).remove(Documents.of([document, document]))
    assert (len(rest), cut.documents, cut.bytes) == (0, 2, 2 * len(document))


def test_cuts_in_text_without_lines_leave_whole_characters() -> None:
    shared = "äöü€" * 80
    left, right = "é" * 301, "日本" * 151
    rest, cut = OverlapIndex(Documents.of([("xx" + shared).encode()])).remove(
        Documents.of([(left + shared + right).encode()])
    )
    kept = [document.decode("utf-8") for document in rest]
    assert cut.bytes > 0
    assert kept[0].startswith(left[:250])
    assert kept[-1].endswith(right[-250:])


def test_no_window_reaches_across_two_documents() -> None:
    text = SHARED[: WINDOW + STRIDE].encode()
    halves = Documents.of([text[:100], text[100:]])
    rest, _ = OverlapIndex(halves).remove(Documents.of([text]))
    assert list(rest) == [text]
