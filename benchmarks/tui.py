"""How fast the dashboard is, in a terminal of its own, over made-up runs.

    python benchmarks/tui.py [--runs 10000] [--points 10000000] [--home DIR]

Makes a home (kept in DIR if given, and used again), starts the dashboard in a pseudo-terminal of 120 x 40, presses
keys and watches what it writes. The clock of "first frame" starts once Textual has been imported.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import psutil
from made_up import ROOT, live, make_home, make_long, step

from engine.rundir import RunDir, me
from trainctl.home import Home
from trainctl.registry import ingest, query

COLUMNS, LINES = 120, 40
LONG, LIVE = "longest1", tuple(f"live{number}" for number in range(4))
START = """
import sys, time
import textual.app, textual.widgets
print("imported", flush=True)
from pathlib import Path
from trainctl.home import Home
from trainctl.tui.app import run
run(Home(Path(sys.argv[1])))
"""
DOWN, PAGE_DOWN, HOME_KEY = "\x1b[B", "\x1b[6~", "\x1b[H"
BRAILLE = re.compile("[\u2801-\u28ff]")


class Terminal:
    """The dashboard in a pseudo-terminal."""

    def __init__(self, home: Path) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, str(home)], stdin=slave, stdout=slave, stderr=slave, env=env,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.master = master
        self.usage = psutil.Process(self.process.pid)

    def read(self, seconds: float) -> str:
        """What it writes within `seconds`, returned as soon as there is something."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        return os.read(self.master, 1 << 20).decode(errors="replace") if ready else ""

    def wait(self, seen: Callable[[str], object], limit: float = 60.0) -> float:
        """Seconds until what it has written since now fulfils `seen`."""
        began, written = time.perf_counter(), ""
        while time.perf_counter() - began < limit:
            written += self.read(0.5)
            if seen(written):
                return time.perf_counter() - began
        raise SystemExit(f"it never showed what was waited for; its last words:\n{written[-2000:]!r}")

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.master, keys.encode())

    def settle(self, quiet: float = 1.0, limit: float = 120.0) -> None:
        """Wait until it has been silent for `quiet` seconds."""
        began = time.monotonic()
        while self.read(quiet) and time.monotonic() - began < limit:
            pass

    def close(self) -> None:
        """End it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=10_000_000, help="of all these runs together")
    parser.add_argument("--home", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(given.home or Path(folder))
        prepare(home, given.runs, given.points)
        at_work = [home.run(name) for name in LIVE]
        measure(home, at_work, given.runs)


def prepare(home: Home, runs: int, points: int) -> None:
    """Make the runs and the index, as far as they are not there."""
    if not home.run(LONG).path.exists():
        make_home(home, runs, points // runs)
        make_long(home, LONG, 1_000_000, created=2e9, name="the-longest-s0", group="long", pair="long")
    for number, name in enumerate(LIVE):
        if not home.run(name).path.exists():
            live(home, name, created=2.1e9 + number, epochs=9, name=f"{name}-s0", group=name, pair=name)
        # This process stands for their engines.
        home.run(name).write_json("launch.json", {**me(), "t": time.time()})
        home.run(name).write_json("heartbeat.json", {**me(), "step": 4, "t": time.time()})
    began = time.perf_counter()
    ingest.refresh(home)
    print(f"{query.count(home)} runs; the index was brought up to date in {time.perf_counter() - began:.1f} s")


def measure(home: Home, at_work: list[RunDir], runs: int) -> None:
    """Drive the dashboard, and print each figure beside its target."""
    print(f"{date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores, {COLUMNS} x {LINES}")
    firsts = []
    for _ in range(3):
        terminal = Terminal(home.path)
        terminal.wait(lambda text: "imported" in text)
        firsts.append(terminal.wait(lambda text: f"{LIVE[-1]}" in text))
        terminal.settle()
        if len(firsts) < 3:
            terminal.close()
    show("first frame with its runs", statistics.median(firsts), 1.0)
    terminal.settle(2.0)
    times = []
    for number in range(200):
        terminal.press((DOWN * (number % 20 < 15) or PAGE_DOWN) if number % 20 < 19 else HOME_KEY)
        times.append(terminal.wait(len))
        terminal.settle(0.12)
    show("key to its repaint, 95th percentile", statistics.quantiles(times, n=20)[-1], 0.1)
    seen = []
    terminal.press("\r")  # the newest live run
    terminal.settle(2.0)
    for number in range(20):
        loss = 0.101 + 0.037 * number
        step(at_work[-1], 1000 + number, loss)
        seen.append(terminal.wait(lambda text, loss=loss: f"{loss:.3f}" in text))
        terminal.settle(0.7)
    show("a line of an engine to the screen, median", statistics.median(seen), 0.5)
    show("the same, slowest of 20", max(seen), 0.5)
    terminal.press("\x1b")
    terminal.settle(1.0)
    for _ in LIVE:
        terminal.press(DOWN)
    terminal.settle(1.0)
    terminal.press("\r")
    show("opening a run of 1 000 000 points, to its curves", terminal.wait(BRAILLE.search), 0.7)
    terminal.press("\x1b")
    terminal.settle(2.0)
    show("idle with 4 live runs, share of a core", idle(terminal, at_work), 0.03)
    show("memory, MB", terminal.usage.memory_info().rss / 1e6, 250)
    terminal.close()


def idle(terminal: Terminal, at_work: list[RunDir], seconds: int = 30) -> float:
    """CPU time over wall time while each live run writes a line a second and nobody types."""
    before, began = sum(terminal.usage.cpu_times()[:2]), time.monotonic()
    for second in range(seconds):
        for number, run in enumerate(at_work):
            step(run, 2000 + second, 1.0 / (second + number + 1))
        until = began + second + 1
        while time.monotonic() < until:
            terminal.read(max(0.0, until - time.monotonic()))
    return (sum(terminal.usage.cpu_times()[:2]) - before) / (time.monotonic() - began)


def show(what: str, value: float, target: float) -> None:
    """A line of the result."""
    print(f"{what:52} {value:9.3f}   target {target:g}{'' if value <= target else '   MISSED'}", flush=True)


if __name__ == "__main__":
    main()
