"""Many runs write while the index is written, read, and its writer killed: no point is lost, none is there twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from folders import append, make_run, training

from engine import events
from engine.events import EventLog
from engine.rundir import RunDir, me
from trainctl.cli.show import show
from trainctl.home import Home
from trainctl.registry import ingest, query
from trainctl.registry.window import Table, View

WRITERS = 50
RATE = 20
"""Lines that each writes in a second."""
SECONDS = float(os.environ.get("TRAINCTL_STORM_SECONDS", "4"))
"""60 at full size: 60 000 points."""
READERS = 3
KILLS = int(os.environ.get("TRAINCTL_KILLS", "20"))
"""100 at full size."""

ME = me()
# As light as a process can be: 50 of them share two cores with those that are tested.
WRITER = """
import os, sys, time
path, lines, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
began = time.monotonic()
for n in range(1, lines + 1):
    time.sleep(max(0.0, began + n / rate - time.monotonic()))
    os.write(file, b'{"t": %d.5, "event": "step", "step": %d, "epoch": 1, "storm": %d}\\n' % (n, n, n * 7 % 1000))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


def writer(run: RunDir, lines: int, rate: float) -> subprocess.Popen[bytes]:
    """A process that writes steps from 1 to `lines`."""
    return subprocess.Popen([sys.executable, "-S", "-E", "-c", WRITER, str(run.events), str(lines), str(rate)])


def new_run(home: Home, run: str) -> RunDir:
    """A run at work that has written nothing yet."""
    folder = home.run(run)
    folder.path.mkdir()
    (folder.path / "run.json").write_text(json.dumps({"id": run, "name": run, "created": 1.0}))
    (folder.path / "heartbeat.json").write_text(json.dumps({**ME, "step": 0, "t": 1.0}))
    return folder


def stored(home: Home) -> list[tuple[Any, ...]]:
    """Every point of the storm in the index, which is sound."""
    with closing(sqlite3.connect(home.index)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        asked = "SELECT run, step, value FROM points WHERE metric = 'storm' ORDER BY run, step"
        return connection.execute(asked).fetchall()


def written(home: Home) -> list[tuple[Any, ...]]:
    """The same from the files, read without trainctl."""
    found = []
    for run in sorted(path.name for path in home.runs.iterdir()):
        lines = (home.runs / run / "events.jsonl").read_text().splitlines()
        found += [(run, event["step"], float(event["storm"])) for event in map(json.loads, lines)]
    return found


def _ingest(path: Path, ready: Any, over: Any) -> None:
    ready.release()
    while not over.is_set():
        ingest.refresh(Home(path))


def _read(path: Path, ready: Any, over: Any, seconds: Any) -> None:
    """Ask as a screen does until it is over; how long each answer took is put into `seconds`."""
    home, took, number = Home(path), [], 0
    ready.release()
    while not over.is_set():
        began = time.monotonic()
        window = Table(home).window(View(sort="-created"), 0, 40)
        query.metrics(home, f"run{number % WRITERS:02d}")
        found = query.points(home, f"run{number % WRITERS:02d}", "storm", "step")
        took.append(time.monotonic() - began)
        assert window.total == WRITERS and [point.step for point in found] == list(range(1, len(found) + 1))
        number += 1
        time.sleep(0.02)
    seconds.put(took)


def test_fifty_writers_an_ingester_and_three_readers(home: Home) -> None:
    lines = int(RATE * SECONDS)
    runs = [new_run(home, f"run{number:02d}") for number in range(WRITERS)]
    ingest.refresh(home)
    context = multiprocessing.get_context("spawn")
    ready, over, seconds = context.Semaphore(0), context.Event(), context.Queue()
    others = [context.Process(target=_ingest, args=(home.path, ready, over))]
    others += [context.Process(target=_read, args=(home.path, ready, over, seconds)) for _ in range(READERS)]
    for other in others:
        other.start()
    for _ in others:
        assert ready.acquire(timeout=300)
    try:
        writers = [writer(run, lines, RATE) for run in runs]
        assert [process.wait() for process in writers] == [0] * WRITERS
    finally:
        over.set()
    took = sorted(each for _ in range(READERS) for each in seconds.get(timeout=300))
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0] * len(others)  # "database is locked" would be an error
    ingest.refresh(home)
    found = stored(home)
    assert len(found) == WRITERS * lines
    assert found == written(home)
    assert not list(home.path.glob("index.db.damaged-*"))
    middle, p95, longest = statistics.median(took), took[int(0.95 * len(took))], took[-1]
    print(f"{len(found)} points, {len(took)} reads: median {middle:.3f} s, p95 {p95:.3f}, longest {longest:.3f}")


def test_the_ingester_is_killed_again_and_again(home: Home) -> None:
    """At random moments, while four runs write as fast as they can; the next one goes on where it stood."""
    pick = random.Random(1)
    runs = [new_run(home, f"run{number}") for number in range(4)]
    writers = [writer(run, 150 * KILLS, 1000.0) for run in runs]
    for _ in range(KILLS):
        pid = os.fork()
        if not pid:
            try:
                while True:
                    ingest.refresh(home)
            finally:
                os._exit(1)
        time.sleep(pick.uniform(0.0, 0.15))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL  # and not of itself before
        query.runs(home)  # whatever it left behind is read
    assert [process.wait() for process in writers] == [0] * 4
    ingest.refresh(home)
    found = stored(home)
    assert len(found) == 4 * 150 * KILLS
    assert found == written(home)
    assert not list(home.path.glob("index.db.damaged-*"))


