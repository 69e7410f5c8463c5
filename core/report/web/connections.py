"""Connections that say nothing: a request must come whole within some seconds, and only so many may be waited for.

uvicorn limits how long a connection stays open after an answer, not how long a request takes to arrive: whoever sends
half a line, or one byte a minute, could hold every place there is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Seconds from a connection's first moment, or from the first byte after an answer, to the end of a request's head."""
MOST_WAITING = 50
"""Connections without a whole request that are kept; beyond them, the one that has waited longest is closed."""


class TimedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with a time limit for what a client sends."""

    waiting_since: float | None = None
    """The loop's time since when a request is waited for; None while one is answered, or while nothing has come."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request, and close the connection that has waited longest where there are too many."""
        super().connection_made(transport)
        self._wait()
        waiting = [one for one in self.connections if isinstance(one, TimedProtocol) and one.waiting_since is not None]
        if len(waiting) > MOST_WAITING:
            min(waiting, key=lambda one: one.waiting_since or 0.0).close()

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on. A whole request ends the waiting; anything after an answer begins it again."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._done()
        elif self.waiting_since is None and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._done()
        super().connection_lost(exc)

    def close(self) -> None:
        """Close the connection at once, whatever is still to be sent."""
        self._done()
        self.transport.abort()

    def _wait(self) -> None:
        self.waiting_since = self.loop.time()
        self._timer = self.loop.call_later(HEADER_SECONDS, self.close)

    def _done(self) -> None:
        self.waiting_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
