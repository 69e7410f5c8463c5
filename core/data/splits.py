"""Split documents: val and test take theirs by a seeded hash of the content, train takes the rest."""

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
CLOSE_ENOUGH, TOO_MUCH = 0.02, 0.1
"""Shares of the wanted bytes that a split may lack, and may exceed them by."""
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
    """Amount of text that test lost because val has it too."""


def document_hashes(documents: Documents) -> np.ndarray:
    """Hash each document's bytes: uint64 (documents,). Its order is the order in which documents are held out."""
    digests = [hashlib.blake2b(document, digest_size=8, key=SPLIT_KEY).digest() for document in documents]
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def hold_out(corpus: Corpus, val_bytes: int, test_bytes: int) -> HeldOut:
    """Take whole documents for val, about `val_bytes`, then for test. Raises `DataError` for too little text."""
    read = corpus.held_out_documents if corpus.held_out else corpus.documents
    hashed = [(document_hashes(block), block.lengths) for block in read()]
    hashes = np.concatenate([hashes for hashes, _ in hashed] or [np.zeros(0, dtype=np.uint64)])
    lengths = np.concatenate([lengths for _, lengths in hashed] or [np.zeros(0, dtype=np.int64)])
    total = int(lengths.sum())
    if not total:
        raise DataError(f"{corpus.root} is empty: none of its files holds any text.", fix="put text there")
    largest = total // 2 if corpus.held_out else total // LARGEST_SHARE
    order, first = np.unique(hashes, return_index=True)
    sizes = lengths[first]
    for_val = _choose(sizes, np.ones(len(sizes), dtype=bool), min(val_bytes, largest))
    for_test = _choose(sizes, ~for_val, min(test_bytes, largest))
    left = len(sizes) - int(for_val.sum() + for_test.sum())
    if not (for_val.any() and for_test.any() and (left or corpus.held_out)):
        raise DataError(
            f"{corpus.root} has only {total} bytes in {len(order)} different documents: too little to split in three.",
            fix="use a larger corpus, some 100 kB at least",
        )
    val = join(_pick(read(), order[for_val]))
    test, cut = OverlapIndex(val).remove(join(_pick(read(), order[for_test])))
    if not len(test):
        raise DataError(
            f"{corpus.root} repeats itself: all text for test is in val too.", fix="use a more varied corpus"
        )
    return HeldOut(val, test, order[for_val | for_test], cut)


def _choose(sizes: np.ndarray, free: np.ndarray, wanted_bytes: int) -> np.ndarray:
    """Choose free documents, in their order, whose sizes come close to `wanted_bytes` together.

    One that would go far beyond is passed over, or a single long document could double the split. bool (documents,).
    """
    chosen = np.zeros(len(sizes), dtype=bool)
    missing = wanted_bytes
    beyond = int(wanted_bytes * TOO_MUCH)
    for document in np.flatnonzero(free & (sizes <= wanted_bytes + beyond)).tolist():
        if missing <= wanted_bytes * CLOSE_ENOUGH:
            break
        if sizes[document] <= missing + beyond:
            chosen[document] = True
            missing -= int(sizes[document])
    if not chosen.any() and free.any():
        chosen[np.flatnonzero(free)[np.argmin(sizes[free])]] = True  # every document is longer than what is wanted
    return chosen


def train_documents(corpus: Corpus, held: HeldOut) -> Iterator[tuple[Documents, Cut, Cut]]:
    """Yield blocks of training text, with the duplicates and then the overlaps that each lost to val and test."""
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
    """Yield the documents with these hashes, the first of each, in reading order."""
    seen = wanted[:0]
    for block in blocks:
        hashes = document_hashes(block)
        picked = np.isin(hashes, wanted) & _first_met(hashes, seen)
        seen = np.concatenate([seen, hashes[picked]])
        if picked.any():
            yield block.select(np.flatnonzero(picked))


def _first_met(hashes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mark the hashes that are neither in `seen` nor earlier in `hashes`."""
    first = np.zeros(len(hashes), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first & ~np.isin(hashes, seen)
