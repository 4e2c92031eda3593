"""Real run folders, as the launcher and the engine write them, for tests that need finished or running runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import tomli_w

from engine import events, recipe
from engine.rundir import RunDir, me
from trainctl.home import Home

PGD = {
    "attack": "pgd", "protocol": "lbgat", "loss": "ce", "norm": "linf", "eps": 0.25, "step_size": 0.025, "steps": 20,
    "start": "uniform", "stop": "none", "implementation": "engine.attacks.pgd", "version": "1", "seed": 0,
}  # fmt: skip
THREATS: dict[str, dict[str, Any]] = {
    "natural": {
        "attack": "none", "protocol": "lbgat", "loss": "none", "norm": "none", "eps": 0.0, "step_size": 0.0, "steps": 0,
        "start": "none", "stop": "none", "implementation": "engine.evaluate", "version": "1", "seed": 0,
    },
    "pgd20": PGD,
    "cw20": {**PGD, "loss": "margin"},
    "aa": {
        **PGD, "attack": "autoattack", "loss": "ensemble", "step_size": 0.0, "steps": 0,
        "implementation": "pyautoattack 0.2.0", "version": "standard", "standard": True, "warnings": [],
    },
}  # fmt: skip
MADE = {"natural": 95.0, "pgd20": 53.0}


def make_run(
    home: Home,
    run_id: str,
    *,
    recipe_table: Mapping[str, Any] | None = None,
    method: str = "trades",
    topology: bool = False,
    seed: int = 0,
    name: str | None = None,
    recipe_name: str | None = None,
    group: str | None = None,
    pair: str | None = None,
    metrics: Mapping[str, float] = MADE,
    last: Mapping[str, float] | None = None,
    threats: Mapping[str, Mapping[str, Any]] | None = None,
    examples: int = 360,
    status: str = "done",
    epochs: int = 3,
    seconds: float = 2.0,
    created: float = 1000.0,
    tags: Iterable[str] = (),
    device: str = "cpu",
    env: Mapping[str, Any] | None = None,
) -> RunDir:
    """Write one run folder. `metrics` are those of `best`, `last` those of `last` (default: the same).

    status: queued, running (this very process), lost (a process that never was), or any way to end.
    """
    folder = home.create().run(run_id)
    folder.path.mkdir()
    table = merged(
        {"data": {"dataset": "digits"}, "method": {"name": method}, "topology": {"enabled": topology},
         "schedule": {"epochs": epochs, "milestones": []}, "run": {"seed": seed, "threads": 1},
         "attack": {"eps": 0.25, "step_size": 0.05}, "eval": {"eps": 0.25}},
        recipe_table or {},
    )  # fmt: skip
    resolved = recipe.check(table)
    folder.recipe.write_text(tomli_w.dumps(resolved.model_dump()))
    recipe_name = recipe_name or f"{resolved.data.dataset}-{resolved.method.name}"
    twin = "+train" if resolved.topology.enabled else ""
    run = {
        "id": run_id, "name": name or f"{recipe_name}{twin}-s{seed}", "recipe": recipe_name,
        "group": group or f"{recipe_name}{twin}-00000000", "pair": pair or f"{recipe_name}-00000000", "seed": seed,
        "command": f"trainctl run {recipe_name} --seeds {seed}", "created": created, "tags": list(tags),
    }  # fmt: skip
    folder.write_json("run.json", run)
    if status == "queued":
        return folder
    folder.write_json("launch.json", {**me(), "t": created})
    folder.write_json("env.json", dict(env or environment(device)))
    log = [("start", {"id": run_id, "method": resolved.method.name, "device": device, "epochs": epochs})]
    log += training(epochs if status == "done" else max(1, epochs - 1), epochs, seconds)
    if status == "done":
        best = {**THREATS, **(threats or {})}
        log += evaluation("best", metrics, best, examples, epochs - 1, "best pgd10 on " + resolved.eval.select)
        log += evaluation("last", metrics if last is None else last, best, examples, epochs, "last epoch")
        log.append(("end", {"status": "done", "reason": ""}))
    append(folder, log, created + 1)
    if status == "running":
        folder.write_json("heartbeat.json", {**me(), "step": 4, "t": created + 2})
    elif status == "lost":
        folder.write_json("heartbeat.json", {**me(), "start_time": 1.0, "ticks": 1, "step": 4, "t": created + 2})
    else:
        folder.write_json(
            "exit.json", {"status": status, "code": int(status != "done"), "reason": "", "t": created + 60}
        )
    return folder


def training(until: int, epochs: int, seconds: float) -> list[tuple[str, dict[str, Any]]]:
    """Step and epoch events up to epoch `until`."""
    found: list[tuple[str, dict[str, Any]]] = []
    for epoch in range(1, until + 1):
        for step in (10 * epoch - 5, 10 * epoch):
            found.append(("step", {"step": step, "epoch": epoch, "stage": "train", "loss": 3.0 / step, "lr": 0.1}))
        values = {
            "loss": 2.0 / epoch,
            "train_natural": 80.0 + epoch,
            "validation_natural": 82.0 + epoch,
            "seconds": seconds,
        }
        found.append(("epoch", {"epoch": epoch, "epochs": epochs, "step": 10 * epoch, "stage": "train", **values}))
    return found


def evaluation(
    checkpoint: str, metrics: Mapping[str, float], threats: Mapping[str, Any], examples: int, epoch: int, rule: str
) -> list[tuple[str, dict[str, Any]]]:
    """One eval event a metric."""
    common = {"split": "test", "checkpoint": checkpoint, "epoch": epoch, "rule": rule, "seconds": 0.5, "of": 360}
    return [
        ("eval", {"metric": name, "value": value, "n": examples, **common, **threats.get(name, {})})
        for name, value in metrics.items()
    ]


def append(folder: RunDir, log: Iterable[tuple[str, dict[str, Any]]], t: float) -> None:
    """Append events, a second apart."""
    with open(folder.events, "ab") as file:
        for index, (event, fields) in enumerate(log):
            file.write(events.encode(event, t + index, fields))


def environment(device: str = "cpu") -> dict[str, Any]:
    """Content of env.json."""
    return {
        "python": "3.11.7", "packages": {"torch": "2.14.1", "numpy": "2.3.0"}, "git": {"commit": "a" * 40, "patch": ""},
        "host": "box", "platform": "Linux", "device": "Some CPU", "device_type": device, "threads": 1,
        "precision": "float32", "argv": ["engine", "somewhere"],
    }  # fmt: skip


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the tables of `over` laid on top."""
    both = json.loads(json.dumps(base))
    for key, value in over.items():
        both[key] = merged(both.get(key, {}), value) if isinstance(value, Mapping) else value
    return dict(both)
