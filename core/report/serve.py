"""The dashboard's server: reads one run, changes nothing, and answers only whom it should.

On a loopback address it answers requests that were made to a loopback name, so that a web page elsewhere cannot reach
it under a name of its own. On any other address it asks for a token, once by the URL and then by a cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from autoresearch.core.errors import LedgerError
from autoresearch.core.report import api
from autoresearch.core.report.follow import RunFollower
from autoresearch.core.store.reader import LedgerReader

ASSETS = Path(__file__).with_name("assets")
FILES = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOK_SECONDS = 0.5
ALIVE_SECONDS = 10.0
MAX_STREAMS = 32
"""Pages that follow the run at once; each takes a thread."""
COOKIE = "ar_token"


class Dashboard(ThreadingHTTPServer):
    """Serves one run until it is shut down. `token` is None on a loopback address."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], folder: Path, yardsticks: Mapping[str, float], token: str | None
    ) -> None:
        """Listens from now on. Raises `OSError` when the address cannot be had."""
        super().__init__(address, Answer)
        self.folder, self.yardsticks, self.token = folder, yardsticks, token
        self.stopping = threading.Event()
        self.streams = threading.BoundedSemaphore(MAX_STREAMS)

    def shutdown(self) -> None:
        """Stop serving; pages that follow the run are let go."""
        self.stopping.set()
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that has gone away in the middle of an answer is nothing to speak of."""


class Answer(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ar", ""
    timeout = 60

    @property
    def dashboard(self) -> Dashboard:
        """The server, as what it is."""
        return cast(Dashboard, self.server)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def do_GET(self) -> None:
        """A file of the page, data, or the stream."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if not self._may_ask(query):
            return
        if url.path in FILES:
            name, kind = FILES[url.path]
            self._send(HTTPStatus.OK, (ASSETS / name).read_bytes(), f"{kind}; charset=utf-8")
        elif url.path == "/api/events":
            self._stream()
        else:
            self._data(url.path, query)

    def _may_ask(self, query: Mapping[str, list[str]]) -> bool:
        """Whether to answer at all; if not, that has been said."""
        token = self.dashboard.token
        if token is None:
            if is_loopback(_hostname(self.headers.get("Host", ""))):
                return True
            self._send(HTTPStatus.FORBIDDEN, b"ask for it by a loopback name, such as 127.0.0.1\n", "text/plain")
            return False
        given = query.get("token", [""])[0]
        if hmac.compare_digest(given.encode(), token.encode()):
            self.send_response(HTTPStatus.SEE_OTHER)
            self.send_header("Location", "/")
            self.send_header("Set-Cookie", f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/")
            self._end(b"")
            return False
        cookies = dict(part.strip().partition("=")[::2] for part in self.headers.get("Cookie", "").split(";"))
        if hmac.compare_digest(cookies.get(COOKIE, "").encode(), token.encode()):
            return True
        self._send(
            HTTPStatus.FORBIDDEN, b"open the address that `ar dashboard` printed, token included\n", "text/plain"
        )
        return False

    def _data(self, path: str, query: Mapping[str, list[str]]) -> None:
        number = path.removeprefix("/api/experiment/")
        after = query.get("after", ["-1"])[0]
        try:
            with LedgerReader(self.dashboard.folder) as reader:
                if path == "/api/state":
                    found: Any = api.state(RunFollower(reader).look(), self.dashboard.yardsticks)
                elif path == "/api/experiments" and after.removeprefix("-").isdecimal() and len(after) < 10:
                    found = api.experiments(reader, int(after))
                elif number != path and number.isdecimal() and len(number) < 10:
                    found = api.experiment(reader, int(number))
                else:
                    found = None
        except LedgerError as error:
            self._send(HTTPStatus.NOT_FOUND, str(error).encode(), "text/plain; charset=utf-8")
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, b"there is nothing here\n", "text/plain")
        else:
            self._send(HTTPStatus.OK, json.dumps(found).encode(), "application/json")

    def _stream(self) -> None:
        """The state as server-sent events, whenever it has changed, until the page or the server goes."""
        if not self.dashboard.streams.acquire(blocking=False):
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"too many pages follow the run\n", "text/plain")
            return
        self.close_connection = True
        try:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self._add_headers()
            with LedgerReader(self.dashboard.folder) as reader:
                self._follow(RunFollower(reader))
        except (LedgerError, OSError):
            pass  # the page connects again, and is told then
        finally:
            self.dashboard.streams.release()

    def _follow(self, follower: RunFollower) -> None:
        last, said = "", 0.0
        while not self.dashboard.stopping.is_set():
            text = json.dumps(api.state(follower.look(), self.dashboard.yardsticks))
            if text != last or time.monotonic() - said > ALIVE_SECONDS:
                self.wfile.write(f"data: {text}\n\n".encode() if text != last else b": alive\n\n")
                self.wfile.flush()
                last, said = text, time.monotonic()
            self.dashboard.stopping.wait(LOOK_SECONDS)

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self._end(body)

    def _end(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self._add_headers()
        self.wfile.write(body)

    def _add_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(header: str) -> str:
    """The host of a Host header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
