"""The dashboard's access control, and the headers that limit what its page may do.

On a loopback address, the server answers only requests made to a loopback name (Starlette's TrustedHostMiddleware): a
web page elsewhere could otherwise give this machine a name of its own and read the dashboard (DNS rebinding). On any
other address it asks for a token, once in the URL and then in a cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
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
    # A token's answers must not stay in a shared browser, nor an old page beside a new server.
    "Cache-Control": "no-store",
}
"""Headers of every answer."""
COOKIE = "ar_token"
"""Name of the cookie that holds the token."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Names by which a browser reaches this machine."""


def middleware(address: str, token: str | None) -> list[Middleware]:
    """List the middleware of a server on this address, outermost first. `token` is None on a loopback address."""
    if token is None:
        own = f"[{address}]" if ":" in address else address
        guard = Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_NAMES, own], www_redirect=False)
    else:
        guard = Middleware(TokenAuth, token=token)
    return [Middleware(SecurityHeaders), guard]


def is_loopback(host: str) -> bool:
    """Tell whether the name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class SecurityHeaders:
    """Middleware that adds HEADERS to every answer, refusals included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer, with HEADERS."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class TokenAuth:
    """Middleware that lets in whoever has the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer, or refuse."""
        answer = self._own_answer(HTTPConnection(scope))
        await (answer or self.app)(scope, receive, send)

    def _own_answer(self, request: HTTPConnection) -> Response | None:
        """Answer a token in the URL with a cookie and a request without a token with 403; None for all others."""
        if _same(request.query_params.get("token", ""), self.token):
            # The redirect takes the token out of the address bar and the browser's history.
            entered = RedirectResponse(request.url.path, 303)
            # Not `secure`: the dashboard speaks plain HTTP. Strict, so that no other page's link or form carries the
            # token along.
            entered.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return entered
        if _same(request.cookies.get(COOKIE, ""), self.token):
            return None
        return PlainTextResponse("open the address that `ar dashboard` printed, token included\n", 403)


def _same(given: str, token: str) -> bool:
    """Compare in a time that does not tell how much of the token was right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
