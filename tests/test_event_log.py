"""How events.jsonl and the small files of a run folder are written: by processes that are killed, on full disks."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Any

import pytest

from engine import events
from engine.events import EventLog
from engine.rundir import replace


def names(path: Path) -> list[str]:
    return [event["event"] for _, event in events.read(path.read_bytes())]


def test_behind_a_torn_line_the_next_event_has_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.write("start", method="trades")
    first = path.stat().st_size
    log.write("step", loss=1.0)
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut] + bytes(3) * (cut % 2))  # a file system may also leave zeros behind
        EventLog(path).write("end", status="done")
        left = path.read_bytes()
        whole = (cut >= first) + (cut >= len(data))
        # Whole but for its newline, a line is an event.
        whole += cut % 2 == 0 and cut in (first - 1, len(data) - 1)
        assert names(path) == [*["start", "step"][:whole], "end"], cut
        assert left.count(b"\n\n") == 0 and left.startswith(data[:cut])


def test_an_event_that_fits_in_part_tears_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.write("start")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 1, 20):
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
        try:
            with pytest.raises(OSError, match="File too large") as refused:
                log.write("step", loss=1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert refused.value.filename == str(path)
        log.write("epoch")
    assert names(path) == ["start", "epoch", "epoch", "epoch"]
    assert path.read_bytes().count(b"\n\n") == 0


def test_printing_an_event_must_not_end_the_run(tmp_path: Path) -> None:
    def full(event: str, fields: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    EventLog(tmp_path / "events.jsonl", full).write("start")
    assert names(tmp_path / "events.jsonl") == ["start"]


def test_a_replacement_that_fails_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "exit.json"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            replace(path, "much more than fits")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (refused.value.filename, path.read_text(), list(tmp_path.iterdir())) == (str(path), "old", [path])
