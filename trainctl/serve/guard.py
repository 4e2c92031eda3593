"""Who may see the dashboard: requests that name the right host, come from its own pages, and know the token.

Whoever sees it can start programs on this machine, so every request passes here, those for files and the WebSocket too.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

ASK = "This dashboard asks for a token: open the address that `trainctl serve` printed.\n"
# The page that a right token leads to. It is left from here and not by a redirect, because a browser does not send
# the new cookie along with a redirect that began at a link on another site.
ENTER = '<!doctype html><meta http-equiv="refresh" content="0; url=/"><title>trainctl</title><a href="/">trainctl</a>\n'


class Guard:
    """Lets through what is allowed. `names` are hosts in small letters; without a `token` none is asked for."""

    def __init__(self, names: frozenset[str], token: str, cookie: str = "trainctl") -> None:
        self._names = names
        self._token = token
        self._cookie = cookie
        self._session = secrets.token_urlsafe()  # what the cookie holds, so that the token is stored nowhere

    @property
    def middleware(self) -> Middleware:
        """For a web.Application."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._check_origin(request)
            if self._token and (response := self._check_token(request)):
                return response
            return await handler(request)

        return guard

    def _check_origin(self, request: web.Request) -> None:
        """HTTPForbidden for another host name (DNS rebinding) or a request from another site's page.

        Any port will do for the host: a tunnel (ssh -L) has its own.
        """
        host = request.headers.get("Host", "")
        if hostname(host) not in self._names:
            raise web.HTTPForbidden(text="This host name is not served here. `trainctl serve --host NAME` serves it.\n")
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() != f"http://{host}".lower():
            raise web.HTTPForbidden(text="Pages of other sites may not open the dashboard.\n")

    def _check_token(self, request: web.Request) -> web.Response | None:
        """None for a request that shows the cookie; the answer to one that shows the token; else HTTPUnauthorized."""
        if _same(request.cookies.get(self._cookie, ""), self._session):
            return None
        if request.method != "GET" or not _same(request.query.get("token", ""), self._token):
            raise web.HTTPUnauthorized(text=ASK)
        response = web.Response(text=ENTER, content_type="text/html", headers={"Cache-Control": "no-store"})
        response.set_cookie(self._cookie, self._session, httponly=True, samesite="Strict", path="/")
        return response


def _same(given: str, secret: str) -> bool:
    """Compared in a time that says nothing of the secret."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode("utf-8", "replace"))


def hostname(host: str) -> str:
    """The name in a Host header, in small letters and without port; "" if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
