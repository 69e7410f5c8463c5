"""The feed: a trusted process that sends training text to a train child and stops at the deadline.

The clock starts when the first frame is sent. Nothing is sent after the deadline: a frame that is half sent then is
left half sent. Frames are sent only when they are asked for, so a child cannot be given more than it takes, and at most
one batch waits packed. See `frames` for the bytes.

It tells the supervisor, in JSON lines (see `core.events`): FirstBatch; FeedProgress about four times a second;
BadRequest or DataFault, after which nothing more is handed out; FeedEnded, always the last.
`tokens` and `batches` count a frame once the child has asked for another after it: the last frame, when the child was
not ready for more, was fetched ahead and not used.
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

from autoresearch.core.data.frames import DOCUMENTS, END, REQUEST, ROWS, FrameError, FrameHeader, Request
from autoresearch.core.data.packing import Packer
from autoresearch.core.data.prefetch import Batch, Prefetcher
from autoresearch.core.data.prepared_files import checked_shards
from autoresearch.core.data.shards import open_shard
from autoresearch.core.data.shuffle_buffer import ShuffleBuffer
from autoresearch.core.errors import DataError
from autoresearch.core.events import BadRequest, DataFault, FeedEnded, FeedProgress, FirstBatch, TrialEvent, to_json

PROGRESS_SECONDS = 0.25
"""Time between two progress events."""
SWITCH_SECONDS = 0.0005
"""Longest time that the packing thread may hold the interpreter while the sending one waits."""


class DeadlineError(Exception):
    """Raised when the budget is used up."""


class ClosedError(Exception):
    """Raised when the child or the supervisor is gone."""


class EventPipe:
    """Sends events to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def send(self, event: TrialEvent) -> None:
        """Write one line. Raises `ClosedError` when nobody listens any more."""
        try:
            os.write(self.descriptor, json.dumps(to_json(event)).encode() + b"\n")
        except BrokenPipeError as error:
            raise ClosedError from error


class Feed:
    """Answers the requests of one child."""

    def __init__(self, sock: socket.socket, events: EventPipe, ahead: Prefetcher, budget_seconds: float) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._events = events
        self._ahead = ahead
        self._budget = budget_seconds
        self._deadline: float | None = None
        self._poll = select.poll()
        self._poll.register(events.descriptor, 0)  # errors alone: the supervisor has closed its end
        self._next_progress = 0.0
        self._sent_tokens = 0
        self._sent: tuple[int, Batch] | None = None  # with what was asked for: ROWS or DOCUMENTS
        self._midway = False
        self._taken = {ROWS: 0, DOCUMENTS: 0}  # tokens
        self._batches = self._epoch = 0

    def run(self) -> None:
        """Serve until the deadline, or until the child is gone or sends what is no request."""
        reason = "closed"
        try:
            while True:
                request = self._receive()
                self._count()
                self._answer(request)
        except DeadlineError:
            reason = "deadline"
            self._finish()
        except FrameError as error:
            self._events.send(BadRequest(str(error)))
        except ClosedError:
            pass
        self._socket.close()
        try:
            self._events.send(FeedEnded(reason, self._tokens, self._batches, self._epoch))
        except ClosedError:
            pass

    def _answer(self, request: Request) -> None:
        # The clock starts when the first batch is ready to be sent, so packing it is not the child's time.
        batch = self._ahead.take(request, self._deadline)
        if batch is None:
            raise DeadlineError
        if self._deadline is None:
            started = time.monotonic()
            self._deadline = started + self._budget
            self._events.send(FirstBatch(monotonic=started))
        self._check_deadline()
        self._sent_tokens += batch.tokens
        kind = DOCUMENTS if request.kind == DOCUMENTS else ROWS
        header = FrameHeader(kind, batch.epoch, batch.rows, batch.columns, self._sent_tokens, self._deadline).pack()
        self._midway = True
        self._send(header)
        self._send(batch.payload)
        self._midway = False
        self._sent = (kind, batch)

    def _receive(self) -> Request:
        data = b""
        while len(data) < REQUEST.size:
            self._wait(select.POLLIN)
            try:
                part = self._socket.recv(REQUEST.size - len(data))
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClosedError from error
            if not part:
                raise ClosedError
            data += part
        return Request.unpack(data)

    def _send(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(select.POLLOUT)
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClosedError from error

    def _wait(self, condition: int) -> None:
        """Wait for the socket, telling the supervisor now and then. Raises `DeadlineError`, `ClosedError`."""
        self._poll.register(self._socket, condition)
        while True:
            now = self._check_deadline()
            timeout = PROGRESS_SECONDS if self._deadline is None else min(PROGRESS_SECONDS, self._deadline - now)
            if self._deadline is not None and now >= self._next_progress:
                self._next_progress = now + PROGRESS_SECONDS
                self._events.send(FeedProgress(self._tokens, self._batches, self._epoch))
            for descriptor, _ in self._poll.poll(1000 * timeout):
                if descriptor == self._events.descriptor:
                    raise ClosedError
                return

    def _check_deadline(self) -> float:
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            raise DeadlineError
        return now

    def _count(self) -> None:
        """Count the last frame: the child asks again, so it has taken that one."""
        if self._sent is not None:
            kind, batch = self._sent
            self._taken[kind] += batch.tokens
            self._batches += 1
            self._epoch = batch.epoch
            self._sent = None

    @property
    def _tokens(self) -> int:
        """Tokens trained on: of rows, unless the file takes documents alone, as one does that packs its own."""
        return self._taken[ROWS] or self._taken[DOCUMENTS]

    def _finish(self) -> None:
        """Send END if no frame is half sent. Never wait: the child may not be reading."""
        if self._midway:
            return
        try:
            # A request that has come in says that the last frame was taken, although no answer follows.
            if len(self._socket.recv(REQUEST.size)) == REQUEST.size:
                self._count()
        except OSError:
            pass
        try:
            self._socket.send(FrameHeader(END, deadline=self._deadline or 0.0, tokens=self._sent_tokens).pack())
        except OSError:  # The child has not read the last frame; it will find the stream closed behind it.
            pass


def serve(prepared: Path, vocab: int, seed: int, budget_seconds: float, sock: socket.socket, events: EventPipe) -> int:
    """Check the shards, then feed. Returns the exit code."""
    try:
        shards = [open_shard(path) for path in checked_shards(prepared, vocab)]
    except DataError as error:
        events.send(DataFault(str(error)))
        events.send(FeedEnded("closed", tokens=0, batches=0, epoch=0))
        return 1
    Feed(sock, events, Prefetcher(ShuffleBuffer(Packer(shards, seed), seed)), budget_seconds).run()
    return 0


def main() -> int:
    """Entry point of `python -m autoresearch.core.data.feed`."""
    parser = argparse.ArgumentParser(description="Feeds training text to one trial.")
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--budget", type=float, required=True, help="seconds")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--events-fd", type=int, required=True)
    given = parser.parse_args()
    # The sending thread waits for the socket and must go on at once; the packing one would keep Python's lock for ten
    # times as long by default.
    sys.setswitchinterval(SWITCH_SECONDS)
    sock = socket.socket(fileno=given.socket_fd)
    return serve(given.prepared, given.vocab, given.seed, given.budget, sock, EventPipe(given.events_fd))


if __name__ == "__main__":
    sys.exit(main())
