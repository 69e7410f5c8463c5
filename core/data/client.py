"""The train child's side of the feed: `data` and `clock` as a train file sees them."""

from __future__ import annotations

import itertools
import json
import socket
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from autoresearch.backends.contract import Array, BatchInfo, Packing, Runtime
from autoresearch.core.data.frames import END, Header, receive_exactly

RECENT_INTERVALS = 16
"""How many steps the expected length of the next one is taken from."""


class FeedClock:
    """A view of the parent's clock: monotonic time is the same in every process of a machine."""

    def __init__(self, budget_seconds: float, send_log: Callable[[dict[str, Any]], None]) -> None:
        self._budget = budget_seconds
        self._send_log = send_log
        self._started: float | None = None

    def start(self, started: float) -> None:
        """Told by the feeder with its first frame, in monotonic seconds."""
        if self._started is None:
            self._started = started

    @property
    def budget(self) -> float:
        """Seconds of training."""
        return self._budget

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never below 0."""
        if self._started is None:
            return self._budget
        return max(0.0, self._started + self._budget - time.monotonic())

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1."""
        return 1.0 - self.remaining / self._budget

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Send one point of the live curve."""
        self._send_log({"event": "log", "step": step, "loss": loss, "progress": self.progress, **scalars})


class FeedClient:
    """Training data over a socket. Implements `contract.Data`."""

    def __init__(self, sock: socket.socket, *, runtime: Runtime, vocab_size: int, seed: int) -> None:
        self._sock = sock
        self._runtime = runtime
        self._vocab_size = vocab_size
        self._seed = seed
        self._clock: FeedClock | None = None
        self._stream = 0
        self._ended = False

    def attach(self, clock: FeedClock) -> None:
        """The clock that starts with the first frame."""
        self._clock = clock

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Array, Array]]:
        """Endless random tokens, each array (batch, seq) on the device."""
        random = np.random.default_rng(self._seed)
        while True:
            rows = random.integers(0, self._vocab_size, (batch, seq + 1), dtype=np.uint16)
            yield self._to_device(rows)

    def batches(self, batch: int, seq: int, packing: Packing = "best_fit") -> Iterator[tuple[Array, Array, BatchInfo]]:
        """Real batches until the deadline, or a little before it when the next is not expected to be done by then."""
        request = {"op": "batches", "batch": batch, "seq": seq, "packing": packing}
        for header, payload in self._frames(request):
            rows = np.frombuffer(payload, dtype="<u2").reshape(header.rows, header.width)
            inputs, targets = self._to_device(rows)
            yield inputs, targets, BatchInfo(header.epoch, header.tokens)

    def documents(self) -> Iterator[np.ndarray]:
        """Real documents, each BOS + tokens, uint16 (n,), until the deadline."""
        for header, payload in self._frames({"op": "documents"}):
            lengths = np.frombuffer(payload, dtype="<u4", count=header.rows)
            tokens = np.frombuffer(payload, dtype="<u2", offset=4 * header.rows)
            yield from np.split(tokens, np.cumsum(lengths)[:-1])

    def _to_device(self, rows: np.ndarray) -> tuple[Array, Array]:
        return self._runtime.to_device(rows[:, :-1]), self._runtime.to_device(rows[:, 1:])

    def _frames(self, request: dict[str, Any]) -> Iterator[tuple[Header, bytearray]]:
        """Frames of one stream. The next one is asked for before this one is handed out."""
        self._stream += 1
        stream = self._stream
        if not self._ended:
            self._send({**request, "stream": stream})
        taken: deque[float] = deque(maxlen=RECENT_INTERVALS)
        while not self._ended and stream == self._stream:
            if self._is_last_minute(taken):
                self._ended = True
                break
            header, payload = self._receive()
            if header.kind == END:
                self._ended = True
            elif header.stream == stream:
                if self._clock is not None:
                    self._clock.start(header.started)
                taken.append(time.monotonic())
                self._send({"op": "next", "stream": stream})
                yield header, payload
        if self._ended:
            self._runtime.synchronize()

    def _is_last_minute(self, taken: deque[float]) -> bool:
        """Whether the next step, if it takes as long as the recent ones, would end after the deadline."""
        if self._clock is None or len(taken) < 3:
            return False
        times = [*taken, time.monotonic()]
        expected = statistics.median(after - before for before, after in itertools.pairwise(times))
        return self._clock.remaining < expected

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._ended = True

    def _receive(self) -> tuple[Header, bytearray]:
        header = Header.unpack(bytes(receive_exactly(self._sock, Header.SIZE)))
        return header, receive_exactly(self._sock, header.payload_bytes)
