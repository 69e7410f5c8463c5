"""Documents into rows of T + 1 tokens without padding: every token of an epoch is a target exactly once.

A document (BOS + tokens) that is cut at the end of a row goes on at the start of the next one, led by the last token
before the cut, which is then input only. `stream` takes documents in order. `best_fit` fills a row with the longest
document that still fits, again and again, and cuts the oldest document it holds for what is left; so documents are
rarely cut far from an end, and a long one waits no longer than any other.

The order is drawn anew for every seed and epoch. Documents of two epochs are never mixed: at most one row has both.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from autoresearch.core.data.shards import Shard

HELD = 1024
"""Documents that `best_fit` chooses from."""
AGE_BITS = 40

Piece = tuple[np.ndarray, int, int]
"""Tokens [start, end) of an array."""


class Packer:
    """The training text of one vocabulary, without end. Rows of any shape are drawn from the same supply."""

    def __init__(self, shards: Sequence[Shard], seed: int) -> None:
        self._shards = shards
        self._seed = seed % 2**63
        self._order = self._documents_of(0)
        self._exhausted = False
        self._tail: Piece | None = None
        self._age = 0
        self._pieces: dict[int, Piece] = {}
        self._ages: deque[int] = deque()
        self._by_length: list[int] = []
        self.epoch = 0
        """Passes over the text that are complete."""

    def best_fit(self, batch: int, seq: int) -> np.ndarray:
        """The next rows, uint16 (batch, seq + 1): documents kept whole where that is possible."""
        return self._rows(batch, seq, self._fitting)

    def stream(self, batch: int, seq: int) -> np.ndarray:
        """The next rows, uint16 (batch, seq + 1): documents one after the other."""
        return self._rows(batch, seq, lambda room: self._oldest())

    def documents(self, tokens: int) -> list[np.ndarray]:
        """The next whole documents, uint16 (n,) each, of `tokens` tokens or a little more together."""
        drawn: list[np.ndarray] = []
        while tokens > 0:
            values, start, end = self._take(self._oldest())
            drawn.append(values[start:end])
            tokens -= end - start
        return drawn

    def _rows(self, batch: int, seq: int, choose: Callable[[int], int]) -> np.ndarray:
        rows = np.empty((batch, seq + 1), dtype=np.uint16)
        for row in rows:
            at = 0
            while at < seq + 1:
                piece = self._tail or self._take(choose(seq + 1 - at) if at else self._oldest())
                self._tail = None
                values, start, end = piece
                taken = min(end - start, seq + 1 - at)
                row[at : at + taken] = values[start : start + taken]
                at += taken
                if start + taken < end:
                    self._tail = (values, start + taken - 1, end)
        return rows

    def _fitting(self, room: int) -> int:
        """Age of the longest document that fits, the oldest of those; else of the oldest of all."""
        oldest = self._oldest()
        found = bisect_right(self._by_length, (room + 1) << AGE_BITS) - 1
        if found < 0:
            return oldest
        length = self._by_length[found] >> AGE_BITS
        key = self._by_length[bisect_left(self._by_length, length << AGE_BITS)]
        return key & ((1 << AGE_BITS) - 1)

    def _oldest(self) -> int:
        """Age of the document that was drawn first, having drawn enough of them."""
        if not self._pieces and self._exhausted:
            self.epoch += 1
            self._order = self._documents_of(self.epoch)
            self._exhausted = False
        while len(self._pieces) < HELD and not self._exhausted:
            piece = next(self._order, None)
            if piece is None:
                self._exhausted = True
            else:
                self._pieces[self._age] = piece
                self._ages.append(self._age)
                insort(self._by_length, (piece[2] - piece[1]) << AGE_BITS | self._age)
                self._age += 1
        while self._ages[0] not in self._pieces:
            self._ages.popleft()
        return self._ages[0]

    def _take(self, age: int) -> Piece:
        piece = self._pieces.pop(age)
        del self._by_length[bisect_left(self._by_length, (piece[2] - piece[1]) << AGE_BITS | age)]
        return piece

    def _documents_of(self, epoch: int) -> Iterator[Piece]:
        """Every document once, in this epoch's order."""
        counts = np.array([len(shard) for shard in self._shards])
        ends = np.cumsum(counts)
        order = np.random.default_rng([self._seed, epoch]).permutation(int(ends[-1]))
        owner = np.searchsorted(ends, order, side="right")
        local = order - (ends - counts)[owner]
        for shard, document in zip(owner.tolist(), local.tolist(), strict=True):
            held = self._shards[shard]
            yield held.values, int(held.offsets[document]), int(held.offsets[document + 1])
