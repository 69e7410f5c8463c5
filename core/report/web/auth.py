"""The dashboard's access control, and the headers that limit what its page may do.

On a loopback address, the server answers only requests made to a loopback name (Starlette's TrustedHostMiddleware): a
web page elsewhere could otherwise give this machine a name of its own and read the dashboard (DNS rebinding). On any
other address it asks for a token, once in the URL and then in a cookie. What changes a run needs a token on every
address.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
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
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Names by which a browser reaches this machine."""


def middleware(address: str, port: int, token: str | None, actions: str | None) -> list[Middleware]:
    """List the middleware of a server on this address, outermost first.

    `token` is None on a loopback address, where everybody may read. `actions` is the token for what changes a run; None
    where nothing may.
    """
    if token is not None:
        return [Middleware(SecurityHeaders), Middleware(TokenAuth, token=token, port=port)]
    own = f"[{address}]" if ":" in address else address
    guard = [Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_NAMES, own], www_redirect=False)]
    if actions is not None:
        guard.append(Middleware(TokenAuth, token=actions, port=port, refuses=False))
    return [Middleware(SecurityHeaders), *guard]


def cookie_name(port: int) -> str:
    """Name the cookie that holds the token. A browser shares cookies among all ports of a machine."""
    return f"ar_token_{port}"


def may_act(request: HTTPConnection, port: int, token: str | None) -> bool:
    """Tell whether the request carries the token for actions, and no page of another server has sent it."""
    return is_same_origin(request) and token is not None and _same(request.cookies.get(cookie_name(port), ""), token)


def is_same_origin(request: HTTPConnection) -> bool:
    """Tell whether a request comes from this server's own page, or from a program, which names no origin."""
    origin = request.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:  # no address at all, as http://[
        return False


async def read_body(request: Request, most_bytes: int) -> bytes | None:
    """Return the request's body; None for one that is longer, of which the rest is not read, or that breaks off."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > most_bytes:
                return None
    except ClientDisconnect:  # nobody is left to read an answer
        return None
    return bytes(body)


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
    """Middleware that turns a token in the URL into a cookie; it lets in only whoever has one, if it `refuses`."""

    def __init__(self, app: ASGIApp, token: str, port: int, *, refuses: bool = True) -> None:
        self.app, self.token, self.cookie, self.refuses = app, token, cookie_name(port), refuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer, or refuse."""
        answer = self._own_answer(HTTPConnection(scope))
        await (answer or self.app)(scope, receive, send)

    def _own_answer(self, request: HTTPConnection) -> Response | None:
        """Answer a token in the URL with a cookie and a request without a token with 403; None for all others."""
        if _same(request.query_params.get("token", ""), self.token):
            # The redirect takes the token out of the address bar and the browser's history. With two slashes in front,
            # a browser would take what follows for another server's name.
            entered = RedirectResponse("/" + request.scope["path"].lstrip("/"), 303)
            # Not `secure`: the dashboard speaks plain HTTP. Strict, so that no other page's link or form carries the
            # token along.
            entered.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return entered
        if not self.refuses or _same(request.cookies.get(self.cookie, ""), self.token):
            return None
        return PlainTextResponse("open the address that `ar dashboard` printed, token included\n", 403)


def _same(given: str, token: str) -> bool:
    """Compare in a time that does not tell how much of the token was right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
