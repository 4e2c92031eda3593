"""`trainctl serve`: the dashboard in a browser."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, note
from trainctl.home import find_home

TOKEN = "TRAINCTL_TOKEN"


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 for all networks.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN, show_default=False, help="What a browser must know. Made up unless given, but for 127.0.0.1."
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Serve the dashboard to browsers, until Ctrl-C; runs go on.

    On 127.0.0.1 anybody who is logged in on this machine may open it, unless there is a token; from elsewhere come
    with `ssh -L 8000:localhost:8000 MACHINE`. Any other address needs a token, and is not encrypted.
    """
    import secrets
    from urllib.parse import quote

    from trainctl.errors import UsageError
    from trainctl.serve.address import bind

    if token is not None and not token.strip():
        raise UsageError("the token is empty", f"leave --token and {TOKEN} away to have one made up")
    place = find_home(home).create()
    if token is not None and os.environ.get(TOKEN) != token:
        _start_again(host, port, token, str(place.path))
    os.environ.pop(TOKEN, None)  # the dashboards and the runs that they start need not know it
    address = bind(host, port)
    if token is None and not address.local:
        token = secrets.token_urlsafe(32)
    query = f"?token={quote(token, safe='')}" if token else ""
    note(f"the dashboard of {place.path} is at\n\n    {address.url}{query}\n")
    if not address.local:
        note("It is not encrypted: whoever can listen to the network sees it, and the token. Prefer ssh -L.")
    note("Ctrl-C ends it; runs go on.")
    from trainctl.serve.server import DashboardServer

    # What textual-serve says of a dashboard that failed is no output of this command.
    with contextlib.redirect_stdout(sys.stderr):
        DashboardServer(place, address, token or "").run()
    note("ended; runs go on")


def _start_again(host: str, port: int, token: str, home: str) -> None:
    """Become this command with the token in its environment: everybody can read the command line of a process."""
    from trainctl.launch.processes import import_path

    os.environ.update({TOKEN: token, **import_path()})
    command = ["-P", "-m", "trainctl", "serve", "--host", host, "--port", str(port), "--home", home]
    os.execv(sys.executable, [sys.executable, *command])
