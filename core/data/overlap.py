"""Remove long runs of text that two splits share, so that no text is both trained on and scored.

A window of WINDOW bytes is hashed as a polynomial modulo 2^64 over random values per byte (Karp and Rabin, 1987). The
held-out text is indexed at every STRIDE-th byte and the other text is looked up at every byte, so every shared run of
at least WINDOW + STRIDE - 1 (about 200) bytes is found; up to STRIDE bytes at either end of it may stay.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from autoresearch.core.data.documents import BLOCK_BYTES, Documents, join_arrays

WINDOW = 150
"""Bytes per hashed window."""
STRIDE = 50
"""Bytes between two indexed windows of the held-out text."""
WIDEN = 200
"""A cut is widened to whole lines when their ends are at most this many bytes away, else to whole characters."""
TABLE_BITS = 24
"""Size of the first lookup table, as a power of two: 16 million flags."""
_RANDOM = np.random.default_rng(150)
_VALUES = _RANDOM.integers(0, 2**64, size=256, dtype=np.uint64)
_BASE = int(_RANDOM.integers(0, 2**63, dtype=np.uint64)) * 2 + 1


@dataclass(frozen=True)
class Cut:
    """Amount of text that `remove` took out."""

    documents: int
    """Number of documents that lost text, some of them all of it."""
    bytes: int


def window_hashes(data: np.ndarray) -> np.ndarray:
    """Hash every window of `data`, uint64 (bytes - WINDOW + 1,). Equal windows have equal hashes wherever they are."""
    count = len(data) - WINDOW + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    # sums[i] = sum over j < i of value[j] * base^j. A window's hash is a difference, moved to place 0.
    powers = np.full(len(data), _BASE, dtype=np.uint64)
    powers[0] = 1
    np.cumprod(powers, out=powers)
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(_VALUES[data] * powers, out=sums[1:])
    inverse = np.full(count, pow(_BASE, -1, 2**64), dtype=np.uint64)
    inverse[0] = 1
    np.cumprod(inverse, out=inverse)
    hashes: np.ndarray = (sums[WINDOW:] - sums[:count]) * inverse
    return hashes


class OverlapIndex:
    """Knows the windows of some held-out documents, and removes them from other documents."""

    def __init__(self, documents: Documents) -> None:
        found = [hashes[starts % STRIDE == 0] for hashes, starts in _inside(documents)]
        self._hashes = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.uint64)
        self._table = np.zeros(1 << TABLE_BITS, dtype=bool)
        self._table[self._slots(self._hashes)] = True

    def remove(self, documents: Documents) -> tuple[Documents, Cut]:
        """Return the documents without the indexed text, and how much was cut. One cut in the middle becomes two."""
        spans = self._spans(documents)
        if not len(spans):
            return documents, Cut(0, 0)
        parts: list[np.ndarray] = []
        touched = removed = row = 0
        bounds, rows = documents.offsets.tolist(), spans.tolist()
        for start, end in itertools.pairwise(bounds):
            at, before = start, removed
            while row < len(rows) and rows[row][0] < end:
                left, right = _widen(documents.data, rows[row][0], rows[row][1], start, end)
                left = max(left, at)
                row += 1
                if right <= at:
                    continue
                if left > at:
                    parts.append(documents.data[at:left])
                removed += right - left
                at = right
            if at < end:
                parts.append(documents.data[at:end])
            touched += removed > before
        return join_arrays(parts), Cut(touched, removed)

    def _spans(self, documents: Documents) -> np.ndarray:
        """Merge matching windows into runs: int64 (spans, 2) of begin and end, none across two documents."""
        starts = np.concatenate(
            [at[self._contains(hashes)] for hashes, at in _inside(documents, absolute=True)] or [[]]
        )
        starts = starts.astype(np.int64)
        if not len(starts):
            return np.zeros((0, 2), dtype=np.int64)
        document = np.searchsorted(documents.offsets, starts, side="right")
        gap = (starts[1:] > starts[:-1] + WINDOW) | (document[1:] != document[:-1])
        first = np.concatenate([[True], gap])
        last = np.concatenate([gap, [True]])
        return np.stack([starts[first], starts[last] + WINDOW], axis=1)

    def _contains(self, hashes: np.ndarray) -> np.ndarray:
        """Mark the hashes that are indexed: look them up in a small table first, then exactly."""
        held = self._table[self._slots(hashes)]
        maybe = np.flatnonzero(held)
        held[maybe] = np.isin(hashes[maybe], self._hashes)
        return held

    @staticmethod
    def _slots(hashes: np.ndarray) -> np.ndarray:
        # The high bits: low bits of such a sum depend on few bits of the text.
        return (hashes >> np.uint64(64 - TABLE_BITS)).astype(np.int64)


def _inside(documents: Documents, absolute: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """Hash the windows that lie inside one document, and say where each begins (in its document, or absolutely)."""
    found = []
    for low, high in _runs(documents):
        start, end = int(documents.offsets[low]), int(documents.offsets[high])
        hashes = window_hashes(documents.data[start:end])
        at = np.arange(start, start + len(hashes), dtype=np.int64)
        owner = np.searchsorted(documents.offsets, at, side="right")
        fits = at + WINDOW <= documents.offsets[owner]
        at, hashes = at[fits], hashes[fits]
        found.append((hashes, at if absolute else at - documents.offsets[owner[fits] - 1]))
    return found


def _runs(documents: Documents) -> list[tuple[int, int]]:
    """Group the documents into ranges of about a block each, so that memory stays small."""
    marks = np.searchsorted(documents.offsets, np.arange(0, int(documents.offsets[-1]) + BLOCK_BYTES, BLOCK_BYTES))
    edges = np.unique(np.minimum(marks, len(documents))).tolist()
    return list(itertools.pairwise(edges))


def _widen(data: np.ndarray, left: int, right: int, start: int, end: int) -> tuple[int, int]:
    """Grow a cut inside its document [start, end) to whole lines or at least whole characters."""
    low, high = max(start, left - WIDEN), min(end, right + WIDEN)
    before, after = data[low:left].tobytes(), data[right:high].tobytes()
    if (newline := before.rfind(b"\n")) >= 0 or low == start:
        left = low + newline + 1 if newline >= 0 else start
    while left > start and data[left] & 0xC0 == 0x80:
        left -= 1
    if (newline := after.find(b"\n")) >= 0 or high == end:
        right = right + newline + 1 if newline >= 0 else end
    while right < end and data[right] & 0xC0 == 0x80:
        right += 1
    return left, right
