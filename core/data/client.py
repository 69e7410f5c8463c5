"""The train child's end of the feed: the arguments `data` and `clock` of a train file. See `frames` for the bytes."""

from __future__ import annotations

import gc
import socket
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic  # bound here, before a train file could put its own clock in the module's place
from typing import Any, Protocol

import numpy as np

from autoresearch.backends.contract import Array, BatchInfo, Packing, Runtime
from autoresearch.core.data.frames import DOCUMENTS, END, FRAME, ROWS, FrameHeader, Request

INTERVALS = 33
"""Number of recent batches whose times predict the next one's."""
ENOUGH_INTERVALS = 5
"""Number of batch times from which on the longest is the prediction. Before, it is the shortest, because the first
batches may include a compilation."""


class FeedClock:
    """The train file's `clock`: a view of the supervisor's clock, which starts with the first batch."""

    def __init__(self, budget_seconds: float, send_log: Callable[[dict[str, Any]], None]) -> None:
        self._budget = budget_seconds
        self._send_log = send_log
        self._deadline: float | None = None

    def start(self, deadline: float) -> None:
        """Start the clock. `deadline` is in seconds of the monotonic clock."""
        self._deadline = deadline

    @property
    def progress(self) -> float:
        """Used share of the budget, 0 to 1."""
        return 1.0 - self.remaining / self._budget

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        if self._deadline is None:
            return self._budget
        return min(self._budget, max(0.0, self._deadline - monotonic()))

    @property
    def budget(self) -> float:
        """Seconds of training in all."""
        return self._budget

    def log(self, *, step: int, loss: float, **scalars: float) -> None:
        """Report one point of the loss curve. Never raises, because a broken curve is no reason to lose a trial."""
        try:
            self._send_log({**scalars, "step": step, "loss": loss, "progress": self.progress})
        except Exception:
            pass


class Watcher(Protocol):
    """Is told when a training loop waits for a batch, such as the profiler."""

    def asked(self) -> None:
        """Note that the loop asks for a batch."""
        ...

    def given(self) -> None:
        """Note that the loop has its batch, or that there are no more."""
        ...


def too_late(header: FrameHeader) -> RuntimeError:
    """Return the error for a first batch that has not arrived, or not as a whole, when the budget is over."""
    rows = f"{header.rows} rows of {header.columns - 1} tokens"
    size = "one of documents" if header.kind == DOCUMENTS else rows
    return RuntimeError(
        f"the budget was over before the first batch was here ({size}): ask for fewer rows or shorter ones at a time, "
        "or give a longer budget"
    )


