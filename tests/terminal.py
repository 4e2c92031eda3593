"""A real terminal (tmux) with trainctl in it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Terminal:
    """A tmux server of its own, with one window."""

    def __init__(self, folder: Path, columns: int = 120, lines: int = 40, env: Mapping[str, str] | None = None) -> None:
        self._socket = folder / "tmux"
        settings = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **(env or {})}
        variables = [part for name, value in settings.items() for part in ("-e", f"{name}={value}")]
        shell = "sh"
        self._tmux("-f", os.devnull, "new-session", "-d", "-x", str(columns), "-y", str(lines), *variables, shell)

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        # Of a terminal that says its size in the environment the size would never change.
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "TMUX")}
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=env).stdout

    def run(self, *arguments: str) -> None:
        """Type `trainctl ARGUMENTS` at the prompt."""
        self.type(f"{shlex.quote(sys.executable)} -P -m trainctl {shlex.join(arguments)}")
        self.press("Enter")

    def type(self, text: str) -> None:
        """Type text."""
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by their names in tmux (Enter, Escape, Up, C-p, …)."""
        self._tmux("send-keys", *keys)

    def screen(self, *, colors: bool = False) -> str:
        """What stands on the screen; with `colors` as escape codes."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colors else []))

    def wait(self, seen: str | Callable[[str], object], seconds: float = 60.0) -> str:
        """The screen, once the text stands there or the condition holds; AssertionError with the screen if never."""
        holds = seen if callable(seen) else lambda screen: seen in screen
        deadline = time.monotonic() + seconds
        while not holds(screen := self.screen()):
            assert time.monotonic() < deadline, f"never seen: {seen}\n{screen}"
            time.sleep(0.1)
        return screen

    def resize(self, columns: int, lines: int) -> None:
        """Another size of the window."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def close(self) -> None:
        """End the server with all that runs in it."""
        subprocess.run(["tmux", "-S", str(self._socket), "kill-server"], capture_output=True, timeout=300, check=False)
