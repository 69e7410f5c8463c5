"""Whom the dashboard answers, and what every answer forbids the page.

On a loopback address it answers requests that were made to a loopback name, so that a web page elsewhere cannot reach
it under a name of its own. On any other address it asks for a token, once by the URL and then by a cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
COOKIE = "ar_token"


class Doors:
    """Middleware: lets in whom it should, and adds HEADERS to every answer. `token` is None on a loopback address."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the page's server answer."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(HTTPConnection(scope))
        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, asked: HTTPConnection) -> Response | None:
        if self.token is None:
            if is_loopback(_hostname(asked.headers.get("host", ""))):
                return None
            return PlainTextResponse("ask for it by a loopback name, such as 127.0.0.1\n", 403)
        if _same(asked.query_params.get("token", ""), self.token):
            entered = RedirectResponse(asked.url.path, 303)
            entered.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return entered
        if _same(asked.cookies.get(COOKIE, ""), self.token):
            return None
        return PlainTextResponse("open the address that `ar dashboard` printed, token included\n", 403)


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _hostname(header: str) -> str:
    """The host of a Host header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
