"""`trainctl serve`: who may come in, and that the dashboard reaches a real browser."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from dashboard import made
from fake_trainctl import ROOT, until

from trainctl.errors import MachineError, UsageError
from trainctl.home import Home
from trainctl.serve import address
from trainctl.serve.guard import hostname
from trainctl.tui import keys

TOKEN = "a-token-with-ümlaut&="
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "a home; with 'quotes' and $(spaces)")


@contextmanager
def served(home: Home, *arguments: str, token: str = "") -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The command at work, where it is, and what it has said; it is ended as Ctrl-C ends it."""
    env = {key: value for key, value in os.environ.items() if key not in ("TRAINCTL_TOKEN", "TEXTUAL_DRIVER")}
    env |= {"TRAINCTL_HOME": str(home.path)} | ({"TRAINCTL_TOKEN": token} if token else {})
    command = [sys.executable, "-m", "trainctl", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    said = ""
    try:
        assert process.stderr is not None
        while "Ctrl-C" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        found = re.search(r"http://\S+", said)
        assert found
        yield process, found[0], said
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to everybody in it
        out, rest = process.communicate(timeout=300)
        assert (process.returncode, out, rest.strip()) == (0, "", "ended; runs go on"), (process.returncode, out, rest)
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def client(**more: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), **more) as session:
        yield session


async def first_bytes(socket: aiohttp.ClientWebSocketResponse, wanted: bytes) -> bytes:
    """What the dashboard draws until `wanted` is among it."""
    seen = b""
    async with asyncio.timeout(20):
        while wanted not in seen:
            message = await socket.receive()
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
            seen += message.data if isinstance(message.data, bytes) else b""
    return seen


def dashboards(server: int) -> list[psutil.Process]:
    return psutil.Process(server).children(recursive=True)


async def test_on_this_machine_it_is_open_but_to_other_sites(home: Home) -> None:
    with served(home) as (process, url, said):
        assert str(home.path) in said and "token" not in said and url.startswith("http://127.0.0.1:")
        port = int(url.rstrip("/").rpartition(":")[2])
        evil = "http://evil.example"
        async with client() as session:
            page = await session.get(url)
            text = await page.text()
            assert page.status == 200 and f'data-session-websocket-url="ws://127.0.0.1:{port}/ws"' in text
            assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
            assert (await session.get(f"{url}static/js/textual.js")).status == 200
            tunnel = await session.get(url, headers={"Host": "localhost:9000"})
            assert 'data-session-websocket-url="ws://localhost:9000/ws"' in await tunnel.text()
            for headers in (
                {"Host": "evil.example"}, {"Host": f"evil.example:{port}"}, {"Host": "127.0.0.1.evil.example"},
                {"Host": "[::"}, {"Origin": evil}, {"Origin": "null"}, {"Origin": f"http://127.0.0.1:{port + 1}"},
                {"Origin": f"https://127.0.0.1:{port}"},
            ):  # fmt: skip
                for where in ("", "ws", "static/js/textual.js"):
                    assert (await session.get(url + where, headers=headers)).status == 403, headers
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await session.ws_connect(url + "ws", headers={"Origin": evil})
            assert dashboards(process.pid) == []  # none of these has started one
            async with session.ws_connect(url + "ws?width=80&height=24", origin=url.rstrip("/")) as socket:
                seen = await first_bytes(socket, b"6 runs")
                assert b"[red]me[/red]" in seen
                [dashboard] = dashboards(process.pid)
                assert dashboard.cmdline()[-1] == str(home.path)
            until(lambda: not dashboards(process.pid))  # the tab was closed


