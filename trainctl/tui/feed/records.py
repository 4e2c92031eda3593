"""What is on record about a run: its recipe, its results and checkpoints, the environment it ran in."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.rundir import RunDir, regular
from trainctl.cli.common import printable
from trainctl.home import Home
from trainctl.registry import query, threats
from trainctl.registry.plain import integer, real, text
from trainctl.registry.query import RunRow

LARGEST = 1 << 18  # bytes of a text that are shown
HEADER = 1 << 24  # bytes of a checkpoint's header that are read
ATTEMPTS = 50  # the last so many are listed


@dataclass(frozen=True)
class Record:
    """Facts as (name, value), and a text as it stands in its file."""

    facts: tuple[tuple[str, str], ...]
    text: str = ""


@dataclass(frozen=True)
class Measured:
    """A number about a checkpoint, and the threat model that it was measured under."""

    checkpoint: str
    metric: str
    value: float | None
    threat: str


@dataclass(frozen=True)
class Checkpoint:
    """A file in checkpoints/: its bytes, what it holds, by which rule it was kept, and its age in seconds."""

    name: str
    size: int
    at: str
    rule: str
    age: float


@dataclass(frozen=True)
class Attempt:
    """A start of the run: unix seconds, where, from which step it went on (None: from the beginning), how it ended."""

    t: float
    process: str
    resumed_from: int | None
    ended: str


@dataclass(frozen=True)
class Results:
    """Every evaluation, checkpoint and attempt."""

    measured: tuple[Measured, ...]
    checkpoints: tuple[Checkpoint, ...]
    attempts: tuple[Attempt, ...]


def recipe(home: Home, row: RunRow) -> Record:
    """recipe.toml, under what names and explains the run."""
    folder = home.run(row.id)
    facts = (
        ("title", row.title or row.recipe), ("folder", str(folder.path)),
        ("command", text(folder.json("run.json").get("command"))), ("tags", ", ".join(row.tags) or "–"),
        ("note", row.note or "–"), ("our reading", row.our_reading),
    )  # fmt: skip
    return Record(_said(facts), printable(_start(folder.recipe)))


def environment(home: Home, row: RunRow) -> Record:
    """env.json: the machine and versions, and below them the patch of the working tree, if there was one."""
    found = home.run(row.id).json("env.json")
    git = found.pop("git", None)
    packages = found.pop("packages", None)
    facts = [(key.replace("_", " "), _word(value)) for key, value in found.items()]
    patch = ""
    if isinstance(git, dict):
        facts.append(("commit", _word(git.get("commit"))))
        patch = printable(str(git.get("patch") or "")[:LARGEST])
    if isinstance(packages, dict):
        facts.append(("packages", "  ".join(f"{name} {version}" for name, version in packages.items())))
    return Record(_said(facts), patch)


def results(home: Home, row: RunRow) -> Results:
    """Every evaluation by checkpoint, every checkpoint, every attempt."""
    folder = home.run(row.id)
    measured = tuple(
        Measured(
            found.checkpoint, found.metric, found.value, printable(threats.words({**found.settings, "n": found.n}))
        )
        for found in query.evals(home, row.id)
    )
    return Results(measured, _checkpoints(folder), _attempts(folder))


def _checkpoints(folder: RunDir) -> tuple[Checkpoint, ...]:
    found = []
    for path in sorted(folder.checkpoints.glob("*.safetensors")):
        try:
            stat = path.stat()
            state = _state(path)
        except (OSError, ValueError, RecursionError):
            continue
        at = state.get("progress")
        rule = printable(text(state.get("rule")))
        found.append(Checkpoint(printable(path.stem), stat.st_size, _position(at), rule, time.time() - stat.st_mtime))
    return tuple(found)


def _state(path: Path) -> dict[str, Any]:
    """What stands in a checkpoint's header beside the tensors: a safetensors file begins with its length and it."""
    with open(path, "rb", opener=regular) as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length)) if length <= HEADER else {}
    state = json.loads(header.get("__metadata__", {}).get("state", "{}"))
    return state if isinstance(state, dict) else {}


def _position(progress: Any) -> str:
    """`epoch 3` if it was written at the end of one, else `epoch 4, batch 20`; M's epochs as `pretrain epoch 2`."""
    if not isinstance(progress, dict):
        return ""
    epoch, batch = integer(progress.get("epoch")) or 0, integer(progress.get("batch")) or 0
    stage = "pretrain " if progress.get("stage") == "pretrain" else ""
    return f"{stage}epoch {epoch}, batch {batch}" if batch else f"{stage}epoch {max(0, epoch - 1)}"


def _attempts(folder: RunDir) -> tuple[Attempt, ...]:
    """Each start, beside how it ended: with the exit that was written before the next start."""
    starts = [line for line in map(_object, _start(folder.attempts).splitlines()) if line][-ATTEMPTS:]
    put_away = folder.path / "attempts"
    exits = [_object(_start(path)) for path in (*put_away.glob("*-exit.json"), *put_away.glob("*/exit.json"))]
    exits.append(folder.json("exit.json"))
    found = []
    for number, start in enumerate(starts):
        began = real(start.get("t")) or 0.0
        after = real(starts[number + 1].get("t")) or math.inf if number + 1 < len(starts) else math.inf
        end: dict[str, Any] = next((each for each in exits if began <= (real(each.get("t")) or -1.0) < after), {})
        said = " · ".join(filter(None, (text(end.get("status")), text(end.get("reason")))))
        process = f"{text(start.get('host'))} {integer(start.get('pid')) or ''}".strip()
        found.append(Attempt(began, process, integer(start.get("resumed_from")), said))
    return tuple(found)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _start(path: Path) -> str:
    """The first part of a file; "" if it cannot be read."""
    try:
        with open(path, "rb", opener=regular) as file:
            return file.read(LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _said(facts: Any) -> tuple[tuple[str, str], ...]:
    return tuple((printable(name), printable(value)) for name, value in facts if value)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
