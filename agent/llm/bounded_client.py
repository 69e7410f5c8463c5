"""An HTTP client for which neither the bytes nor the seconds of an answer are without end."""

from __future__ import annotations

import time
from typing import Any

import httpx

MOST_BYTES = 32 * 2**20
"""Bytes of an answer, unpacked. The longest reply that is used has a twentieth of it."""
PACKINGS = ("", "identity", "gzip", "deflate")
"""Values of Content-Encoding that are read. Others, and several at once, unpack a few bytes to any number."""


class BoundedClient(httpx.Client):
    """Reads every answer whole, at most MOST_BYTES, and within the time that the request gives to a single read.

    For an answer that is too long it gives one of its own with the status 502, whose words a caller shows.
    """

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and return the answer, which is never a stream. Raises what httpx raises."""
        limit = (request.extensions.get("timeout") or {}).get("read")
        deadline = None if limit is None else time.monotonic() + limit
        request.headers["Accept-Encoding"] = "gzip, deflate"
        options["stream"] = True
        answer = super().send(request, **options)
        try:
            if answer.headers.get("content-encoding", "").strip().lower() not in PACKINGS:
                return _refused(answer, "the server's answer is packed in a way that it was not asked for")
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    return _refused(answer, f"the server's answer has more than {MOST_BYTES // 2**20} MiB")
                if deadline is not None and time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer did not end in time", request=answer.request)
        finally:
            answer.close()
        headers = [one for one in answer.headers.multi_items() if one[0] not in ("content-encoding", "content-length")]
        return _made(answer, answer.status_code, headers=headers, content=bytes(body))


def _refused(answer: httpx.Response, words: str) -> httpx.Response:
    return _made(answer, 502, json={"error": {"message": words}})


def _made(answer: httpx.Response, status: int, **content: Any) -> httpx.Response:
    made = httpx.Response(status, request=answer.request, history=answer.history, **content)
    made.read()
    return made