async def test_a_token_opens_everything_once_and_is_nowhere_to_be_read(home: Home) -> None:
    with served(home, token=TOKEN) as (process, entry, _):
        url = entry.partition("?")[0]
        async with client() as stranger:
            for where in ("", "ws", "static/js/textual.js", "download/x", "?token=wrong", "?token=", "nowhere"):
                assert (await stranger.get(url + where)).status == 401, where
            assert (await stranger.get(entry, headers={"Host": "evil.example"})).status == 403
            assert (await stranger.post(entry)).status == 401
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await stranger.ws_connect(url + "ws")
            (await stranger.get(url)).close()
            stranger.cookie_jar.update_cookies({f"trainctl-{url.rstrip('/').rpartition(':')[2]}": TOKEN})
            assert (await stranger.get(url)).status == 401  # the cookie is not the token
        assert dashboards(process.pid) == []
        async with client() as session:
            came = await session.get(entry)
            assert came.status == 200 and "textual.js" not in await came.text()
            cookie = came.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
            assert "token" not in cookie.partition(";")[0]
            assert (await session.get(url)).status == 200
            assert (await session.get(url, headers={"Origin": "http://evil.example"})).status == 403
            async with session.ws_connect(url + "ws?width=80&height=24") as socket:
                await first_bytes(socket, b"6 runs")
                everybody = [psutil.Process(process.pid), *dashboards(process.pid)]
                assert len(everybody) == 2
                assert not any(TOKEN in " ".join(each.cmdline()) for each in everybody)
                assert "TRAINCTL_TOKEN" not in everybody[1].environ()
                # Ctrl-C ends the sessions too.
                os.killpg(process.pid, signal.SIGINT)
                await asyncio.to_thread(process.wait, 20)
                assert not everybody[1].is_running()


async def test_a_token_of_the_command_line_leaves_it(home: Home) -> None:
    with served(home, "--token", TOKEN) as (process, entry, _):
        assert TOKEN not in " ".join(psutil.Process(process.pid).cmdline())
        async with client() as session:
            assert (await session.get(entry.partition("?")[0])).status == 401
            assert (await session.get(entry)).status == 200


async def test_other_networks_get_in_with_a_token_only(home: Home) -> None:
    with served(home, "--host", "0.0.0.0") as (_, entry, said):
        assert re.search(r"\?token=[\w-]{40,}$", entry)
        assert f"http://{socket.gethostname()}:" in entry
        assert "not encrypted" in said
        port = int(entry.partition("?")[0].rstrip("/").rpartition(":")[2])
        async with client() as session:
            url = f"http://127.0.0.1:{port}/"
            assert (await session.get(url)).status == 401
            assert (await session.get(url, headers={"Host": f"{socket.gethostname()}:{port}"})).status == 401
            assert (await session.get(url, headers={"Host": f"evil.example:{port}"})).status == 403
            assert (await session.get(f"{url}?{entry.partition('?')[2]}")).status == 200


def test_the_dashboards_end_with_a_killed_server(home: Home) -> None:
    async def killed(process: subprocess.Popen[str], url: str) -> list[psutil.Process]:
        async with client() as session, session.ws_connect(url + "ws") as socket:
            await first_bytes(socket, b"6 runs")
            found = dashboards(process.pid)
            process.kill()
            return found

    with pytest.raises(AssertionError), served(home) as (process, url, _):
        found = asyncio.run(killed(process, url))
        until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in found))
        assert len(found) == 1
        process.wait()


