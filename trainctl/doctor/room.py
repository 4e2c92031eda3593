"""Will what is queued fit on the disk? Checkpoints are most of a run, and those of one network weigh the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

from engine.rundir import FINAL, RunDir, content
from trainctl.doctor.finding import OK, WARNING, Finding, counted, lines, size
from trainctl.doctor.leftovers import weight
from trainctl.doctor.view import View, recipe, section

MODELS = 3  # finished runs of one kind that are weighed
Kind = tuple[str, ...]


def check(view: View) -> Iterator[Finding]:
    """What the queued runs and those at work will still write, against what is free."""
    unfinished = list(view.unfinished)
    if not unfinished:
        return
    free = shutil.disk_usage(view.home.path).free
    weights = _weights(view, {kind(view.recipes[run.id]) for run in unfinished})
    need, unknown = 0, list[RunDir]()
    for run in unfinished:
        whole = weights.get(kind(view.recipes[run.id]))
        if whole is None:
            unknown.append(run)
        else:
            need += max(0, whole - weight(run.path))
    told = len(unfinished) - len(unknown)
    detail = f"{counted(told, 'run')} will write about {size(need)}, {size(free)} are free" if told else "unknown"
    if unknown:
        how = "it needs" if len(unknown) == 1 else "they need"
        detail += f"\n{counted(len(unknown), 'run')} of a kind that never finished here: what {how} is unknown"
    if need > free:
        largest = _largest(view)
        each = [f"{view.name(run)} has ended and holds {size(bytes)}" for run, bytes in largest]
        names = " ".join(run.id for run, _ in largest)
        hint = f"a larger disk, or without them: trainctl rm {names}" if largest else "give the home a larger disk"
        yield Finding("room for the queue", WARNING, lines(detail, each), hint)
    else:
        yield Finding("room for the queue", OK, detail)


def kind(table: dict[str, Any]) -> Kind:
    """What decides the weight of a run: its networks, its data set, and what it stores beside weights."""
    model, standard, topology = (section(table, name) for name in ("model", "standard", "topology"))
    given = (
        *(model.get(key) for key in ("arch", "width")), section(table, "data").get("dataset"),
        section(table, "method").get("name"), sorted(section(table, "terms")), topology.get("enabled"),
        *((standard.get(key) for key in ("arch", "width")) if topology.get("enabled") else ()),
    )  # fmt: skip
    return tuple(map(str, given))


def _weights(view: View, kinds: set[Kind]) -> dict[Kind, int]:
    """Bytes of the heaviest of a few finished runs of each kind; a kind that never finished has none."""
    found: dict[Kind, list[int]] = {}
    wanted = [[f'"{name}"' for name in (each[0], each[2])] for each in kinds]
    for run, status in view.runs.items():
        if len(found) == len(kinds) and all(len(bytes) >= MODELS for bytes in found.values()):
            break
        if status != "done" or not _may_be(run, wanted):
            continue
        of = kind(recipe(run))
        if of in kinds and len(found.get(of, [])) < MODELS:
            found.setdefault(of, []).append(weight(run.path))
    return {of: max(bytes) for of, bytes in found.items()}


def _may_be(run: RunDir, wanted: list[list[str]]) -> bool:
    """A glance at the text: to parse the recipes of thousands of runs takes too long."""
    try:
        text = content(run.recipe).decode()
    except (OSError, ValueError):
        return False
    return any(all(name in text for name in names) for names in wanted)


def _largest(view: View, most: int = 5) -> list[tuple[RunDir, int]]:
    """The runs that ended and weigh most."""
    ended = [run for run, status in view.runs.items() if status in FINAL and not run.path.is_symlink()]
    return sorted(((run, weight(run.path)) for run in ended), key=lambda pair: -pair[1])[:most]
