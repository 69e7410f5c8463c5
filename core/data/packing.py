"""Pack documents into rows of T + 1 tokens without padding. Every token of an epoch is a target exactly once.

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
"""Number of documents that `best_fit` chooses from."""
AGE_BITS = 40
"""Bits of a sort key that hold a document's age; its length is above them."""
AGES = (1 << AGE_BITS) - 1

Piece = tuple[np.ndarray, int, int]
"""(array, start, end): the tokens [start, end) of the array."""


class Packer:
    """An endless supply of the training text of one vocabulary, from which rows of any shape are drawn."""

    def __init__(self, shards: Sequence[Shard], seed: int) -> None:
        self._shards = shards
        self._seed = seed % 2**63
        self._starts = np.concatenate([shard.offsets[:-1] for shard in shards])
        self._stops = np.concatenate([shard.offsets[1:] for shard in shards])
        self.epoch_tokens = sum(len(shard.values) for shard in shards)
        """Number of tokens in all documents together, BOS included."""
        self._order = self._documents_of(0)
        self._exhausted = False
        self._tail: Piece | None = None
        self._returned: deque[Piece] = deque()
        self._age = 0
        self._pieces: dict[int, Piece] = {}
        self._ages: deque[int] = deque()
        self._by_length: list[int] = []
        self.epoch = 0
        """Number of complete passes over the text."""

    def best_fit(self, batch: int, seq: int) -> np.ndarray:
        """Return the next rows, uint16 (batch, seq + 1), with documents kept whole where that is possible."""
        return self._rows(batch, seq, self._take_fitting)

    def stream(self, batch: int, seq: int) -> np.ndarray:
        """Return the next rows, uint16 (batch, seq + 1), with documents one after the other."""
        return self._rows(batch, seq, lambda room: self._take_oldest())

    def documents(self, tokens: int) -> list[np.ndarray]:
        """Return the next whole documents, uint16 (n,) each, of `tokens` tokens or a little more together."""
        drawn: list[np.ndarray] = []
        while tokens > 0:
            values, start, end = self._take_document()
            drawn.append(values[start:end])
            tokens -= end - start
        return drawn

    def give_back(self, rows: np.ndarray) -> None:
        """Take back rows (n, seq + 1) that were drawn and not used. They come before anything new, in this order.

        The first token of each, which was input only, may become a target a second time.
        """
        self._returned.extend((row, 0, len(row)) for row in rows)

    def _rows(self, batch: int, seq: int, take: Callable[[int], Piece]) -> np.ndarray:
        rows = np.empty((batch, seq + 1), dtype=np.uint16)
        for row in rows:
            room = seq + 1
            values, start, end = self._tail or self._take_oldest()
            while end - start < room:
                row[seq + 1 - room : seq + 1 - room + end - start] = values[start:end]
                room -= end - start
                values, start, end = take(room)
            row[seq + 1 - room :] = values[start : start + room]
            # A document that ends where the row does leaves no tail: its last token has been a target already.
            self._tail = (values, start + room - 1, end) if start + room < end else None
        return rows

    def _take_fitting(self, room: int) -> Piece:
        """Take the longest document that fits in `room` tokens, the oldest of equals; else the oldest of all."""
        if self._returned:
            return self._returned.popleft()
        self._refill()
        # A row is led by one token that is input only, so a document that fills it has one token more than the room.
        found = bisect_right(self._by_length, (room + 1) << AGE_BITS) - 1
        if found < 0:
            return self._take_oldest()
        # Keys are length, then age: the first key of this length is its oldest document.
        first = bisect_left(self._by_length, self._by_length[found] >> AGE_BITS << AGE_BITS)
        return self._pieces.pop(self._by_length.pop(first) & AGES)

    def _take_oldest(self) -> Piece:
        """Take a row that was given back, else the document that was drawn first."""
        return self._returned.popleft() if self._returned else self._take_document()

    def _take_document(self) -> Piece:
        """Take the document that was drawn first."""
        self._refill()
        while (age := self._ages.popleft()) not in self._pieces:
            pass  # best fit has taken it
        piece = self._pieces.pop(age)
        del self._by_length[bisect_left(self._by_length, (piece[2] - piece[1]) << AGE_BITS | age)]
        return piece

    def _refill(self) -> None:
        """Hold HELD documents, or what the epoch still has; begin the next one when there is nothing left."""
        if self._exhausted and not self._pieces:
            self.epoch += 1
            self._order = self._documents_of(self.epoch)
            self._exhausted = False
        while len(self._pieces) < HELD and not self._exhausted:
            piece = next(self._order, None)
            if piece is None:
                self._exhausted = True
                return
            self._pieces[self._age] = piece
            self._ages.append(self._age)
            insort(self._by_length, (piece[2] - piece[1]) << AGE_BITS | self._age)
            self._age += 1

    def _documents_of(self, epoch: int) -> Iterator[Piece]:
        """Yield every document once, in this epoch's order."""
        ends = np.cumsum([len(shard) for shard in self._shards])
        order = np.random.default_rng([self._seed, epoch]).permutation(int(ends[-1]))
        for at in range(0, len(order), HELD):
            chosen = order[at : at + HELD]
            owners = np.searchsorted(ends, chosen, side="right").tolist()
            starts, stops = self._starts[chosen].tolist(), self._stops[chosen].tolist()
            for owner, start, stop in zip(owners, starts, stops, strict=True):
                yield self._shards[owner].values, start, stop
