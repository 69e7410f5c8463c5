"""Packs ahead in a background thread, so that a frame is ready when it is asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from autoresearch.core.data.frames import MAX_BATCH_TOKENS
from autoresearch.core.data.order import EpochOrder
from autoresearch.core.data.packing import PACKERS, Packer

AHEAD = 2
"""Frames that lie ready."""
DOCUMENT_FRAME_TOKENS = 1 << 15


@dataclass(frozen=True)
class StreamRequest:
    """What a train file asked for: rows of a shape, or whole documents."""

    packing: str | None
    batch: int = 0
    seq: int = 0

    @classmethod
    def parse(cls, message: Mapping[str, Any]) -> StreamRequest:
        """From a request line. Raises `ValueError` saying what is wrong with it."""
        if message["op"] == "documents":
            return cls(packing=None)
        if message["op"] != "batches":
            raise ValueError(f"unknown operation {message['op']!r}")
        batch, seq, packing = message["batch"], message["seq"], message["packing"]
        if not (isinstance(batch, int) and isinstance(seq, int) and batch > 0 and seq > 0):
            raise ValueError(f"batch {batch!r} and seq {seq!r} must be positive whole numbers")
        if batch * seq > MAX_BATCH_TOKENS:
            raise ValueError(f"batch {batch} x seq {seq} is more than {MAX_BATCH_TOKENS} tokens")
        if packing not in PACKERS:
            raise ValueError(f"packing {packing!r} is not one of {', '.join(PACKERS)}")
        return cls(packing, batch, seq)


@dataclass(frozen=True)
class Made:
    """One frame's content."""

    payload: bytes
    rows: int
    width: int
    tokens: int
    """Targets in it, or document tokens."""
    epoch: int
    is_documents: bool
    pieces: tuple[np.ndarray, ...]
    """What goes back to the source if it is never sent."""


class Producer:
    """Makes the frames of one stream."""

    def __init__(self, order: EpochOrder, request: StreamRequest) -> None:
        self._order, self._request = order, request
        self._ready: queue.Queue[Made | BaseException] = queue.Queue(maxsize=AHEAD)
        self._closed = threading.Event()
        self._packer: Packer | None = None
        self._held: Made | None = None
        self._thread = threading.Thread(target=self._run, name="packing", daemon=True)
        self._thread.start()

    def take(self, timeout: float) -> Made | None:
        """The next frame, or None when it is not ready in time. Raises what went wrong while packing."""
        try:
            made = self._ready.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        """Stop, and give back to the source what was taken from it and not sent, oldest first."""
        if self._closed.is_set():
            return
        self._closed.set()
        unsent: list[Made] = []
        while self._thread.is_alive() or not self._ready.empty():
            made = self.take_quietly()
            if made is not None:
                unsent.append(made)
        self._thread.join()
        if self._held is not None:
            unsent.append(self._held)
        pieces = [piece for made in unsent for piece in made.pieces]
        self._order.give_back(pieces + (self._packer.leftovers() if self._packer else []))

    def take_quietly(self) -> Made | None:
        """What is ready, if it is a frame."""
        try:
            made = self._ready.get(timeout=0.01)
        except queue.Empty:
            return None
        return made if isinstance(made, Made) else None

    def _run(self) -> None:
        try:
            for made in self._frames():
                while not self._closed.is_set():
                    try:
                        self._ready.put(made, timeout=0.05)
                        break
                    except queue.Full:
                        continue
                else:
                    self._held = made
                    return
        except Exception as error:
            self._ready.put(error)  # carried to whoever takes the next frame

    def _frames(self) -> Iterator[Made]:
        request = self._request
        if request.packing is None:
            yield from self._document_frames()
            return
        self._packer = PACKERS[request.packing](self._order, request.seq)
        while True:
            rows = self._packer.batch(request.batch)
            tokens = request.batch * request.seq
            payload = rows.astype("<u2", copy=False).tobytes()
            yield Made(payload, request.batch, request.seq + 1, tokens, self._order.epoch, False, tuple(rows))

    def _document_frames(self) -> Iterator[Made]:
        while True:
            documents, tokens = [], 0
            while tokens < DOCUMENT_FRAME_TOKENS:
                documents.append(next(self._order))
                tokens += len(documents[-1])
            lengths = np.array([len(document) for document in documents], dtype="<u4")
            payload = lengths.tobytes() + np.concatenate(documents).astype("<u2", copy=False).tobytes()
            yield Made(payload, len(documents), tokens, tokens, self._order.epoch, True, tuple(documents))