def real_log() -> bytes:
    """What an engine writes, NaN and an evaluation included."""
    nan, inf = float("nan"), float("-inf")
    log: list[tuple[str, dict[str, Any]]] = [
        ("start", {"epochs": 3, "device": "cpu"}), *training(2, 3, 2.0)[:4],
        ("step", {"step": 25, "epoch": 3, "stage": "train", "loss": nan, "lr": 0.1}),
        ("epoch", {"epoch": 3, "epochs": 3, "step": 30, "stage": "train", "loss": inf, "validation_natural": 84.5}),
        ("eval", {"metric": "natural", "value": 95.25, "n": 360, "checkpoint": "best", "rule": "näher"}),
    ]  # fmt: skip
    return b"".join(events.encode(kind, 5.0 + at, fields) for at, (kind, fields) in enumerate(log))


def known(home: Home) -> dict[str, tuple[Any, ...]]:
    """All that came from the events of each run."""
    with closing(sqlite3.connect(home.index)) as connection:
        found: dict[str, tuple[Any, ...]] = {}
        for run, epoch, metrics, status in connection.execute("SELECT id, epoch, metrics, status FROM runs"):
            points = connection.execute("SELECT kind, metric, step, value FROM points WHERE run = ?", (run,)).fetchall()
            evals = connection.execute("SELECT checkpoint, metric, value FROM evals WHERE run = ?", (run,)).fetchall()
            found[run] = (epoch, metrics, status, points, evals)
    return found


def cut_at(home: Home, content: bytes, cuts: Iterator[int]) -> dict[str, int]:
    found = {f"cut{cut:05d}": cut for cut in cuts}
    for run, cut in found.items():
        new_run(home, run).events.write_bytes(content[:cut])
    return found


def test_a_log_cut_at_every_byte_of_its_last_three_lines(home: Home) -> None:
    content = real_log()
    ends = [at + 1 for at, byte in enumerate(content) if byte == 10]
    whole = {f"whole{end}": new_run(home, f"whole{end}") for end in ends[-4:]}
    for end, run in zip(ends[-4:], whole.values(), strict=True):
        run.events.write_bytes(content[:end])
    cuts = cut_at(home, content, iter(range(ends[-4], len(content) + 1)))
    ingest.refresh(home)
    found = known(home)
    for run, cut in cuts.items():
        assert found[run] == found[f"whole{max(end for end in ends if end <= cut)}"], run
    assert query.damage(home) == []  # torn, which is no damage
    for number, (run, cut) in enumerate(cuts.items()):
        if number % 2:  # the rest comes
            with open(home.run(run).events, "ab") as file:
                file.write(content[cut:])
        else:  # another process goes on
            log = EventLog(home.run(run).events)
            for line in content[max(end for end in ends if end <= cut) :].splitlines():
                event = json.loads(line)
                log.write(event.pop("event"), **event) if event.pop("t") else None
            log.close()
    ingest.refresh(home)
    found = known(home)
    assert all(found[run] == found[f"whole{len(content)}"] for run in cuts)
    damaged = {run: (lines, at) for run, lines, at in query.damage(home)}
    for number, (run, cut) in enumerate(cuts.items()):
        start = max(end for end in ends if end <= cut)
        torn = number % 2 == 0 and cut > start and content[cut : cut + 1] != b"\n"
        assert damaged.get(run) == ((1, start) if torn else None), run


ODD = {
    "zeros": b"\0" * 4096 + b"\n", "a megabyte": b"x" * (1 << 20) + b"\n", "foreign": b"Traceback (most recent):\n",
    "no object": b"[1, 2]\n", "no event": b'{"t": 1}\n', "not UTF-8": b'{"event": "step", "step": 4, "a\xff": 1}\n',
    "too long": b"y" * (9 << 20) + b"\n", "deep": b"[" * 100_000 + b"\n", "empty": b"\n",
}  # fmt: skip


def test_lines_that_are_no_events_are_counted_and_said(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(home, "aaaa")
    size = folder.events.stat().st_size
    with open(folder.events, "ab") as file:
        file.write(b'{"event": "step", "t": 1, "step": 7, "epoch": 1, "a": NaN, "b": -Infinity, "c": 1}\r\n')  # one
        first = file.tell()
        file.write(b"".join(ODD.values()))
    append(folder, [("step", {"step": 8, "epoch": 1, "a": 2.0})], 9.0)
    make_run(home, "bbbb")
    ingest.refresh(home)
    assert first > size and query.damage(home) == [("aaaa", len(ODD), first)]
    assert [(point.step, point.value) for point in query.points(home, "aaaa", "a", "step")] == [(7, None), (8, 2.0)]
    assert query.metrics(home, "aaaa")["step"] == ["a", "b", "c", "loss", "lr"]
    show("aaaa", home=str(home.path))
    assert f"{len(ODD)} line(s) of events.jsonl are no events, from byte {first} on" in " ".join(
        capsys.readouterr().out.split()
    )
    with open(folder.events, "ab") as file:
        file.write(b"more\n")
    ingest.refresh(home)
    assert query.damage(home, "aaaa") == [("aaaa", len(ODD) + 1, first)] and query.damage(home, "bbbb") == []
