"""What people say of a run, in its labels.json: tags, a note, and whether it is archived."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.rundir import RunDir
from trainctl.errors import UsageError, refused

LONGEST = 10_000


@dataclass(frozen=True)
class Labels:
    """Tags in the order in which they were put on, the note ("" for none), and whether lists leave the run out."""

    tags: tuple[str, ...]
    note: str
    archived: bool


def read(run: RunDir) -> Labels:
    """The labels of a run; the tags it was started with, until they are changed."""
    return _labels(run, run.json("labels.json"))


def change(
    run: RunDir,
    *,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
    note: str | None = None,
    archived: bool | None = None,
) -> Labels:
    """Change what is given and keep the rest, also what another process changes at the same moment; the labels now.

    UsageError for a tag or a note that cannot be one, or if the run has gone; MachineError if it cannot be written.
    """
    add, remove = [check_tag(tag) for tag in add], set(remove)
    if note is not None:
        check_note(note)
    with _alone(run):
        stored = run.json("labels.json")
        before = _labels(run, stored)
        tags = [tag for tag in before.tags if tag not in remove and tag not in add] + add
        now = Labels(
            tuple(dict.fromkeys(tags)),
            before.note if note is None else note,
            before.archived if archived is None else archived,
        )
        if now != before:
            run.write_json("labels.json", {**stored, **vars(now), "tags": list(now.tags)})
    return now


def check_tag(text: str) -> str:
    """`text` if it can be a tag, else UsageError."""
    if not text or len(text) > 60 or not text.isprintable() or any(c.isspace() or c == "," for c in text):
        raise UsageError(f"{text!r} cannot be a tag", "printable characters without spaces and commas, at most 60")
    return text


def check_note(text: str) -> str:
    """`text` if it can be a note, else UsageError."""
    if len(text) > LONGEST:
        raise UsageError(f"the note has {len(text)} characters, more than {LONGEST}")
    return text


def _labels(run: RunDir, stored: dict[str, Any]) -> Labels:
    tags = stored.get("tags", run.json("run.json").get("tags"))
    note = stored.get("note")
    return Labels(
        tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        note if isinstance(note, str) else "",
        stored.get("archived") is True,
    )


@contextmanager
def _alone(run: RunDir) -> Iterator[None]:
    """Hold a lock on the folder itself: the one on stdout.log belongs to the engine as long as it works."""
    if run.path.is_symlink():
        raise UsageError(f"{run.path} is a link, and nothing is written through it")
    try:
        descriptor = os.open(run.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise UsageError(f"run {run.id} has gone") from None
    except OSError as error:
        raise refused(f"cannot write the labels of {run.path}", error) from None
