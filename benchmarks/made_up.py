"""Homes full of made-up runs in the real layout, for benchmarks. Written fast: a pair is made and then copied."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from folders import make_run  # noqa: E402

from engine import events  # noqa: E402
from engine.rundir import RunDir  # noqa: E402
from trainctl.home import Home  # noqa: E402

CURVES = (
    "loss", "loss_robust", "loss_topology", "loss_standard", "train_natural", "train_adversarial",
    "validation_natural", "validation_pgd10", "lr", "seconds",
)  # fmt: skip
SPREAD = 7  # recipes that the runs are spread over


def make_home(home: Home, runs: int, points: int = 0) -> Home:
    """Add `runs` finished runs, baselines and twins in turn, of `points` points each (0: a few); returns `home`."""
    home.create()
    seed_of = {False: make_run(home, "seed0", seed=0), True: make_run(home, "seed1", seed=0, topology=True)}
    files = {
        side: {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
        for side, run in seed_of.items()
    }
    for run in seed_of.values():
        for path in sorted(run.path.rglob("*"), reverse=True):
            path.unlink()
        run.path.rmdir()
    for number in range(runs):
        topology = bool(number % 2)
        _copy(home.run(f"made{number:06}"), files[topology], number, topology, points // len(CURVES))
    return home


def _copy(run: RunDir, files: dict[str, bytes], number: int, topology: bool, epochs: int) -> None:
    about = json.loads(files["run.json"])
    recipe, seed = f"recipe{number // 2 % SPREAD}", number // (2 * SPREAD)
    twin = "+train" * topology
    about |= {
        "id": run.id, "name": f"{recipe}{twin}-s{seed}", "recipe": recipe, "seed": seed, "created": 1e9 + 100 * number,
        "group": f"{recipe}{twin}-00000000", "pair": f"{recipe}-00000000",
    }  # fmt: skip
    run.path.mkdir()
    for name, content in files.items():
        if name == "events.jsonl" and epochs:
            content = b"".join(_epoch(epoch, epochs, 1e9 + 100 * number) for epoch in range(1, epochs + 1)) + content
        (run.path / name).write_bytes(json.dumps(about).encode() if name == "run.json" else content)


def _epoch(epoch: int, epochs: int, t: float) -> bytes:
    return events.encode("epoch", t + epoch, curves(epoch) | {"epochs": epochs, "stage": "train"})


def curves(step: int) -> dict[str, Any]:
    """A value of each of CURVES at `step`."""
    values = {name: round(100 / (1 + step / (10 + rank)), 4) for rank, name in enumerate(CURVES)}
    return {"epoch": step, "step": 10 * step, **values, "seconds": 2.0}


def make_long(home: Home, run_id: str, points: int, **how: Any) -> RunDir:
    """Add a run of `points` points, from steps."""
    steps = points // len(CURVES)
    run = make_run(home, run_id, **how)
    kept = run.events.read_bytes()
    with open(run.events, "wb") as file:
        for step in range(1, steps + 1):
            values = curves(step) | {"step": step, "epoch": step // 1000, "stage": "train"}
            file.write(events.encode("step", 1e9 + step / 10, values))
        file.write(kept)
    return run


def live(home: Home, run_id: str, **how: Any) -> RunDir:
    """Add a run that seems to be at work, as long as this process lives."""
    return make_run(home, run_id, status="running", **how)


def step(run: RunDir, number: int, loss: float) -> None:
    """Let a live run write one line."""
    import time

    with open(run.events, "ab", buffering=0) as file:
        values = {"step": number, "epoch": 3, "stage": "train", "loss": loss, "loss_robust": loss, "lr": 0.1}
        file.write(events.encode("step", time.time(), values))
