"""The feeder: a trusted process that reads train shards and hands them out, batch by batch, until the deadline.

    python -m autoresearch.core.data.feed --prepared DIR --vocab V --seed N --budget SECONDS --socket-fd K --events-fd E

The clock starts when the first real frame is sent; at the deadline an END frame goes out and nothing follows it. What
happens is told to the supervisor as JSON lines on the events descriptor.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

from autoresearch.core.data.frames import BATCH, DOCUMENTS, END, LINE_LIMIT_BYTES, Header
from autoresearch.core.data.order import EpochOrder
from autoresearch.core.data.producer import Producer, StreamRequest
from autoresearch.core.errors import ArError

PROGRESS_SECONDS = 0.25
MAX_CREDITS = 2
"""A child that asks for more at once gets no more than this ahead."""


class ChildGoneError(Exception):
    """The train child has closed its end."""


class Feeder:
    """One trial's feed."""

    def __init__(self, sock: socket.socket, order: EpochOrder, budget_seconds: float, events_fd: int) -> None:
        self._sock = sock
        self._order = order
        self._budget = budget_seconds
        self._events_fd = events_fd
        self._producer: Producer | None = None
        self._stream = 0
        self._credits = 0
        self._line = b""
        self._started = 0.0
        self._ended = False
        self._sent_tokens: list[tuple[int, int]] = []
        self.tokens = 0
        """Handed out: sent, and acknowledged by asking for the next."""
        self.batches = 0
        self.epoch = 0

    def serve(self) -> None:
        """Until the child closes its end. Raises `DataError` when the shards cannot be read."""
        reason = "closed"
        next_progress = time.monotonic() + PROGRESS_SECONDS
        try:
            while True:
                if self._started and not self._ended and time.monotonic() >= self._started + self._budget:
                    self._end()
                    reason = "deadline"
                    self._tell_progress("end", reason=reason)
                if self._credits and self._producer is not None and not self._ended:
                    self._send_next()
                    continue
                self._wait_readable(self._until_deadline(next_progress))
                if time.monotonic() >= next_progress:
                    next_progress = time.monotonic() + PROGRESS_SECONDS
                    if self._started and not self._ended:
                        self._tell_progress("progress")
        except (ChildGoneError, ConnectionError):
            pass
        finally:
            if self._producer is not None:
                self._producer.close()
        if not self._ended:
            self._tell_progress("end", reason=reason)

    def _until_deadline(self, next_progress: float) -> float:
        """Seconds that may pass before there is something to do without being asked."""
        now = time.monotonic()
        until = next_progress
        if self._started and not self._ended:
            until = min(until, self._started + self._budget)
        return max(0.0, until - now)

    def _wait_readable(self, seconds: float) -> None:
        readable, _, _ = select.select([self._sock], [], [], seconds)
        if readable:
            self._read()

    def _read(self) -> None:
        data = self._sock.recv(1 << 16)
        if not data:
            raise ChildGoneError
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._hear(line)
        if len(self._line) > LINE_LIMIT_BYTES:
            self._refuse("a request without end")

    def _hear(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            operation, stream = message["op"], int(message["stream"])
            if operation == "next":
                self._acknowledge(stream)
                return
            request = StreamRequest.parse(message)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._refuse(f"a request that cannot be understood ({error})")
            return
        if self._producer is not None:
            self._producer.close()
        self._sent_tokens.clear()
        self._stream, self._credits = stream, 1
        self._producer = Producer(self._order, request)

    def _acknowledge(self, stream: int) -> None:
        if stream != self._stream or self._producer is None:
            return
        if self._sent_tokens:
            tokens, epoch = self._sent_tokens.pop(0)
            self.tokens += tokens
            self.epoch = epoch
            self.batches += 1
        self._credits = min(MAX_CREDITS, self._credits + 1)

    def _refuse(self, what: str) -> None:
        """A child that does not keep to the protocol gets nothing more."""
        self._tell({"event": "bad_request", "message": f"the train file's process sent {what}"})
        self._end()

    def _send_next(self) -> None:
        if self._producer is None:
            return
        made = self._producer.take(timeout=0.05)
        if made is None:  # packing has not caught up; look at the socket meanwhile
            self._wait_readable(0.0)
            return
        if not self._started:
            self._started = time.monotonic()
            self._tell({"event": "first_batch", "monotonic": self._started})
        self._credits -= 1
        pending = sum(tokens for tokens, _ in self._sent_tokens)
        self._sent_tokens.append((made.tokens, made.epoch))
        header = Header(
            kind=DOCUMENTS if made.is_documents else BATCH,
            stream=self._stream,
            rows=made.rows,
            width=made.width,
            epoch=made.epoch,
            tokens=self.tokens + pending + made.tokens,
            started=self._started,
        )
        self._send(header.pack(), made.payload)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._producer is not None:
            self._producer.close()
        header = Header(END, self._stream, 0, 0, self.epoch, self.tokens, self._started)
        self._send(header.pack(), b"")

    def _send(self, *parts: bytes | memoryview) -> None:
        """Write, but not past the deadline: a child that does not read must not keep the feeder from ending."""
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                _, writable, _ = select.select([], [self._sock], [], 0.1)
                if writable:
                    view = view[self._sock.send(view, socket.MSG_DONTWAIT) :]
                elif self._started and time.monotonic() > self._started + self._budget:
                    self._ended = True  # the frame stays cut short; the child has had its time
                    self._tell_progress("end", reason="deadline")
                    raise ChildGoneError

    def _tell_progress(self, event: str, **fields: Any) -> None:
        self._tell({"event": event, "tokens": self.tokens, "batches": self.batches, "epoch": self.epoch, **fields})

    def _tell(self, event: dict[str, Any]) -> None:
        os.write(self._events_fd, json.dumps(event).encode() + b"\n")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="feed")
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--budget", type=float, required=True)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--events-fd", type=int, required=True)
    options = parser.parse_args(argv)
    try:
        order = EpochOrder.open(options.prepared, options.vocab, options.seed)
        with socket.socket(fileno=options.socket_fd) as sock:
            Feeder(sock, order, options.budget, options.events_fd).serve()
    except ArError as error:
        message = {"event": "data_error", "message": str(error)}
        os.write(options.events_fd, json.dumps(message).encode() + b"\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