def test_an_address_that_cannot_be_served_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = address.bind("127.0.0.1", 0)
    assert taken.local and taken.url == f"http://127.0.0.1:{taken.port}/"
    with pytest.raises(MachineError, match=f"port {taken.port} of 127.0.0.1 is taken"):
        address.bind("127.0.0.1", taken.port)
    for opened in taken.sockets:
        opened.close()
    with pytest.raises(UsageError, match="no address of this machine"):
        address.bind("192.0.2.1", 0)  # TEST-NET-1: nobody's
    with pytest.raises(UsageError, match="there is no such host"):
        address.bind("no..host", 0)

    def refused(*given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(address, "_listen", refused)
    with pytest.raises(MachineError, match="not allowed"):
        address.bind("127.0.0.1", 80)


def test_every_name_of_the_address_is_known() -> None:
    found = address.bind("localhost", 0)
    assert {"localhost", "127.0.0.1"} <= found.names and found.local
    every = address.bind("0.0.0.0", 0)
    assert {"localhost", "127.0.0.1", socket.gethostname().lower()} <= every.names and not every.local
    for opened in (*found.sockets, *every.sockets):
        opened.close()
    cases = {"Box:80": "box", "box.": "box", "[::1]:8000": "::1", "": "", "[::": "", "a@b": "b"}
    assert {given: hostname(given) for given in cases} == cases


def command(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TRAINCTL_HOME": str(home.path), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "trainctl", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )


def test_mistakes_are_told_plainly(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = command(home, "serve", "--port", str(taken.getsockname()[1]))
    assert busy.returncode == 3 and "is taken" in busy.stderr and "--port" in busy.stderr
    wrong = command(home, "serve", "--host", "192.0.2.1")
    assert wrong.returncode == 2 and "no address of this machine" in wrong.stderr
    empty = command(home, "serve", "--token", " ")
    assert empty.returncode == 2 and "the token is empty" in empty.stderr
    assert "Traceback" not in busy.stderr + wrong.stderr + empty.stderr
    assert busy.stdout + wrong.stdout + empty.stdout == ""


def test_a_slow_line_is_asked_for_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainctl.cli.app import _run
    from trainctl.tui import app

    opened: list[tuple[Home, dict[str, Any]]] = []
    monkeypatch.setattr(app, "run", lambda home, **how: opened.append((home, how)))
    monkeypatch.setenv("TRAINCTL_HOME", str(tmp_path))
    assert _run(["tui", "--low-bandwidth"]) == 0 and _run(["tui"]) == 0 and _run([]) == 0
    assert opened == [(Home(tmp_path), {"low_bandwidth": slow}) for slow in (True, False, False)]


class Browser:
    """A headless Chromium, spoken to in its DevTools protocol."""

    def __init__(self, page: aiohttp.ClientWebSocketResponse) -> None:
        self.page = page
        self.number = 0

    async def do(self, method: str, **parameters: Any) -> Any:
        """Call a method and wait for its result."""
        self.number += 1
        await self.page.send_json({"id": self.number, "method": method, "params": parameters})
        async with asyncio.timeout(30):
            while True:
                answer = json.loads((await self.page.receive()).data)
                if answer.get("id") == self.number:
                    assert "error" not in answer, answer
                    return answer["result"]

    async def value(self, script: str) -> Any:
        """What a script gives."""
        return (await self.do("Runtime.evaluate", expression=script))["result"].get("value")


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    assert CHROMIUM
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--window-size=1200,700"]
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *flags, f"--user-data-dir={folder}", "about:blank", stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        file = folder / "DevToolsActivePort"
        async with asyncio.timeout(30):
            while not file.exists() or not file.read_text().strip():
                await asyncio.sleep(0.1)
        port = file.read_text().split()[0]
        async with client() as session:
            pages = await (await session.get(f"http://127.0.0.1:{port}/json/list")).json()
            page = next(page for page in pages if page["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as opened:
                yield Browser(opened)
    finally:
        process.terminate()
        await process.wait()


# The terminal of the page draws on a canvas, so its text is read as the bytes of the WebSocket that it gets.
LISTEN = """
window.arrived = ''; const Real = WebSocket;
window.WebSocket = function(url) {
  const socket = new Real(url), decoder = new TextDecoder();
  socket.addEventListener('message', event => {
    if (event.data instanceof ArrayBuffer) window.arrived += decoder.decode(event.data, {stream: true});
  });
  return socket;
};
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
async def test_a_browser_shows_the_dashboard(home: Home, tmp_path: Path) -> None:
    with served(home, token=TOKEN) as (_, entry, _):
        async with browser(tmp_path / "profile") as shown:
            await shown.do("Page.enable")
            await shown.do("Page.addScriptToEvaluateOnNewDocument", source=LISTEN)
            await shown.do("Page.navigate", url=entry)
            async with asyncio.timeout(40):
                while "6 runs" not in (await shown.value("window.arrived") or ""):
                    await asyncio.sleep(0.2)
            assert await shown.value("location.search") == ""  # the token is not left in the address bar
            assert "token" not in (await shown.value("document.cookie"))
            before = len(await shown.value("window.arrived"))
            mouse = {"x": 600, "y": 80, "button": "left", "clickCount": 1}
            for kind in ("mousePressed", "mouseReleased"):
                await shown.do("Input.dispatchMouseEvent", type=kind, **mouse)
            for kind in ("keyDown", "keyUp"):
                await shown.do("Input.dispatchKeyEvent", type=kind, key="?", text="?" if kind == "keyDown" else "")
            async with asyncio.timeout(20):
                while keys.KEYS[0].help not in (await shown.value("window.arrived"))[before:]:
                    await asyncio.sleep(0.2)
            picture = base64.b64decode((await shown.do("Page.captureScreenshot"))["data"])
            assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
            if where := os.environ.get("TRAINCTL_PICTURES"):
                (Path(where) / "browser.png").write_bytes(picture)
