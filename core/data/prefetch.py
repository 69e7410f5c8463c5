"""Pack batches in a background thread: while one batch is being sent, the next of the same shape is packed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from autoresearch.core.data.frames import DOCUMENTS, Request
from autoresearch.core.data.shuffle_buffer import ShuffleBuffer

SHAPES = 4
"""Largest number of shapes with a packed batch waiting. A file that alternates between this many loses no text."""
DOCUMENT_TOKENS = 1 << 16
"""Tokens in a frame of documents, approximately."""


@dataclass(frozen=True)
class Batch:
    """The payload of one frame."""

    payload: bytes | memoryview
    rows: int
    columns: int
    tokens: int
    """Number of training tokens: the targets of rows, or all tokens of documents."""
    epoch: int


class Prefetcher:
    """Owns the shuffle buffer in one thread, and keeps one batch ahead of the requests."""

    def __init__(self, buffer: ShuffleBuffer) -> None:
        self._buffer = buffer
        self._changed = threading.Condition()
        self._wanted: Request | None = None
        self._ready: dict[Request, Batch] = {}
        self._failure: Exception | None = None
        threading.Thread(target=self._work, daemon=True).start()

    def take(self, request: Request, deadline: float | None) -> Batch | None:
        """Return the next batch of this shape, or None when it is not ready by `deadline` (monotonic seconds)."""
        with self._changed:
            self._wanted = request
            self._changed.notify_all()
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._changed.wait_for(lambda: request in self._ready or self._failure is not None, timeout):
                return None
            if self._failure is not None:
                raise self._failure
            batch = self._ready.pop(request)
            self._changed.notify_all()
            return batch

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None and self._wanted not in self._ready)
                request = self._wanted
            # The condition above rules it out; the type does not know that.
            if request is None:
                continue
            try:
                # Outside the lock: packing takes milliseconds, and the feed must be able to hand out another batch
                # meanwhile.
                batch = pack_batch(self._buffer, request)
            except Exception as error:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready[request] = batch
                # A shape that is no longer asked for must not hold memory for ever; the oldest goes first.
                while len(self._ready) > SHAPES:
                    del self._ready[next(iter(self._ready))]
                self._changed.notify_all()


def pack_batch(buffer: ShuffleBuffer, request: Request) -> Batch:
    """Draw the rows or documents that a request asks for."""
    if request.kind == DOCUMENTS:
        documents = buffer.documents(DOCUMENT_TOKENS)
        lengths = np.array([len(document) for document in documents], dtype="<u4")
        tokens = np.concatenate(documents).astype("<u2", copy=False)
        return Batch(lengths.tobytes() + tokens.tobytes(), len(documents), len(tokens), len(tokens), buffer.epoch)
    rows = np.ascontiguousarray(buffer.rows(request.packing, request.batch, request.seq), dtype="<u2")
    return Batch(rows.data.cast("B"), len(rows), request.seq + 1, request.batch * request.seq, buffer.epoch)
