"""textual-serve's server behind our guard, on sockets that are bound already."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import aiohttp_jinja2
from aiohttp import web
from textual_serve.server import Server, to_int

from trainctl.home import Home
from trainctl.launch.processes import import_path
from trainctl.serve.address import Address
from trainctl.serve.guard import Guard

GRACE = 3.0  # seconds that the sessions have to end
# The page asks another site for a font; nothing of the dashboard leaves this machine.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self' ws://{host}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class DashboardServer(Server):
    """Serves the dashboard of `home`; each browser tab has a process of its own, which ends with it."""

    def __init__(self, home: Home, address: Address, token: str) -> None:
        # The shell that textual-serve starts becomes the dashboard, so that no process stands between.
        command = "exec " + shlex.join([sys.executable, "-P", "-m", "trainctl.serve", str(home.path)])
        super().__init__(command, address.host, address.port, title="trainctl", public_url=address.url.rstrip("/"))
        self._address = address
        self._guard = Guard(address.names, token, f"trainctl-{address.port}")
        self._sessions: dict[asyncio.Task[Any], web.Request] = {}

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; the dashboards end, runs go on."""
        os.environ.update(import_path())  # of the dashboards
        web.run_app(self._make_app(), sock=self._address.sockets, print=None, access_log=None, shutdown_timeout=GRACE)

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard.middleware)
        app.on_response_prepare.append(_harden)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the command line does."""

    async def on_shutdown(self, app: web.Application) -> None:
        """End the sessions, which would else be waited for."""
        for session in list(self._sessions):
            session.cancel()
        if self._sessions:
            await asyncio.wait(list(self._sessions), timeout=GRACE)
        for request in self._sessions.values():  # of browsers that do not answer
            if request.transport:
                request.transport.abort()

    @aiohttp_jinja2.template("app_index.html")
    async def handle_index(self, request: web.Request) -> Mapping[str, Any]:
        """The page. Its addresses are those that the browser used, so that it works through a tunnel."""
        return {
            "font_size": to_int(request.query.get("fontsize", "16"), 16),
            "app_websocket_url": f"ws://{request.host}/ws",
            "config": {"static": {"url": "/static/"}},
            "application": {"name": self.title},
        }

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One session."""
        session = asyncio.current_task()
        assert session is not None
        self._sessions[session] = request
        try:
            return await super().handle_websocket(request)
        finally:
            del self._sessions[session]


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer: no foreign content, no frame around it, no address told to others."""
    response.headers["Content-Security-Policy"] = POLICY.format(host=request.host)
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
