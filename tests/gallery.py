"""A home for pictures of the dashboard: made-up runs in many states, where clocks and loads stand still.

No network was trained for any of its numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from dashboard import screen_text, select, until
from folders import PGD, THREATS, append, evaluation, make_run
from textual.pilot import Pilot
from textual.widgets import Input

from engine.narrate import sentence
from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.launch import queue, slots
from trainctl.launch.folders import ALPHABET
from trainctl.launch.gpus import NO_DRIVER, Gpus
from trainctl.launch.machine import Machine, Meter, ProcessLoad
from trainctl.recipes.plan import Planned, plan
from trainctl.registry import ingest, labels
from trainctl.tui import keys
from trainctl.tui.feed import draft, launch
from trainctl.tui.feed import machine as feed
from trainctl.tui.feed.launch import Offer
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.widgets import system

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC
HOUR = 3600.0
ENDS: dict[str, tuple[float, float, float]] = {
    "digits-standard": (98.1, 0.3, 1.4), "digits-at": (96.4, 52.3, 5.2), "digits-trades": (95.3, 49.1, 24.0),
    "digits-mart": (93.9, 50.8, 21.0), "digits-las-trades": (94.6, 51.7, 30.0),
    "fashion-mnist-trades": (82.7, 66.1, 95.0),
}  # fmt: skip
"""Natural and PGD-20 accuracy, and seconds of an epoch, where the baselines of a recipe get to."""
OFFERED = (
    "cifar10-at", "cifar10-lbgat-trades", "cifar10-standard", "cifar10-trades", "cifar100-trades", "digits-alp",
    "digits-at", "digits-at-awp", "digits-fat", "digits-gairat", "digits-las-trades", "digits-lbgat-trades",
    "digits-mart", "digits-sat", "digits-standard", "digits-trades", "fashion-mnist-at", "fashion-mnist-trades",
    "tiny-imagenet-trades",
)  # fmt: skip
"""Shipped recipes that the picker lists, so that its picture outlives new ones."""
LIVE = "fashion-mnist-trades+train-s0"


def fill(home: Home) -> Home:
    """Write some twenty runs and index them."""
    _make(home, "digits-at", 52.0, seeds="0-2", pair=True)
    _make(home, "digits-trades", 30.0, seeds="0-2", pair=True)
    _make(home, "digits-standard", 28.0, seeds="0-2")
    _make(home, "digits-mart", 27.0, ("diverged",), reason="the loss is nan; a smaller optim.lr may help")
    _make(home, "digits-las-trades", 26.0, ("preempted",), reason="SIGTERM; resume goes on from epoch 12")
    _make(home, "fashion-mnist-trades", 0.9, ("done", "running", "queued", "queued"), seeds="0-1", pair=True)
    labels.change(home.run(run_id(LIVE)), add=["beta-6"], note="does TRAIN help with more data?")
    labels.change(home.run(run_id("digits-mart-s1")), note="try a smaller step")
    queue.prioritize([home.run(run_id("fashion-mnist-trades+train-s1"))], 1)
    queue.hold([home.run(run_id("fashion-mnist-trades-s1"))], True)
    ingest.refresh(home)
    return home


def run_id(name: str) -> str:
    """The id of the run of that name."""
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in hashlib.sha256(name.encode()).digest()[:8])


def _make(home: Home, recipe: str, ago: float, statuses: Sequence[str] = (), reason: str = "", **how: Any) -> None:
    plans = plan([recipe], **how)
    for number, planned in enumerate(plans):
        status = statuses[number] if statuses else "done"
        _write(home, planned, status, NOW - HOUR * ago + 60.0 * number, reason)


def _write(home: Home, planned: Planned, status: str, created: float, reason: str) -> None:
    recipe = planned.recipe
    run = make_run(
        home, run_id(planned.name), name=planned.name, recipe_name=planned.recipe_name, group=planned.group,
        pair=planned.pair, seed=planned.seed, recipe_table={**recipe.model_dump(), "title": recipe.title},
        method=recipe.method.name, topology=recipe.topology.enabled, status=status, created=created,
    )  # fmt: skip
    twin = " --pair" if planned.recipe_name in ("digits-at", "digits-trades", "fashion-mnist-trades") else ""
    about = run.json("run.json") | {"command": f"trainctl run {planned.recipe_name}{twin} --seeds 0-2"}
    run.write_json("run.json", about)
    if status == "queued":
        return
    pace = ENDS[planned.recipe_name][2] * (1.05 if recipe.topology.enabled else 1.0)
    epochs = recipe.schedule.epochs
    until = epochs if status == "done" else round(0.6 * epochs)
    run.events.unlink()
    log = _log(run, planned, until, status, pace)
    begun = NOW - 20 - log[-1][0] if status == "running" else created
    for t, event, fields in log:
        append(run, [(event, fields)], begun + t)
    lines = (f"{_clock(begun + t)} {sentence(event, fields)}" for t, event, fields in log if sentence(event, fields))
    run.log.write_text("\n".join(lines) + "\n")
    run.attempts.write_text(f'{{"t": {begun + 1}, "pid": 4211, "host": "box", "resumed_from": null}}\n')
    _checkpoints(run, until, begun + log[-1][0])
    if status != "running":
        ended = run.json("exit.json") | {
            "t": created + log[-1][0],
            "peak_memory_mb": 612.0 + 31 * recipe.topology.enabled,
        }
        run.write_json("exit.json", ended | {"reason": reason})


def _log(
    run: RunDir, planned: Planned, until: int, status: str, pace: float
) -> list[tuple[float, str, dict[str, Any]]]:
    """The events of a run with the seconds since its creation."""
    recipe, epochs = planned.recipe, planned.recipe.schedule.epochs
    start = {
        "id": run.id, "method": recipe.method.name, "topology": recipe.topology.enabled, "dataset": recipe.data.dataset,
        "device": "cpu", "epochs": epochs, "steps_per_epoch": 18, "train": 1150, "test": 360, "parameters": 77_130,
    }  # fmt: skip
    log: list[tuple[float, str, dict[str, Any]]] = [(2.0, "start", start), (2.0, "stage", {"stage": "train"})]
    for epoch in range(1, until + 1):
        fields = {
            "epoch": epoch,
            "epochs": epochs,
            "step": 18 * epoch,
            "stage": "train",
            **_curves(planned, epoch, pace),
        }
        log.append((2.0 + pace * epoch, "epoch", fields))
    if status == "done":
        end = log[-1][0]
        for checkpoint, epoch, less in (("best", epochs - 2, 0.0), ("last", epochs, 0.8)):
            rule = "best pgd10 on validation" if checkpoint == "best" else "last epoch"
            found = evaluation(checkpoint, _results(planned, less), _threats(planned), 360, epoch, rule)
            log += [(end + 1.0, event, fields) for event, fields in found]
        log.append((end + 2.0, "end", {"status": "done", "reason": ""}))
    return log


def _curves(planned: Planned, epoch: int, pace: float) -> dict[str, float]:
    """What an epoch says: losses that fall, accuracies that rise, each with its own noise."""
    draw = Random(f"{planned.name} {epoch}")
    natural, robust, _ = _ends(planned)
    left = math.exp(-4.5 * epoch / planned.recipe.schedule.epochs)
    noise = [draw.uniform(-1.0, 1.0) * (0.3 + left) for _ in range(7)]
    values = {"loss_robust": 0.62 + 1.6 * left + 0.03 * noise[0]}
    if planned.recipe.topology.enabled:
        values |= {"loss_topology": 0.21 + 0.5 * left + 0.01 * noise[1], "l_tp": 0.042 + 0.1 * left}
        values["loss_standard"] = 0.02 + 1.2 * left**2
    values["loss"] = values["loss_robust"] + values.get("loss_topology", 0.0)
    values |= {
        "train_natural": natural + 1.5 - 55 * left + noise[2], "train_adversarial": robust + 9 - 45 * left + noise[3],
        "validation_natural": natural - 48 * left + 1.5 * noise[4],
        "validation_pgd10": robust + 2 - 38 * left + 2 * noise[5],
        "lr": 0.1 if epoch < 0.75 * planned.recipe.schedule.epochs else 0.01,
        "images_per_second": round(1150 / pace), "seconds": pace * (1 + 0.02 * noise[6]),
    }  # fmt: skip
    return {name: round(max(0.0, value), 4) for name, value in values.items()}


def _results(planned: Planned, less: float) -> dict[str, float]:
    """The evaluation of a checkpoint, `less` points below the best one's."""
    natural, robust, _ = _ends(planned)
    draw = Random(planned.name)
    exact = {"natural": natural - less / 2, "pgd20": robust - less, "cw20": robust - 7 - less, "aa": robust - 9 - less}
    exact |= {"topo_natural": 70 + 0.28 * natural, "topo_robust": robust + 5}
    results = {name: round(max(0.0, value + draw.uniform(-0.4, 0.4)), 2) for name, value in exact.items()}
    return results | ({"l_tp": 0.7} if planned.recipe.topology.enabled else {})


