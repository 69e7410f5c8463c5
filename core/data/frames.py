"""What travels between feeder and train child over their socket, in both directions.

The child sends JSON lines: a request opens a stream, and each credit asks for one more frame of it.

    {"op": "batches", "stream": 1, "batch": B, "seq": T, "packing": "best_fit" | "stream"}
    {"op": "documents", "stream": 2}
    {"op": "next", "stream": 1}      also acknowledges that the frame before was handed out

The feeder answers with frames: a header, then a payload of little-endian uint16 tokens.

    BATCH      rows x width tokens, width = T + 1
    DOCUMENTS  `rows` lengths as uint32, then `width` tokens in all
    END        nothing: the budget is used up, and no frame will follow

A request is worth one frame, so the feeder is never more than one frame ahead of what was handed out.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import ClassVar

BATCH, DOCUMENTS, END = 1, 2, 3
MAGIC = b"ARF1"
LINE_LIMIT_BYTES = 4096
MAX_BATCH_TOKENS = 2**24
"""Tokens in one batch at most: 32 MiB on the wire."""


@dataclass(frozen=True)
class Header:
    """What comes before a payload."""

    kind: int
    stream: int
    rows: int
    width: int
    epoch: int
    tokens: int
    """Training tokens up to and including this frame."""
    started: float
    """Monotonic seconds at which the clock started."""

    _layout: ClassVar[struct.Struct] = struct.Struct("<4sIIIIIQd")
    SIZE: ClassVar[int] = _layout.size

    def pack(self) -> bytes:
        """As bytes."""
        return self._layout.pack(
            MAGIC, self.kind, self.stream, self.rows, self.width, self.epoch, self.tokens, self.started
        )

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """From bytes. Raises `ConnectionError` when they are no header."""
        magic, *fields = cls._layout.unpack(data)
        if magic != MAGIC:
            raise ConnectionError("the feed is out of step: no frame starts here")
        return cls(*fields)

    @property
    def payload_bytes(self) -> int:
        """How many bytes follow."""
        if self.kind == BATCH:
            return 2 * self.rows * self.width
        if self.kind == DOCUMENTS:
            return 4 * self.rows + 2 * self.width
        return 0


def receive_exactly(sock: socket.socket, count: int) -> bytearray:
    """`count` bytes. Raises `ConnectionError` when the other side closes first."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if got == 0:
            raise ConnectionError("the feed has closed")
        view = view[got:]
    return data