class FeedClient:
    """The train file's `data`: asks for batches, one ahead, and puts them on the device."""

    def __init__(self, sock: socket.socket, *, runtime: Runtime, vocab_size: int, seed: int) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._runtime = runtime
        self._vocab_size = vocab_size
        self._seed = seed
        self._clock: FeedClock | None = None
        self._watcher: Watcher | None = None
        self._deadline: float | None = None
        self._asked: Request | None = None
        self._kept: dict[Request, tuple[FrameHeader, np.ndarray]] = {}
        self._intervals: dict[Request, deque[float]] = {}
        self._last: tuple[Request, float] | None = None
        self._over = False
        self._synchronized = False

    def attach(self, clock: FeedClock) -> None:
        """Choose the clock that the first batch starts."""
        self._clock = clock

    def watch(self, watcher: Watcher) -> None:
        """Choose the watcher that is told of every batch."""
        self._watcher = watcher

    def warmup(self, batch: int, seq: int) -> Iterator[tuple[Array, Array]]:
        """Yield random `(inputs, targets)` without end, each (batch, seq). Does not start the clock."""
        Request(ROWS, batch=batch, seq=seq).pack()
        return self._warmup(batch, seq)

    def batches(self, batch: int, seq: int, packing: Packing = "best_fit") -> Iterator[tuple[Array, Array, BatchInfo]]:
        """Yield training text as `(inputs, targets, info)`, each array (batch, seq), until the deadline.

        Ends a little early when the next batch is not expected to be done in time. Raises `ValueError` for a shape
        that cannot be had, `RuntimeError` when the feed breaks off, or when not even the first batch comes in time.
        """
        request = Request(ROWS, packing, batch, seq)
        request.pack()
        return self._batches(request)

    def documents(self) -> Iterator[np.ndarray]:
        """Yield documents of the training text, uint16 (n,), each beginning with BOS, until the deadline."""
        request = Request(DOCUMENTS)
        while (frame := self._next(request)) is not None:
            header, values = frame
            lengths = values[: 2 * header.rows].view("<u4").astype(np.int64)
            ends = (2 * header.rows + np.cumsum(lengths)).tolist()
            for start, end in zip([2 * header.rows, *ends], ends, strict=False):
                if self._remaining() <= 0:
                    break
                yield values[start:end]

    def _warmup(self, batch: int, seq: int) -> Iterator[tuple[Array, Array]]:
        generator = np.random.default_rng(self._seed % 2**63)
        while True:
            rows = generator.integers(0, self._vocab_size, size=(batch, seq + 1), dtype=np.uint16)
            yield self._split(rows)

    def _batches(self, request: Request) -> Iterator[tuple[Array, Array, BatchInfo]]:
        while (frame := self._next(request)) is not None:
            header, values = frame
            inputs, targets = self._split(values.reshape(header.rows, header.columns))
            yield inputs, targets, BatchInfo(epoch=header.epoch, tokens=header.tokens)

    def _split(self, rows: np.ndarray) -> tuple[Array, Array]:
        to_device = self._runtime.to_device
        return to_device(np.ascontiguousarray(rows[:, :-1])), to_device(np.ascontiguousarray(rows[:, 1:]))

    def _next(self, request: Request) -> tuple[FrameHeader, np.ndarray] | None:
        """Return the next frame of this shape and ask for the one after it. None at the end."""
        if self._watcher is None:
            return self._take(request)
        self._watcher.asked()
        try:
            return self._take(request)
        finally:
            self._watcher.given()

    def _take(self, request: Request) -> tuple[FrameHeader, np.ndarray] | None:
        if self._deadline is None:
            # A framework's import and a compilation leave a million objects that stay. The collector would look through
            # them again and again while the clock runs.
            gc.collect()
            gc.freeze()
        self._time(request)
        if not self._over and self._remaining() < self._expected(request):
            self._over = True
        first = self._deadline is None
        frame = None if self._over else self._fetch(request)
        if first and frame is not None and self._remaining() <= 0:
            raise too_late(frame[0])
        if frame is None or self._remaining() <= 0:
            self._end()
            return None
        self._ask(request)
        self._last = (request, monotonic())
        return frame

    def _fetch(self, request: Request) -> tuple[FrameHeader, np.ndarray] | None:
        """Receive the frame that was asked for ahead. Keep one of another shape until that shape is wanted again."""
        if self._asked is not None and self._asked != request:
            other, self._asked = self._asked, None
            frame = self._receive()
            if frame is None:
                return None
            self._kept[other] = frame
        if request in self._kept:
            return self._kept.pop(request)
        self._ask(request)
        self._asked = None
        return self._receive()

    def _ask(self, request: Request) -> None:
        if self._asked is None and request not in self._kept:
            self._asked = request
            try:
                self._socket.sendall(request.pack())
            except OSError:  # The feed has closed; what it sent before, END last, is still to be read.
                pass

    def _receive(self) -> tuple[FrameHeader, np.ndarray] | None:
        head = self._read(FRAME.size)
        header = FrameHeader.unpack(head.tobytes()) if head is not None else None
        if header is None or header.kind == END:
            self._closed(header)
            return None
        lengths = 4 * header.rows if header.kind == DOCUMENTS else 0
        tokens = header.columns if header.kind == DOCUMENTS else header.rows * header.columns
        body = self._read(lengths + 2 * tokens)
        if body is None and self._deadline is None and header.deadline <= monotonic():
            raise too_late(header)
        if body is None:
            self._closed(None)
            return None
        if self._deadline is None and self._clock is not None:
            self._clock.start(header.deadline)
        self._deadline = header.deadline
        return header, body.view("<u2")

    def _read(self, size: int) -> np.ndarray | None:
        """Read exactly `size` bytes into a new array. None when the stream ends before."""
        buffer = np.empty(size, dtype=np.uint8)
        rest = buffer.data
        try:
            while rest:
                count = self._socket.recv_into(rest)
                if count == 0:
                    return None
                rest = rest[count:]
        except ConnectionError:
            return None
        return buffer

    def _closed(self, end: FrameHeader | None) -> None:
        self._over = True
        if end is None and self._remaining() > 0:
            raise RuntimeError("the feed broke off before the deadline")

    def _end(self) -> None:
        self._over, self._last = True, None
        if not self._synchronized:
            self._synchronized = True
            self._runtime.synchronize()

    def _time(self, request: Request) -> None:
        if self._last is not None and self._last[0] == request:
            self._intervals.setdefault(request, deque(maxlen=INTERVALS)).append(monotonic() - self._last[1])

    def _expected(self, request: Request) -> float:
        """Predict the seconds that the next batch of this shape takes."""
        intervals = self._intervals.get(request)
        if (
            not intervals or request.kind == DOCUMENTS
        ):  # A file that packs documents itself takes several of them a step.
            return 0.0
        return min(intervals) if len(intervals) < ENOUGH_INTERVALS else max(intervals)

    def _remaining(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - monotonic()