def _ends(planned: Planned) -> tuple[float, float, float]:
    """Where a run gets to; a twin a little further."""
    natural, robust, pace = ENDS[planned.recipe_name]
    shift = Random(planned.seed).uniform(-0.7, 0.7)
    gain = 5.4 if planned.recipe.topology.enabled else 0.0
    return natural + 0.1 * gain + shift / 2, robust + gain + shift, pace


def _threats(planned: Planned) -> dict[str, dict[str, Any]]:
    eps = planned.recipe.eval.eps or planned.recipe.attack.eps
    known = {"eps": eps, "step_size": round(eps / 10, 4)}
    topology = {"n": 360, "k": 10}
    robust = {**PGD, **known}
    return {
        **{name: {**threat, **known} for name, threat in THREATS.items() if name in ("pgd20", "cw20")},
        "aa": {**THREATS["aa"], "eps": eps}, "topo_natural": {**THREATS["natural"], **topology},
        "topo_robust": {**robust, **topology}, "l_tp": robust,
    }  # fmt: skip


def _checkpoints(run: RunDir, epoch: int, t: float) -> None:
    """Files with a header and no weights, written at the time `t`."""
    for which, at in (("best", max(1, epoch - 2)), ("last", epoch)):
        rule = "best pgd10 on validation" if which == "best" else "last epoch"
        state = {"rule": rule, "progress": {"epoch": at, "batch": 0}}
        header = json.dumps({"__metadata__": {"state": json.dumps(state)}}).encode()
        run.checkpoints.mkdir(exist_ok=True)
        run.checkpoint(which).write_bytes(struct.pack("<Q", len(header)) + header + bytes(310_000))
        os.utime(run.checkpoint(which), (t, t))


