"""Pack a split into the rows that are scored. Every token is a target exactly once, for any row length T.

A document is BOS + tokens. Its tokens are cut into chunks of at most T; each chunk is led by the token before it (BOS
for the first), which is input only. So a chunk takes up to T + 1 places, and first-fit decreasing packs chunks into
rows of T + 1.
The mask leaves out the leading token of every chunk, and padding (BOS, by convention).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def score_rows(documents: Iterable[np.ndarray], seq_len: int, bos_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows uint16 (N, T + 1) and mask bool (N, T) of documents uint16 (n,), each beginning with BOS.

    mask[i, t] says whether rows[i, t + 1] counts, as the target of rows[i, : t + 1].
    """
    chunks = [
        document[start : start + seq_len + 1]
        for document in documents
        for start in range(0, len(document) - 1, seq_len)
    ]
    chunks.sort(key=len, reverse=True)
    places, count = first_fit([len(chunk) for chunk in chunks], seq_len + 1)
    rows = np.full((count, seq_len + 1), bos_id, dtype=np.uint16)
    counts = np.zeros((count, seq_len + 1), dtype=bool)
    for chunk, (row, column) in zip(chunks, places, strict=True):
        rows[row, column : column + len(chunk)] = chunk
        counts[row, column + 1 : column + len(chunk)] = True
    return rows, counts[:, 1:]


def first_fit(lengths: list[int], room: int) -> tuple[list[tuple[int, int]], int]:
    """Put each length, in order, into the first row that has room for it.

    Returns (row, column) of each and the number of rows.
    """
    # A binary tree in an array, as a heap has it: the leaves most[size:] are the free room of every row, and each inner
    # node is the larger of its two children. The first row that fits is found by walking down, in logarithmic time.
    size = 1
    while size < len(lengths):
        size *= 2
    most = [room] * (2 * size)
    places = []
    used = 0
    for length in lengths:
        node = 1
        while node < size:
            node *= 2
            if most[node] < length:
                node += 1
        row = node - size
        places.append((row, room - most[node]))
        used = max(used, row + 1)
        most[node] -= length
        while node > 1:
            node //= 2
            most[node] = max(most[2 * node], most[2 * node + 1])
    return places, used


def rows_sha256(rows: np.ndarray, mask: np.ndarray, total_bytes: int) -> str:
    """Compute the SHA-256 of everything that a score depends on: shape, tokens, mask and the denominator."""
    digest = hashlib.sha256(f"{rows.shape[0]} {rows.shape[1]} {total_bytes}\n".encode())
    digest.update(np.ascontiguousarray(rows, dtype=np.dtype("<u2")).data)
    digest.update(np.packbits(mask).data)
    return digest.hexdigest()
