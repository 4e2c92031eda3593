"""How fast the tool itself is: start-up, lists, comparisons, ingest, reindex, and what a run pays for being watched.

    python benchmarks/registry.py [--quick] [--repeat 15]

Makes homes of made-up runs in the real layout: 10 000 runs of 10 000 000 points for `ls` and the ingest, 1 000 for
`reindex`, 100 for `compare`; with --quick the 10 000 have few points. Prints each figure beside its target.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import startup
from made_up import ROOT, curves, make_home

from engine.events import EventLog
from engine.lifecycle import HEARTBEAT_SECONDS, Lifecycle
from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.registry import ingest

RUNS, POINTS = 10_000, 1000  # points of each
REINDEXED, COMPARED = 1000, 100
BATCH, SIZE = 64, 32
STEP = {
    "data": {"dataset": "npz", "path": "noise.npz"},
    "model": {"arch": "resnet-18", "width": 16},
    "method": {"name": "trades"},
    "attack": {"steps": 10},
    "optim": {"batch_size": BATCH},
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the 10 000 runs have few points")
    parser.add_argument("--repeat", type=int, default=15)
    given = parser.parse_args()
    print(f"{date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores, medians of {given.repeat}")
    with tempfile.TemporaryDirectory() as folder:
        listed = make_home(Home(Path(folder, "listed")), RUNS, 0 if given.quick else POINTS)
        again = make_home(Home(Path(folder, "again")), REINDEXED, POINTS)
        compared = make_home(Home(Path(folder, "compared")), COMPARED, POINTS)
        ingested(again, REINDEXED * POINTS)
        began, worked = time.perf_counter(), time.process_time()
        ingest.rebuild(again)
        took, alone = time.perf_counter() - began, time.process_time() - worked
        show(f"reindex of {REINDEXED} runs of {POINTS} points, s", took, 30)
        show("the same by CPU time", alone, 30)
        if not given.quick:
            ingested(listed, RUNS * POINTS)
        startup.show(startup.seconds(listed, compared, given.repeat))
        shares(Path(folder))


def ingested(home: Home, points: int) -> None:
    """Read all `points` points of `home` into a new index."""
    began, worked = time.perf_counter(), time.process_time()
    ingest.refresh(home)
    took, alone = time.perf_counter() - began, time.process_time() - worked
    show(f"ingest of {points} points, points a second", points / took, 50_000, at_least=True)
    show("the same by CPU time, as if it had a core to itself", points / alone, 50_000, at_least=True)


def shares(folder: Path) -> None:
    """What events and heartbeats take of a training step, where every step is an event."""
    step = trades_step(folder)
    run = RunDir(folder / "watched")
    run.path.mkdir()
    log, beats = EventLog(run.events), Lifecycle(run)
    lines = [_seconds(lambda number=number: log.write("step", **curves(number))) for number in range(2000)]
    taken = [_seconds(beats._beat) for _ in range(200)]
    line, beat = statistics.median(lines), statistics.median(taken)
    print(f"a TRADES step {1000 * step:.1f} ms, an event {1e6 * line:.0f} µs, a heartbeat {1e6 * beat:.0f} µs")
    show("logging and heartbeat, share of a step in %", 100 * (line / step + beat / HEARTBEAT_SECONDS), 0.5)


def trades_step(folder: Path) -> float:
    """Median seconds of a step of the engine (resnet-18 of width 16, batch 64, 3 x 32 x 32), on two threads."""
    import numpy as np
    import tomli_w

    from engine.recipe import check

    noise = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": noise.integers(0, top, (n, *shape), dtype=np.uint8)
        for part, n in (("train", 1024), ("test", 64))
        for kind, top, shape in (("x", 256, (SIZE, SIZE, 3)), ("y", 10, ()))
    }
    np.savez(folder / "noise.npz", **arrays)
    run = RunDir(folder / "step")
    (run.path / "timed").mkdir(parents=True)
    table = {**STEP, "data": {**STEP["data"], "root": str(folder)}, "run": {"threads": 2, "device": "cpu"}}
    recipe = tomli_w.dumps(check(table).model_dump())
    for file in (run.recipe, run.path / "timed" / "0.toml"):
        file.write_text(recipe)
    run.write_json("run.json", {"id": run.id, "name": run.id})
    command = [sys.executable, "-m", "engine", str(run.path)]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    events = map(json.loads, run.events.read_text().splitlines())
    return float(next(event["seconds_per_step"] for event in events if event["event"] == "timing"))


def _seconds(work: object) -> float:
    began = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - began


def show(what: str, value: float, target: float, *, at_least: bool = False) -> None:
    """A line of the result."""
    met = value >= target if at_least else value <= target
    print(f"{what:56} {value:10.2f}   target {target:g}{'' if met else '   MISSED'}", flush=True)


if __name__ == "__main__":
    main()