def _clock(t: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(t))


# --- time and machine -----------------------------------------------------------------------------------------------


class Steady(Meter):
    """A machine of eight cores with the same load at every look."""

    def machine(self) -> Machine:
        """The same as always."""
        giga = 1 << 30
        load = (7.1, 6.8, 5.2)
        return Machine(
            "box", 8, 6.7, load, 11 * giga, 32 * giga, 0, 8 * giga, 410 * giga, 930 * giga, Gpus((), NO_DRIVER)
        )

    def process(self, run: RunDir) -> ProcessLoad:
        """As if each run had the same process."""
        return ProcessLoad(4211, NOW - 0.35 * HOUR, 634.0, 640 << 20, 8, 1, None)


def still(patch: pytest.MonkeyPatch, folder: Path) -> Home:
    """An empty home in `folder`. Until `patch` ends no clock runs, no load changes, no screen tells of this machine.

    The path is short and relative, since screens name it.
    """
    patch.chdir(folder)
    patch.setenv("TZ", "UTC")
    time.tzset()
    for name in ("NO_COLOR", "TRAINCTL_DATA", "TRAINCTL_PLUGINS"):
        patch.delenv(name, raising=False)
    home = Home(Path("experiments"))
    sampler = feed.Sampler(Steady(home), clock=lambda: feed.SPAN)
    for step in range(0, int(feed.SPAN), 2):
        wave = math.sin(step / 25) + 0.4 * math.sin(step / 7)
        sampler._recent.add(step, "cpu", 6.6 + 0.9 * wave)
        sampler._recent.add(step, "memory", (11 + 0.4 * wave) * (1 << 30))
        sampler._recent.add(step, f"{run_id(LIVE)} cpu", 630.0 + 70 * wave)
        sampler._recent.add(step, f"{run_id(LIVE)} memory", (560 + step / 4) * (1 << 20))
    patch.setattr(time, "time", lambda: NOW)
    for module in (feed, system):
        patch.setattr(module, "sampler", lambda home: sampler)
    patch.setattr(slots, "gpus", list)
    patch.setattr(slots, "cores", lambda: 8)
    patch.setattr(draft, "find_home", lambda: home)
    patch.setattr(launch, "_listed", lambda: [Offer(name, own=False) for name in OFFERED])
    return home


# --- pictures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stop:
    """A stop of the tour: the keys that lead there from the stop before, and what is seen once all has been drawn.

    `run` is that to go to in the table of runs before the keys are pressed, `typed` is put into the filter after them.
    """

    name: str
    keys: tuple[str, ...]
    seen: str
    run: str = ""
    typed: str = ""


async def go(pilot: Pilot[None], stop: Stop) -> None:
    """Go on to a stop."""
    if stop.run:
        await pilot.press("home")
        await select(pilot, run_id(stop.run))
    await pilot.press(*stop.keys)
    if stop.typed:  # at once, since each letter may be answered or not
        await until(pilot, lambda: getattr(pilot.app.focused, "id", "") == "filter")
        pilot.app.screen.query_one("#filter", Input).value = stop.typed
    await until(pilot, lambda: stop.seen in screen_text(pilot))


async def taken(pilot: Pilot[None]) -> str:
    """A picture of the screen, once it no longer changes."""
    for field in pilot.app.screen.query(Input):
        field.cursor_blink = False
    picture = ""
    for _ in range(100):
        await pilot.pause(0.05)
        screen = pilot.app.screen
        busy = isinstance(screen, LiveScreen) and screen._busy
        before, picture = picture, re.sub(r"terminal-\d+-", "terminal-", pilot.app.export_screenshot(simplify=True))
        if picture == before and not busy:
            return picture
    raise AssertionError(f"it never stands still\n{screen_text(pilot)}")


def keys_table() -> str:
    """All keys, place by place, as they stand in docs/dashboard.md."""
    parts = []
    for place in keys.PLACES:
        rows = [f"| `{key.shown}` | {key.help} |" for key in keys.KEYS if key.place == place]
        parts.append("\n".join([f"### {place}", "", "| key | |", "|---|---|", *rows]))
    return "\n\n".join(parts)
