"""Documents to rows. A row has T + 1 tokens: inputs are all but its last, targets all but its first.

Where a document is cut, the token before the cut is repeated at the start of what follows, so that every token of a
document, BOS apart, is a target exactly once.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import numpy as np

BUFFERED_PIECES = 1024
"""From how many pieces the best fit is chosen: more fills rows with fewer cuts, and costs start-up."""


class Packer(Protocol):
    """Makes batches from documents."""

    def batch(self, rows: int) -> np.ndarray:
        """uint16 (rows, T + 1). Raises `StopIteration` when a finite source is used up."""
        ...

    def leftovers(self) -> list[np.ndarray]:
        """What was taken from the source and is in no batch yet, oldest first. The packer is empty afterwards."""
        ...


class Stream:
    """Documents one after another, cut wherever a row ends."""

    def __init__(self, documents: Iterator[np.ndarray], seq: int) -> None:
        self._documents, self._seq = documents, seq
        self._tokens = np.empty(0, dtype=np.uint16)

    def batch(self, rows: int) -> np.ndarray:
        """uint16 (rows, T + 1)."""
        needed = rows * self._seq + 1
        parts, have = [self._tokens], len(self._tokens)
        while have < needed:
            try:
                part = next(self._documents)
            except StopIteration:
                self._tokens = np.concatenate(parts)
                raise
            parts.append(part)
            have += len(part)
        tokens = np.concatenate(parts)
        self._tokens = tokens[rows * self._seq :]
        starts = np.arange(rows)[:, None] * self._seq
        return tokens[starts + np.arange(self._seq + 1)]

    def leftovers(self) -> list[np.ndarray]:
        """The tokens of the row that was not finished."""
        rest, self._tokens = self._tokens, np.empty(0, dtype=np.uint16)
        return [rest] if len(rest) > 1 else []


class BestFit:
    """Rows filled with the longest pieces that fit; what is cut off comes back first.

    The oldest piece starts each row, so nothing waits for ever. When no piece fits the space that is left, the longest
    one is cut: its tail starts the next row.
    """

    def __init__(self, documents: Iterator[np.ndarray], seq: int, buffered: int = BUFFERED_PIECES) -> None:
        self._documents, self._width, self._buffered = documents, seq + 1, buffered
        self._pieces: dict[int, np.ndarray] = {}
        self._by_age: deque[int] = deque()
        self._by_length: list[tuple[int, int]] = []
        self._next_key = 0

    def batch(self, rows: int) -> np.ndarray:
        """uint16 (rows, T + 1)."""
        out = np.empty((rows, self._width), dtype=np.uint16)
        for row in out:
            self._fill(row)
        return out

    def leftovers(self) -> list[np.ndarray]:
        """Every piece in the buffer."""
        rest = [self._pieces[key] for key in self._by_age if key in self._pieces]
        self._pieces, self._by_age, self._by_length = {}, deque(), []
        return rest

    def _fill(self, row: np.ndarray) -> None:
        self._refill()
        space = self._width
        piece = self._take_oldest()
        while True:
            start = self._width - space
            if len(piece) > space:
                row[start:] = piece[:space]
                self._add(piece[space - 1 :], first=True)
                return
            row[start : start + len(piece)] = piece
            space -= len(piece)
            if not space:
                return
            if not self._by_length:
                self._refill()
            piece = self._take_for(space)

    def _refill(self) -> None:
        while len(self._pieces) < self._buffered:
            try:
                self._add(next(self._documents))
            except StopIteration:
                break
        if not self._pieces:
            raise StopIteration

    def _add(self, piece: np.ndarray, *, first: bool = False) -> None:
        if len(piece) < 2:
            return  # nothing in it to predict
        key, self._next_key = self._next_key, self._next_key + 1
        self._pieces[key] = piece
        insort(self._by_length, (len(piece), key))
        (self._by_age.appendleft if first else self._by_age.append)(key)

    def _take_oldest(self) -> np.ndarray:
        while (key := self._by_age.popleft()) not in self._pieces:
            pass  # it went into an earlier row
        piece = self._pieces.pop(key)
        del self._by_length[bisect_right(self._by_length, (len(piece), key)) - 1]
        return piece

    def _take_for(self, space: int) -> np.ndarray:
        """The longest piece that fits, or else the longest of all."""
        fits = bisect_right(self._by_length, (space, self._next_key))
        _, key = self._by_length.pop(fits - 1 if fits else -1)
        return self._pieces.pop(key)


PACKERS = {"best_fit": BestFit, "stream": Stream}
