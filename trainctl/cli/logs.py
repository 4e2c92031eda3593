"""`trainctl logs`: what the process of a run printed."""

from __future__ import annotations

import os
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import typer

from engine.rundir import FINAL, regular
from trainctl.cli.common import HomeOption, note, printable
from trainctl.errors import refused
from trainctl.home import find_home

CHUNK = 1 << 16
LOOK = 0.2


def logs(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An id, its beginning, a name or @last.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Only the last so many; 0: all.")] = 0,
    home: HomeOption = None,
) -> None:
    """Print what a run's process printed."""
    from trainctl.registry.select import one

    place = find_home(home)
    folder = place.run(one(place, run).id)
    offset = _beginning(folder.log, lines)
    while True:
        ended = folder.status() in FINAL
        offset = _copy(folder.log, offset)
        if ended or not follow:
            break
        time.sleep(LOOK)
    reason = folder.json("exit.json").get("reason")
    if reason:
        note(f"{folder.status()}: {reason}")
    elif offset == 0:
        note(f"{folder.status()}: nothing was printed")


def _opened(path: Path) -> BinaryIO:
    """The log, empty if there is none yet; MachineError if it cannot be read."""
    try:
        return open(path, "rb", opener=regular)
    except FileNotFoundError:
        return BytesIO()
    except OSError as error:
        raise refused(f"cannot read {path}", error) from None


def _beginning(path: Path, lines: int) -> int:
    """Offset of the last `lines` lines, found from the end, for logs grow large."""
    if not lines:
        return 0
    with _opened(path) as file:
        position = file.seek(0, os.SEEK_END)
        if position:
            file.seek(position - 1)
            lines += file.read(1) == b"\n"  # the last line's own end does not count
        while position:
            size = min(CHUNK, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            cut = len(block)
            while (cut := block.rfind(b"\n", 0, cut)) >= 0:
                lines -= 1
                if lines == 0:
                    return position + cut + 1
    return 0


def _copy(path: Path, offset: int) -> int:
    """Copy the file from `offset` on to stdout; returns the new offset."""
    with _opened(path) as file:
        file.seek(offset)
        while block := file.read(CHUNK):
            _write(block, sys.stdout)
            offset += len(block)
    sys.stdout.flush()
    return offset


def _write(block: bytes, stream: TextIO) -> None:
    """Bytes as they are into a pipe; on a terminal without what would steer it."""
    if stream.isatty():
        stream.write(printable(block.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")))
    else:
        stream.flush()
        stream.buffer.write(block)
