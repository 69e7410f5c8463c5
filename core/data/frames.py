"""The messages between the feed and the train child, over one stream socket, little-endian throughout.

The child sends a request for every frame it wants (a credit); the feed answers requests in order, one frame each, until
the deadline. Then comes one END frame, unless a frame was cut off by the deadline, and the stream is closed.

Request, 16 bytes: magic, kind (ROWS or DOCUMENTS), packing (place in PACKINGS), zero, batch, seq.
    DOCUMENTS leaves packing, batch and seq zero.
Frame, 40 bytes: magic, kind, zeros, epoch, rows, columns, tokens handed out so far (this frame included), deadline
    (float64 seconds of the monotonic clock, which all processes of a machine share). Then:
    ROWS       rows x columns tokens as uint16; columns = seq + 1
    DOCUMENTS  `rows` lengths as uint32, then `columns` tokens as uint16: the documents end to end
    END        nothing
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

REQUEST = struct.Struct("<4sBBHII")
FRAME = struct.Struct("<4sBxxxIIIxxxxQd")
REQUEST_MAGIC = b"ARrq"
FRAME_MAGIC = b"ARfr"
ROWS, DOCUMENTS, END = 1, 2, 3
PACKINGS = ("best_fit", "stream")
MAX_BATCH_TOKENS = 1 << 24
"""Largest size of a frame of rows, in tokens (batch * seq)."""


class FrameError(ValueError):
    """Raised for bytes that are no request or frame, and for a request that cannot be served."""


@dataclass(frozen=True)
class Request:
    """A request for one frame."""

    kind: int
    packing: str = PACKINGS[0]
    batch: int = 0
    seq: int = 0

    def pack(self) -> bytes:
        """Return the bytes to send. Raises `FrameError` when the request cannot be served."""
        check_request(self)
        return REQUEST.pack(REQUEST_MAGIC, self.kind, PACKINGS.index(self.packing), 0, self.batch, self.seq)

    @classmethod
    def unpack(cls, data: bytes) -> Request:
        """Read REQUEST.size bytes. Raises `FrameError`."""
        magic, kind, packing, _, batch, seq = REQUEST.unpack(data)
        if magic != REQUEST_MAGIC:
            raise FrameError(f"{data[:16].hex()} is no request")
        if packing >= len(PACKINGS):
            raise FrameError(f"packing {packing} is unknown")
        request = cls(kind, PACKINGS[packing], batch, seq)
        check_request(request)
        return request


@dataclass(frozen=True)
class FrameHeader:
    """The fields before a frame's tokens."""

    kind: int
    epoch: int = 0
    rows: int = 0
    columns: int = 0
    tokens: int = 0
    deadline: float = 0.0

    def pack(self) -> bytes:
        """Return the bytes to send."""
        return FRAME.pack(FRAME_MAGIC, self.kind, self.epoch, self.rows, self.columns, self.tokens, self.deadline)

    @classmethod
    def unpack(cls, data: bytes) -> FrameHeader:
        """Read FRAME.size bytes. Raises `FrameError`."""
        magic, *fields = FRAME.unpack(data)
        if magic != FRAME_MAGIC:
            raise FrameError("the feed sent something that is no frame")
        return cls(*fields)


def check_request(request: Request) -> None:
    """Raise `FrameError` unless the request can be served."""
    if request.kind == DOCUMENTS:
        return
    if request.kind != ROWS:
        raise FrameError(f"requests of kind {request.kind} are unknown")
    if request.packing not in PACKINGS:
        raise FrameError(f"packing {request.packing!r} is unknown; there are {' and '.join(PACKINGS)}")
    if request.batch < 1 or request.seq < 1:
        raise FrameError(f"batch {request.batch} x seq {request.seq}: both must be at least 1")
    if request.batch * request.seq > MAX_BATCH_TOKENS:
        raise FrameError(f"batch {request.batch} x seq {request.seq} is more than {MAX_BATCH_TOKENS} tokens")
