"""Run folders of strangers: whatever is in them, they are listed, shown and compared, or left out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import tomli_w

from trainctl.cli import common, ls, show
from trainctl.compare import report
from trainctl.compare.render import render
from trainctl.compare.render.table import table
from trainctl.errors import TrainctlError
from trainctl.home import Home
from trainctl.registry import ingest, price, query, select, selection
from trainctl.registry.details import details
from trainctl.registry.series import Reader, Wanted
from trainctl.registry.window import Table, View

FOLDERS = int(os.environ.get("TRAINCTL_FOLDERS", "200"))
"""Folders; 1000 were looked at with each of several seeds, which TRAINCTL_SEED chooses."""
SEED = int(os.environ.get("TRAINCTL_SEED", "1"))
REAL = Path(__file__).parent / "homes" / "version-1" / "runs"
PAIR = ("r325hnv8", "ptaxm596")
FILES = (
    "run.json", "recipe.toml", "events.jsonl", "exit.json", "heartbeat.json", "launch.json", "labels.json", "env.json",
    "attempts.jsonl", "queue.json", "eval/best-natural.json",
)  # fmt: skip
NAMES = (
    "a\nb", "a\x1b[31mb", "a\u202eb", os.fsdecode(b"a\xffb"), "-rf", "x" * 255, " ", "a b", "'", '"', "%s", "ä", "~",
    ".hidden", "a\\b", "$(x)", "[bold]", "tag:x",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 3, 1e308, float("inf"), float("-inf"), float("nan"), 2**31, 2**63 - 1, 2**63, -(2**63),
    2**64, 10**400, 10**4000, 1e-320, "", "nan", "inf", "x", "x" * 10_000, "\ud800", "\x1b[2J\n\t\0", "é\u202e",
    "../../etc", "[bold]", [], {}, [1, "a", None], {"a": {"b": [1]}}, [[]] * 50,
)  # fmt: skip
BYTES = (
    b"\0" * 4096, b"\n", b"\r\n", b"\xff\xfe", b"[[[", b'"', b"NaN", b"-Infinity", b"1e999", b"9" * 5000,
    b"[" * 5000, b'{"a":' * 5000, b"x" * (1 << 20),
)  # fmt: skip


def noise(content: bytes, pick: random.Random) -> bytes:
    """Some bytes other ones, cut off, put in, or taken out."""
    found = bytearray(content)
    for _ in range(pick.choice((1, 2, 8))):
        at = pick.randrange(len(found) + 1)
        kind = pick.choice(("flip", "cut", "insert", "insert", "remove", "repeat"))
        if kind == "flip":
            found[at : at + 1] = pick.randbytes(1)
        elif kind == "cut":
            del found[at:]
        elif kind == "insert":
            found[at:at] = pick.choice((*BYTES, pick.randbytes(100)))
        elif kind == "remove":
            del found[at : at + pick.choice((1, 5, 100))]
        else:
            found += found[:at]
    return bytes(found)


def another(tree: Any, pick: random.Random) -> Any:
    """Some places of a tree of JSON hold something else, or are gone."""
    places = list(walk(tree))
    if not places or pick.random() < 0.05:
        return value(pick)
    for part, key in pick.choices(places, k=pick.choice((1, 1, 3))):
        if pick.random() < 0.8:
            part[key] = value(pick)
        elif isinstance(part, dict):
            part.pop(key, None)
            part[pick.choice(("", "\ud800", "\x1b[1m", "x" * 500, "a.b", "'", '"'))] = value(pick)
    return tree


def walk(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, each in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield tree, key
        yield from walk(each)


def value(pick: random.Random) -> Any:
    if pick.random() < 0.9:
        return pick.choice(VALUES)
    nested: Any = 1
    for depth in range(pick.choice((5, 60, 300))):
        nested = [nested] if depth % 2 else {"a": nested}
    return nested


def no_file(path: Path, pick: random.Random) -> None:
    """Something else in place of a file."""
    path.unlink()
    kind = pick.choice(("folder", "pipe", "loop", "nowhere", "/dev/zero", "/etc/passwd", "..", "/dev/full"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path.name if kind == "loop" else kind)


def forge(folder: Path, pick: random.Random) -> None:
    """Make something of a real run folder hostile."""
    name = pick.choice(FILES if pick.random() < 0.6 else FILES[:4])
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if not os.path.lexists(path):
        path.write_text('{"tags": ["a"], "note": "n", "archived": false}')
    if not path.is_file() or path.is_symlink():
        return
    content, kind = path.read_bytes(), pick.random()
    if kind < 0.15:
        no_file(path, pick)
    elif kind < 0.4:
        path.write_bytes(noise(content, pick))
    elif name.endswith(".toml"):  # in which not all can be said
        with contextlib.suppress(TypeError, ValueError, AttributeError, RecursionError):
            path.write_text(tomli_w.dumps(another(tomli.loads(content.decode()), pick)))
    else:
        lines = content.splitlines() if name.endswith(".jsonl") else [content]
        for _ in range(pick.choice((1, 4))):
            at = pick.randrange(len(lines))
            with contextlib.suppress(ValueError):
                lines[at] = json.dumps(another(json.loads(lines[at]), pick)).encode()
        path.write_bytes(b"\n".join(lines) + b"\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A real pair among forged folders."""
    pick = random.Random(SEED)
    found = Home(tmp_path_factory.mktemp("hostile"))
    for run in PAIR:
        shutil.copytree(REAL / run, found.runs / run)
    for number in range(FOLDERS):
        name = NAMES[number] if number < len(NAMES) else f"h{number:05d}"
        folder = found.runs / name
        shutil.copytree(pick.choice(sorted(REAL.iterdir())), folder, ignore=shutil.ignore_patterns("*.safe*"))
        for _ in range(pick.choice((1, 1, 2))):
            forge(folder, pick)
    return found


