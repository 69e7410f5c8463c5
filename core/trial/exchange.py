"""Batches out and answers in over one socket, between the parent and a child that scores."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Iterable

import numpy as np

from autoresearch.core.trial.watch import Watch


class Exchange:
    """Sends and receives as far as it goes without waiting."""

    def __init__(self, watch: Watch, sock: socket.socket, payloads: Iterable[bytes], expected: int) -> None:
        """`expected` counts float32 numbers over all answers."""
        self.answer = np.empty(expected, dtype=np.float32)
        self.expected = expected * 4
        self.received = 0
        self._view = self.answer.data.cast("B")
        self._watch, self._sock = watch, sock
        self._payloads = iter(payloads)
        self._sending = memoryview(b"")
        sock.setblocking(False)
        # Two registrations of one socket: a selector takes each descriptor once, and sending ends before receiving.
        self._out: socket.socket | None = sock.dup()
        self._in: socket.socket | None = sock
        watch.listen(self._out, selectors.EVENT_WRITE, self._send)
        watch.listen(self._in, selectors.EVENT_READ, self._receive)

    @property
    def complete(self) -> bool:
        """Whether every answer is in."""
        return self.received == self.expected

    def close(self) -> None:
        """Stop listening."""
        self._stop_sending()
        self._stop_receiving()

    def _send(self) -> None:
        if not self._sending:
            self._sending = memoryview(next(self._payloads, b""))
        if not self._sending:
            self._stop_sending()
            return
        try:
            self._sending = self._sending[self._sock.send(self._sending) :]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._stop_sending()

    def _receive(self) -> None:
        count = 0
        with contextlib.suppress(ConnectionResetError):
            count = self._sock.recv_into(self._view[self.received :])
        self.received += count
        if count == 0 or self.complete:  # a connection closed too early shows in the child's end
            self._stop_receiving()

    def _stop_sending(self) -> None:
        if self._out is not None:
            self._watch.ignore(self._out)
            self._out.close()
            self._out = None

    def _stop_receiving(self) -> None:
        if self._in is not None:
            self._watch.ignore(self._in)
            self._in = None
