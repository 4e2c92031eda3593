"""Has something become slower? Compares ratios, measured side by side in one process pair, and never absolute times.

    make guard

A limit is what was measured when it was set and half as much again: a loaded machine moves a ratio by less, and an
import too many or a question asked for every run by more. Exits with 1 if one is passed. Takes two minutes, and is
no part of `make test`, since no test may fail because the machine is busy.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import startup
import step
import torch
from made_up import CURVES, make_home, make_long

from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.registry import ingest

LIMITS = {
    "--version": 2.0, "--help": 10.0, "ls": 20.0, "ls --json": 24.0, "compare": 22.0, "ingest": 4.0,
    "TRADES step": 0.7, "AT step": 0.7,
}  # fmt: skip
"""The commands as multiples of `python -c pass`, with 1 000 runs, of which 100 are compared; ingest as one of the time
that parsing the same lines and putting the same points into a bare table take; steps in float32 (resnet-18 of width 16)
as parts of the textbook's."""


def main() -> None:
    """Measure, print, and fail if a limit is passed."""
    with tempfile.TemporaryDirectory() as folder:
        listed, compared = (make_home(Home(Path(folder, str(runs))), runs) for runs in (1000, 100))
        taken = startup.seconds(listed, compared, 7)
        ratios = {name: taken[name] / taken[startup.NOTHING] for name in LIMITS if name in taken}
        ratios["ingest"] = ingesting(Path(folder))
        ratios |= steps(Path(folder))
    for name, ratio in ratios.items():
        print(f"{name:12} {ratio:6.2f}   limit {LIMITS[name]:g}{'' if ratio <= LIMITS[name] else '   SLOWER'}")
    sys.exit(int(any(ratio > LIMITS[name] for name, ratio in ratios.items())))


def steps(folder: Path) -> dict[str, float]:
    """Seconds of a step over those of the textbook loop, in processor time of one thread."""
    torch.set_num_threads(1)
    step.clock = time.process_time
    data = step.made_up(folder)
    found = {
        method: step.measure(method, "resnet-18:16", False, data, range(3, 4), lean=False, compiled=False)
        for method in ("trades", "at")
    }
    return {f"{method.upper()} step": 1 / figures["float32"] for method, figures in found.items()}


def ingesting(folder: Path) -> float:
    """Seconds of reading a run of 100 000 points into a new index over those of the least that could do it."""
    ratios = []
    for number in range(5):
        home = Home(folder / f"ingest{number}")
        run = make_long(home, "longest1", 100_000)
        began = time.perf_counter()
        ingest.refresh(home)
        between = time.perf_counter()
        _barely(run, folder / f"bare{number}.db")
        ratios.append((between - began) / (time.perf_counter() - between))
    return statistics.median(ratios)


def _barely(run: RunDir, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE points (metric TEXT, step INTEGER, value REAL)")
        events = map(json.loads, run.events.read_bytes().splitlines())
        points = ((name, event.get("step"), event[name]) for event in events for name in CURVES if name in event)
        connection.executemany("INSERT INTO points VALUES (?, ?, ?)", points)


if __name__ == "__main__":
    main()