def each_way(home: Home, rows: list[query.RunRow]) -> None:
    """What commands and screens do with runs."""
    screen = common.console()
    common.emit_json([details(home, row) for row in rows])
    for row in rows:
        found = details(home, row)
        parts = [show._pairs({**show._summary(found), **{k: show._value(v) for k, v in found["settings"].items()}})]
        parts += map(show._evaluations, found["evals"].values())
        if row is rows[-1]:  # the drawing takes long
            screen.print(*parts)
        Reader(home).read([Wanted(row.id, "loss", x=x) for x in ("step", "time")])
    ls._print_json(rows)
    ls._print(rows)
    for checkpoint in ("best", "last"):
        compared = report.compare(home, rows, checkpoint)
        common.emit_json(compared.json())
    for part in table(compared, 80):
        screen.print(part)
    for form in ("csv", "markdown", "latex"):
        render(compared, form)


def test_hostile_folders_are_read(home: Home) -> None:
    """All at once; each way of looking at them, by tens, so that a failure says where."""
    began = time.monotonic()
    ingest.refresh(home)
    held = query.hold(home)
    ids = [row.id for row in query.runs(home)]
    assert set(PAIR) <= set(ids) and len(ids) > 0.8 * FOLDERS
    assert all(run.isprintable() for run in ids)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for first in range(0, len(ids), 10):
            rows = query.runs(home, [*PAIR, *ids[first : first + 10]])
            try:
                each_way(home, rows)
            except TrainctlError:
                raise
            except Exception as error:
                raise AssertionError(f"{type(error).__name__} with {ids[first : first + 10]} in {home.path}") from error
    steering = [line for line in out.getvalue().split("\n") if "\x1b[2J" in line or "\0" in line]
    assert not steering, steering[:5]
    for view in (View(sort="natural"), View("natural>3 or optim.lr>0", "-started"), View(group="pair"), View(sort="x")):
        window = Table(home).window(view, 0, 40)
        assert window.total >= len(ids) - FOLDERS // 5
    assert len(select.resolve(home, ["epoch>=0"], archived=True)) == len(ids)
    assert price.past(home) and selection.curves(home, ids)
    (kept,) = report.compare(home, query.runs(home, PAIR)).pairs
    assert kept.baseline.runs and kept.train.runs
    assert held is not None
    held.close()
    assert not list(home.path.glob("index.db.damaged-*"))
    assert time.monotonic() - began < 60 + FOLDERS


def test_they_are_the_same_when_read_again(home: Home) -> None:
    ingest.refresh(home)
    before = repr(query.runs(home))
    ingest.rebuild(home)
    assert repr(query.runs(home)) == before
