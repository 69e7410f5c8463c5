"""Shards: files that hold many documents, as UTF-8 bytes or as tokens, and are memory-mapped when read.

Layout, little-endian: 64 bytes of header (magic, version, bytes per value, documents, values, zeros), then
`documents + 1` offsets as int64, then the values as uint8 or uint16. A file of any other length is not a shard.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.core.data.documents import Documents
from autoresearch.core.errors import DataError
from autoresearch.core.files import write_file

MAGIC = b"ARSHARD\n"
VERSION = 1
HEADER = struct.Struct("<8sIIQQ32x")
TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2")}
FIX = "run `ar prepare` again"


@dataclass(frozen=True)
class Shard:
    """`values` (n,) uint8 or uint16; document i is `values[offsets[i]:offsets[i + 1]]`."""

    path: Path
    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        bounds = self.offsets.tolist()
        for start, end in itertools.pairwise(bounds):
            yield self.values[start:end]

    def documents(self) -> Documents:
        """Return the documents as text in bulk. Only for a shard of bytes."""
        return Documents(self.values, self.offsets)


def write_shard(path: Path, values: np.ndarray, offsets: np.ndarray) -> str:
    """Write documents (uint8 text or uint16 tokens). Returns the file's SHA-256. Raises `OSError`."""
    size = values.dtype.itemsize
    header = HEADER.pack(MAGIC, VERSION, size, len(offsets) - 1, len(values))
    body = np.ascontiguousarray(values, dtype=TYPES[size])
    starts = np.ascontiguousarray(offsets, dtype=np.dtype("<i8"))
    return write_file(path, [header, starts.data.cast("B"), body.data.cast("B")])


def open_shard(path: Path) -> Shard:
    """Map a shard. Raises `DataError` when it is missing, cut short, or not a shard of this version."""
    try:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path} is missing.", fix=FIX) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.", fix=FIX) from error
    if len(raw) < HEADER.size:
        raise DataError(f"{path} is cut short: {len(raw)} bytes.", fix=FIX)
    magic, version, size, documents, count = HEADER.unpack(raw[: HEADER.size].tobytes())
    if magic != MAGIC or size not in TYPES:
        raise DataError(f"{path} is not a shard.", fix=FIX)
    if version != VERSION:
        raise DataError(f"{path} has format {version}, this program reads {VERSION}.", fix=FIX)
    start = HEADER.size + 8 * (documents + 1)
    if len(raw) != start + size * count:
        raise DataError(f"{path} has {len(raw)} bytes where {start + size * count} belong.", fix=FIX)
    # Plain views: slicing a memmap object costs several times as much.
    plain = np.asarray(raw)
    offsets = plain[HEADER.size : start].view("<i8")
    if offsets[0] != 0 or offsets[-1] != count or (documents and int(np.diff(offsets).min()) < 1):
        raise DataError(f"{path} has damaged document offsets.", fix=FIX)
    return Shard(path, plain[start:].view(TYPES[size]), offsets)
