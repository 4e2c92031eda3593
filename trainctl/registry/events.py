"""Reads the new part of a run's events.jsonl into the index.

A file is read from the byte where the last reading ended. The engine may replace it by a shorter one, when it resumes
from a checkpoint, and the shorter one may have grown again since: so beside the inode and the offset a cursor keeps
the last bytes that were read, and if they are not there any more the file is read again from its beginning.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from engine import events
from trainctl.registry.plain import bounded, finite, integer, real, text
from trainctl.registry.progress import Progress, metrics

CHUNK = 1 << 22
TAIL = 64


@dataclass
class Cursor:
    """Where reading stands. `seen` holds what is no point: started, device, epochs, epoch, latest, progress, damaged.

    `damaged` is there if lines were passed over that are no events: how many, and the offset of the first.
    """

    inode: int = 0
    offset: int = 0
    tail: bytes = b""
    seen: dict[str, Any] = field(default_factory=dict)


def follow(connection: sqlite3.Connection, run: str, path: Path, cursor: Cursor) -> Cursor:
    """Store what `path` holds behind `cursor`; return the cursor behind it. The caller has begun a transaction."""
    try:
        if not path.is_file():  # a pipe would block, a device never end
            raise FileNotFoundError(path)
        file = path.open("rb")
    except OSError:
        forget(connection, run)
        return Cursor()
    with file:
        inode = os.fstat(file.fileno()).st_ino
        if inode != cursor.inode or not _continues(file, cursor):
            forget(connection, run)
            cursor = Cursor(inode)
        for data, end in _whole_lines(file, cursor.offset):
            start = end - len(data)
            if start > cursor.offset:  # a line too long
                _pass_over(cursor.seen, 1, cursor.offset)
            _store(connection, run, _events(data, start, cursor.seen), cursor.seen)
            cursor.offset, cursor.tail = end, data[-TAIL:]
    return cursor


def forget(connection: sqlite3.Connection, run: str) -> None:
    """Remove all that came from the events of `run`."""
    connection.execute("DELETE FROM points WHERE run = ?", (run,))
    connection.execute("DELETE FROM evals WHERE run = ?", (run,))


def _continues(file: BinaryIO, cursor: Cursor) -> bool:
    file.seek(cursor.offset - len(cursor.tail))
    return file.read(len(cursor.tail)) == cursor.tail


def _whole_lines(file: BinaryIO, offset: int) -> Iterator[tuple[bytes, int]]:
    """Pieces of whole lines from `offset` on, each with the offset behind it. A torn last line is left for later.

    A line longer than CHUNK is no event of ours and is passed over, so that memory stays bounded.
    """
    file.seek(offset)
    rest, skipping = b"", False
    while data := file.read(CHUNK):
        offset += len(data)
        data = rest + data
        if skipping:
            start = data.find(b"\n") + 1
            skipping, data = not start, data[start:] if start else b""
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if end:
            yield data[:end], offset - len(rest)
        if len(rest) > CHUNK:
            rest, skipping = b"", True


def _events(data: bytes, offset: int, seen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of the whole lines `data`, which begin at `offset`; lines that are none are counted in `seen`."""
    end = 0
    for stop, event in events.read(data):
        line = data.rfind(b"\n", 0, stop - 1) + 1
        if line > end:
            _pass_over(seen, data.count(b"\n", end, line), offset + end)
        end = stop
        yield event
    if end < len(data):
        _pass_over(seen, data.count(b"\n", end), offset + end)


def _pass_over(seen: dict[str, Any], lines: int, offset: int) -> None:
    before, first = seen.get("damaged", (0, offset))
    seen["damaged"] = [before + lines, first]


def _store(connection: sqlite3.Connection, run: str, found: Iterator[dict[str, Any]], seen: dict[str, Any]) -> None:
    points: list[tuple[object, ...]] = []
    evals: list[tuple[object, ...]] = []
    progress = Progress(**seen.get("progress", {}))
    latest: dict[str, float] | None = None
    for event in found:
        kind, epoch = event["event"], integer(event.get("epoch"))
        values = metrics(event) if kind in ("step", "epoch") else {}
        progress.fold(event, values)
        if kind in ("step", "epoch"):
            step = integer(event.get("step"))
            if event.get("stage", "train") != "train":  # M alone is trained first: its epochs and steps count anew
                kind = f"{text(event['stage'])}-{kind}"
            elif kind == "epoch" and epoch is not None:
                seen["epoch"], latest = epoch, values
            key, t = epoch if step is None else step, real(event.get("t"))
            if key is not None:
                points.extend((run, kind, name, key, epoch, t, value) for name, value in values.items())
        elif kind == "eval":
            evals.append(_evaluation(run, event))
        elif kind == "start" and "started" not in seen:
            seen["started"], seen["device"] = real(event.get("t")), text(event.get("device"))
            seen["epochs"] = integer(event.get("epochs"))
    if latest is not None:
        seen["latest"] = {name: finite(value) for name, value in latest.items()}
    seen["progress"] = vars(progress)
    connection.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", points)
    connection.executemany("INSERT OR REPLACE INTO evals VALUES (?, ?, ?, ?, ?, ?)", evals)


def _evaluation(run: str, event: dict[str, Any]) -> tuple[object, ...]:
    """A row of evals; evaluated again, a metric of a checkpoint replaces the older number."""
    own = ("event", "metric", "value", "n", "checkpoint")
    settings = {key: bounded(value) for key, value in event.items() if key not in own}
    metric, checkpoint = text(event.get("metric")), text(event.get("checkpoint"))
    value, n = real(event.get("value")), integer(event.get("n"))
    return run, checkpoint, metric, value, n, json.dumps(settings)
