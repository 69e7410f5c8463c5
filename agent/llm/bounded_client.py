"""An HTTP client for which neither the bytes nor the seconds of an answer are without end."""

from __future__ import annotations

import time
from typing import Any

import httpx

MOST_BYTES = 32 * 2**20
"""Bytes of an answer, unpacked. The longest reply that is used has a twentieth of it."""
PACKINGS = ("", "identity", "gzip", "deflate")
"""Values of Content-Encoding that are read. Others, and several at once, unpack a few bytes to any number."""


MOST_HOPS = 5
"""Number of times that a request is sent on within a host."""


class BoundedClient(httpx.Client):
    """Reads every answer whole, at most MOST_BYTES, and within the time that the request gives to a single read.

    For an answer that is too long it gives one of its own with the status 502, whose words a caller shows; for one that
    sends the request to another host, with the status 400: httpx would take along a key in any header but one.
    """

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and return the answer, which is never a stream. Raises what httpx raises."""
        limit = (request.extensions.get("timeout") or {}).get("read")
        deadline = None if limit is None else time.monotonic() + limit
        request.headers["Accept-Encoding"] = "gzip, deflate"
        options |= {"stream": True, "follow_redirects": False}
        answer = super().send(request, **options)
        for _ in range(MOST_HOPS):
            if answer.next_request is None:
                break
            answer.close()
            if not _stays(request.url, answer.next_request.url):
                words = f"the server sends calls on to {answer.next_request.url.host}, which gets no key"
                return _refused(answer, f"{words}; if it is right, give that address", 400)
            answer = super().send(answer.next_request, **options)
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


def _stays(url: httpx.URL, next_url: httpx.URL) -> bool:
    """Tell whether a request that is sent on stays with its server, or comes to it by https."""
    same_port = (url.scheme, url.port) == (next_url.scheme, next_url.port)
    return url.host == next_url.host and (same_port or (url.scheme, next_url.scheme) == ("http", "https"))


def _refused(answer: httpx.Response, words: str, status: int = 502) -> httpx.Response:
    return _made(answer, status, json={"error": {"message": words}})


def _made(answer: httpx.Response, status: int, **content: Any) -> httpx.Response:
    made = httpx.Response(status, request=answer.request, history=answer.history, **content)
    made.read()
    return made
