"""The text that a run has printed, as a terminal would leave it."""

from __future__ import annotations

import re
from pathlib import Path

from trainctl.cli.common import printable

LOG_BYTES = 1 << 16
COLOR_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SILENT = "It has printed nothing yet."


def read_part(path: Path, offset: int, size: int) -> bytes:
    """At most `size` bytes of a file from `offset` on; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError:
        return b""


def lines(data: bytes) -> list[str]:
    """Lines as a terminal would leave them: what stands before a carriage return was overwritten."""
    text = COLOR_CODES.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n"))
    return [
        printable(line.rstrip("\r").rpartition("\r")[2])
        for line in text.split("\n")[: None if text[-1:] != "\n" else -1]
    ]


def last_lines(path: Path, count: int) -> tuple[str, ...]:
    """The last `count` lines that are not blank."""
    try:
        size = path.stat().st_size
    except OSError:
        return ()
    start = max(0, size - 8192)
    return tuple(line for line in lines(read_part(path, start, 8192))[start > 0 :] if line.strip())[-count:]
