"""Whatever happens to the programs around them, runs go on, and nothing they said is lost or there twice.

TRAINCTL_KILLS is the number of kills (20; 100 in `make soak`), TRAINCTL_CLOSES how many terminals are closed (10; 50).
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import sqlite3
import subprocess
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from conftest import within
from fake_trainctl import COMMAND, ENGINE, cli, ended, environment, queue, starts, tidy, until

from engine import events
from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.launch import processes, scheduler

KILLS = int(os.environ.get("TRAINCTL_KILLS", "20"))
CLOSES = int(os.environ.get("TRAINCTL_CLOSES", "10"))
FIVE_JOBS = ("--jobs", "5", "--set", "run.threads=1")  # so that four runs at work leave room for one more


class Terminal:
    """A command in a pseudo-terminal. Not as its `leader` it gets no SIGHUP when the terminal closes."""

    def __init__(self, home: Home, *arguments: str, leader: bool = True) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        termios.tcsetwinsize(slave, (40, 120))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**environment(home), "TERM": "xterm-256color"},
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if leader else None,
        )  # fmt: skip
        os.close(slave)
        self.shown = b""

    def read(self) -> bytes:
        """All that was shown so far. Who does not read stops the program."""
        with suppress(OSError):
            while data := os.read(self._master, 65536):
                self.shown = (self.shown + data)[-100_000:]
        return self.shown

    def kill(self) -> None:
        """SIGKILL, as far as it has not ended by itself."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def close(self) -> tuple[float, float]:
        """Close the terminal; gives the seconds until the program is gone, and the CPU time it took for that."""
        before = sum(psutil.Process(self.process.pid).cpu_times()[:2])
        begun = time.monotonic()
        os.close(self._master)
        while not (found := os.wait4(self.process.pid, os.WNOHANG))[0]:
            if time.monotonic() > begun + 20:
                self.process.kill()
                raise AssertionError(f"it lives without its terminal: {self.process.args}")
            time.sleep(0.01)
        self.process.returncode = os.waitstatus_to_exitcode(found[1])
        return time.monotonic() - begun, found[2].ru_utime + found[2].ru_stime - before


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home of which no process is left in the end."""
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place
    until(lambda: not of_home(place))


def of_home(home: Home) -> list[str]:
    """Command lines of the processes that have to do with it, except this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            about = [*process.cmdline(), process.environ().get("TRAINCTL_HOME", "")]
            if process.pid != os.getpid() and any(str(home.path) in word for word in about):
                found.append(" ".join(process.cmdline()))
    return found


def at_work(runs: list[RunDir]) -> Callable[[], bool]:
    return lambda: all(run.events.exists() and run.events.stat().st_size > 300 for run in runs)


@pytest.mark.timeout(1800)
def test_whoever_is_killed_the_runs_go_on_and_no_point_is_lost_or_there_twice(home: Home) -> None:
    alive = queue(home, *["sleep"] * 4, share=0.2)
    queue(home, *["quick"] * 5, share=0.2)
    scheduler.ensure(home, ENGINE)
    until(at_work(alive), 300)
    pids = [run.json("heartbeat.json")["pid"] for run in alive]

    struck = storm(home, random.Random("survive"))

    scheduler.ensure(home, ENGINE)
    others = [run for run in home.run_dirs() if run.id not in {run.id for run in alive}]
    until(ended(others), 300)
    assert [run.status() for run in others] == ["done"] * len(others)
    assert [len(starts(run)) for run in home.run_dirs()] == [1] * (len(others) + 4)
    assert [run.status() for run in alive] == ["running"] * 4
    assert [run.json("heartbeat.json")["pid"] for run in alive] == pids

    processes.stop(alive)
    assert cli(home, "ls").returncode == 0
    with closing(sqlite3.connect(home.index)) as index:
        stored = sorted(index.execute("SELECT run, kind, metric, step, value FROM points"))
        evals = sorted(index.execute("SELECT run, checkpoint, metric, value FROM evals"))
        statuses = dict(index.execute("SELECT id, status FROM runs"))
        assert list(index.execute("PRAGMA integrity_check")) == [("ok",)]
    print(f"killed: {dict(struck)}; {len(home.run_dirs())} runs, {len(stored)} points")
    assert stored == sorted(point for run in home.run_dirs() for point in points(run))
    assert evals == sorted((run.id, "best", *pair) for run in others for pair in (("natural", 95.0), ("pgd20", 53.25)))
    assert statuses == {run.id: run.status() for run in home.run_dirs()}
    told = [path.name for path in home.path.iterdir() if re.search(r"damaged|crash\.log|dashboard\.log", path.name)]
    assert not told, (home.path / told[0]).read_bytes()[-3000:]
    assert "Traceback" not in (home.path / "scheduler.log").read_text()


