"""Which document goes where: val and test by a seeded hash of the content, everything else to train."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from autoresearch.core.data.corpora import Corpus
from autoresearch.core.data.documents import Documents, join
from autoresearch.core.data.overlap import Cut, OverlapIndex
from autoresearch.core.errors import DataError

SPLIT_KEY = b"autoresearch split 1"
"""Seeds the hash. Another key would hold out other documents."""
LARGEST_SHARE = 10
"""val and test each take at most one part in this many of a corpus that has no text of its own for them."""


@dataclass(frozen=True)
class HeldOut:
    """The two splits that are scored."""

    val: Documents
    test: Documents
    digests: np.ndarray
    """Hashes of all their documents as they were read, sorted: uint64 (documents,)."""
    test_cut: Cut
    """What test lost because val has it too."""


def document_hashes(documents: Documents) -> np.ndarray:
    """A hash of each document's bytes, uint64 (documents,). Its order is the order in which documents are held out."""
    digests = [hashlib.blake2b(document, digest_size=8, key=SPLIT_KEY).digest() for document in documents]
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def hold_out(corpus: Corpus, val_bytes: int, test_bytes: int) -> HeldOut:
    """Take whole documents for val until it has `val_bytes`, then for test. Raises `DataError` for too little text."""
    read = corpus.held_out_documents if corpus.held_out else corpus.documents
    hashed = [(document_hashes(block), block.lengths) for block in read()]
    hashes = np.concatenate([hashes for hashes, _ in hashed] or [np.zeros(0, dtype=np.uint64)])
    lengths = np.concatenate([lengths for _, lengths in hashed] or [np.zeros(0, dtype=np.int64)])
    total = int(lengths.sum())
    if not total:
        raise DataError(f"{corpus.root} is empty: none of its files holds any text.", fix="put text there")
    largest = total // 2 if corpus.held_out else total // LARGEST_SHARE
    order, first = np.unique(hashes, return_index=True)
    ends = np.cumsum(lengths[first])
    val_end = int(np.searchsorted(ends, min(val_bytes, largest))) + 1
    taken = int(ends[min(val_end, len(ends)) - 1])
    test_end = int(np.searchsorted(ends, taken + min(test_bytes, largest))) + 1
    if test_end + (0 if corpus.held_out else 1) > len(order):
        raise DataError(
            f"{corpus.root} has only {total} bytes in {len(order)} different documents: too little to split in three.",
            fix="use a larger corpus, some 100 kB at least",
        )
    val = join(_pick(read(), order[:val_end]))
    test, cut = OverlapIndex(val).remove(join(_pick(read(), order[val_end:test_end])))
    if not len(test):
        raise DataError(
            f"{corpus.root} repeats itself: all text for test is in val too.", fix="use a more varied corpus"
        )
    return HeldOut(val, test, order[:test_end], cut)


def train_documents(corpus: Corpus, held: HeldOut) -> Iterator[tuple[Documents, Cut, Cut]]:
    """Blocks of training text, with the duplicates and then the overlaps that each lost to val and test."""
    index = OverlapIndex(join([held.val, held.test]))
    # Where nothing is held out, the first copy that is met is the held-out document itself: not a duplicate.
    seen = held.digests if corpus.held_out else held.digests[:0]
    for block in corpus.documents():
        hashes = document_hashes(block)
        taken = np.isin(hashes, held.digests)
        first = taken & _first_met(hashes, seen)
        seen = np.concatenate([seen, hashes[first]])
        copies = taken & ~first
        kept, cut = index.remove(block.select(np.flatnonzero(~taken)) if taken.any() else block)
        yield kept, Cut(int(copies.sum()), int(block.lengths[copies].sum())), cut


def _pick(blocks: Iterable[Documents], wanted: np.ndarray) -> Iterator[Documents]:
    """Documents with these hashes, the first of each, in the order in which they are read."""
    seen = wanted[:0]
    for block in blocks:
        hashes = document_hashes(block)
        picked = np.isin(hashes, wanted) & _first_met(hashes, seen)
        seen = np.concatenate([seen, hashes[picked]])
        if picked.any():
            yield block.select(np.flatnonzero(picked))


def _first_met(hashes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which are neither in `seen` nor earlier in `hashes`."""
    first = np.zeros(len(hashes), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first & ~np.isin(hashes, seen)
