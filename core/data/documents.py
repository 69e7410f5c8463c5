"""Documents in bulk: the UTF-8 text of many documents in one array, for numpy to work on at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_BYTES = 8 << 20
"""Size of the text that is worked on at once, in bytes, approximately."""


@dataclass(frozen=True)
class Documents:
    """`data` uint8 (bytes,) holds the documents end to end; `offsets` int64 (documents + 1,) where each begins."""

    data: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, documents: Iterable[bytes]) -> Documents:
        """Join these documents, in order, leaving out empty ones."""
        parts = [document for document in documents if document]
        lengths = np.fromiter((len(part) for part in parts), dtype=np.int64, count=len(parts))
        return cls(np.frombuffer(b"".join(parts), dtype=np.uint8), offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[bytes]:
        text = self.data.tobytes()
        bounds = self.offsets.tolist()
        for start, end in itertools.pairwise(bounds):
            yield text[start:end]

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, int64 (documents,)."""
        return np.diff(self.offsets)

    def texts(self) -> list[str]:
        """Decode every document."""
        return [document.decode("utf-8") for document in self]

    def select(self, indices: Sequence[int] | np.ndarray) -> Documents:
        """Return the documents at these indices, in this order."""
        bounds = self.offsets.tolist()
        parts = [self.data[bounds[i] : bounds[i + 1]] for i in np.asarray(indices, dtype=np.int64).tolist()]
        return join_arrays(parts)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Compute where pieces of these lengths begin when they are joined: int64 (pieces + 1,), the total length last."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def join_arrays(parts: Sequence[np.ndarray]) -> Documents:
    """Make one document of each array of bytes."""
    lengths = np.fromiter((len(part) for part in parts), dtype=np.int64, count=len(parts))
    data = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint8)
    return Documents(data, offsets_of(lengths))


def join(blocks: Iterable[Documents]) -> Documents:
    """Join all documents of the blocks, in order."""
    held = list(blocks)
    lengths = np.concatenate([block.lengths for block in held]) if held else np.zeros(0, dtype=np.int64)
    data = np.concatenate([block.data for block in held]) if held else np.zeros(0, dtype=np.uint8)
    return Documents(data, offsets_of(lengths))


def split_long(document: bytes, limit: int) -> list[bytes]:
    """Cut a document into pieces of at most `limit` bytes: after a line where there is one, else between characters.

    `b"".join` of the pieces is the document. `limit` must be at least 4, the longest character in UTF-8.
    """
    pieces = []
    start = 0
    while len(document) - start > limit:
        cut = document.rfind(b"\n", start, start + limit) + 1
        if cut <= start:
            cut = start + limit
            while document[cut] & 0xC0 == 0x80:
                cut -= 1
        pieces.append(document[start:cut])
        start = cut
    pieces.append(document[start:])
    return pieces


def in_blocks(documents: Iterable[bytes], block_bytes: int = BLOCK_BYTES) -> Iterator[Documents]:
    """Gather single documents into blocks of about `block_bytes`."""
    held: list[bytes] = []
    size = 0
    for document in documents:
        held.append(document)
        size += len(document)
        if size >= block_bytes:
            yield Documents.of(held)
            held, size = [], 0
    if held:
        yield Documents.of(held)