def storm(home: Home, chance: random.Random) -> Counter[str]:
    """KILLS times one of the programs around the runs is killed, and begun again; gives how often each was."""
    commands = {
        "dashboard": ["tui"],
        "watch": ["watch"],
        "run": ["run", "digits-trades", "--name", "quick", *FIVE_JOBS],
        "ls": ["ls"],
        "reindex": ["reindex"],
    }
    begun = time.monotonic()
    assert cli(home, "ls").returncode == 0
    pace = time.monotonic() - begun  # on a slow machine, too, kills are to meet more than programs that begin
    terminals: dict[str, Terminal] = {}
    struck: Counter[str] = Counter()
    try:
        while sum(struck.values()) < KILLS:
            for name, arguments in commands.items():
                if name not in terminals or terminals[name].process.poll() is not None:
                    if name in terminals:
                        terminals.pop(name).kill()
                    terminals[name] = Terminal(home, *arguments)
            scheduler.ensure(home, ENGINE)
            moment = time.monotonic() + chance.uniform(0, 3 * pace)
            while time.monotonic() < moment:
                for terminal in terminals.values():
                    terminal.read()
                time.sleep(0.01)
            name = chance.choice(["scheduler", *commands])
            if name == "scheduler":
                struck[name] += kill_scheduler(home)
            elif terminals[name].process.poll() is None:
                terminals.pop(name).kill()
                struck[name] += 1
    finally:
        for terminal in terminals.values():
            terminal.kill()
    return struck


def kill_scheduler(home: Home) -> bool:
    """Kill the process that serves the queue, if there is one this moment."""
    said = re.findall(r"scheduler (\d+) serves", (home.path / "scheduler.log").read_text())
    with suppress(psutil.Error):
        process = psutil.Process(int(said[-1]))
        if "trainctl.launch.scheduler" in process.cmdline() and str(home.path) in process.cmdline():
            process.kill()
            return True
    return False


def points(run: RunDir) -> Iterator[tuple[str, str, str, int, float]]:
    """What the index must hold of a run's events."""
    for _, event in events.read(run.events.read_bytes()):
        if event["event"] in ("step", "epoch"):
            for name, value in event.items():
                if name not in ("t", "event", "step", "epoch", "epochs", "stage"):
                    yield run.id, event["event"], name, event["step"], value


@pytest.mark.timeout(1800)
def test_a_closed_terminal_ends_its_program_and_no_run(home: Home) -> None:
    """With and without a SIGHUP, which only the terminal's own session gets."""
    [watched] = queue(home, "sleep", share=0.2)
    scheduler.ensure(home, ENGINE)
    until(at_work([watched]))
    chance = random.Random("closed")
    slowest = dearest = 0.0
    for number in range(CLOSES):
        before = {run.id for run in home.run_dirs()}
        command = (["tui"], ["run", "digits-trades", "--name", "sleep", *FIVE_JOBS], ["watch"])[number % 3]
        terminal = Terminal(home, *command, leader=number % 2 == 0)
        seen = b"sleep-s1" if command == ["tui"] else b"training"
        until(lambda terminal=terminal, seen=seen: seen in terminal.read(), 300)
        time.sleep(chance.uniform(0, 0.3))
        seconds, cpu = terminal.close()
        slowest, dearest = max(slowest, seconds), max(dearest, cpu)
        assert within(cpu, 1.0), f"{command} took {cpu} seconds of CPU after its terminal had gone"
        started = [run for run in home.run_dirs() if run.id not in before]
        for run in (watched, *started):
            size = run.events.stat().st_size
            until(lambda run=run, size=size: run.events.stat().st_size > size)
            assert run.status() == "running" and len(starts(run)) == 1
        assert len(started) == (command[0] == "run")
        processes.stop(started)
    print(f"{CLOSES} terminals closed: gone after {slowest:.2f} s and {dearest:.2f} s of CPU at most")
    until(lambda: len(of_home(home)) <= 2)  # the engine and the scheduler
    assert not (home.path / "crash.log").exists()
