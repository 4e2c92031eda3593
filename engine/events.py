"""The vocabulary of events.jsonl: what an engine says while it runs. Written here, read everywhere.

One JSON object a line, one write() a line, so that readers never see half a line followed by another's.
Every line has `t` (unix seconds) and `event`. All accuracies are in percent.

    start       the run begins: method, data set, device, threads, precision, epochs, steps_per_epoch, parameters
    stage       what it does now: pretrain, train, evaluate; or timing
    step        step, epoch, lr, loss, loss_robust, loss_<part>…, loss_topology, loss_standard, images_per_second
    epoch       the same as means over the epoch, train_natural, train_adversarial, seconds,
                and what `best` is chosen by: validation_natural, validation_pgd10 (or test_… if chosen on the
                test set), which took selection_seconds more
    checkpoint  checkpoint (best or last), epoch, step, rule, file, and of best the value that chose it
    eval        metric, value, n, split, checkpoint, epoch, rule, seconds, and the threat model:
                attack, norm, eps, step_size, steps, start, implementation, version, seed
    timing      of a run that only measures time: setting, title, seconds_per_step, steps_per_epoch, rounds, …
    warning     message
    end         status, reason, hint

`loss` is what M' minimises: loss_robust + loss_topology + loss_<term> of each term, and loss_robust is the sum of the
method's own parts. loss_topology is lambda(t) times L_TP; the bare L_TP is l_tp. loss_standard is M's cross-entropy.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

KINDS = ("start", "stage", "step", "epoch", "eval", "timing", "checkpoint", "warning", "end")

TIMES = ("t", "seconds", "selection_seconds", "images_per_second")
"""What differs between two runs that are alike."""

# Metrics of a finished run, in the order of the tables, and whether more is better.
METRICS: dict[str, bool] = {
    "natural": True, "pgd10": True, "pgd20": True, "cw20": True, "aa": True,
    "topo_natural": True, "topo_robust": True, "l_tp": False,
}  # fmt: skip


def encode(event: str, t: float, fields: dict[str, Any]) -> bytes:
    """One line. NaN and infinity, which JSON lacks, are written as the strings "nan", "inf", "-inf"."""
    return (
        json.dumps({"t": t, "event": event, **{k: _plain(v) for k, v in fields.items()}}, allow_nan=False) + "\n"
    ).encode()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def number(value: Any) -> float | None:
    """The float behind a metric's value as `encode` wrote it, or None if it is no number."""
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


class Lines:
    """A file to which lines are appended, each by one write() on a descriptor opened with O_APPEND.

    Where a process was killed or the disk was full in the middle of a line, the next one begins on a line of its own.
    An OSError names the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    def append(self, line: bytes) -> None:
        """Append `line`, which ends in a newline."""
        rest = b"\n" + line if self._torn else line
        with self._named():
            while rest:  # a full disk takes a part first, and says what is wrong at the next try
                written = os.write(self._descriptor, rest)
                self._torn = rest[written - 1 : written] != b"\n"
                rest = rest[written:]

    def position(self) -> int:
        """Bytes in the file so far, made durable first: a checkpoint stores it, and resume cuts the log there."""
        with self._named():
            os.fsync(self._descriptor)
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = str(self._path)
            raise


class EventLog(Lines):
    """Appends events to a file."""

    def __init__(self, path: Path, echo: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        """`echo` is told of each event once it is written."""
        super().__init__(path)
        self._echo = echo

    def write(self, event: str, **fields: Any) -> None:
        """Append one event of `KINDS`; OSError (disk full, …) is the caller's to report."""
        self.append(encode(event, time.time(), fields))
        if self._echo is not None:
            with suppress(OSError):  # stdout.log is for people, and must not end the run
                self._echo(event, fields)


def read(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Events in `data` as (offset behind the line, event). A torn last line is left; a damaged one is skipped."""
    start = 0
    while (stop := data.find(b"\n", start)) >= 0:
        line, start = data[start:stop], stop + 1
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield start, event


def of_kind(lines: Iterable[bytes], kind: str) -> Iterator[dict[str, Any]]:
    """The events `kind` among `lines`, as of an open events.jsonl: few among many steps, which are not parsed."""
    word = f'"{kind}"'.encode()
    return (event for _, event in read(b"".join(line for line in lines if word in line)) if event["event"] == kind)
