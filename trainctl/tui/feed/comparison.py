"""The comparison, and its export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainctl.errors import MachineError, UsageError
from trainctl.home import Home
from trainctl.registry import select

if TYPE_CHECKING:
    from trainctl.compare.rows import Comparison

EXPORTS = {".md": "markdown", ".tex": "latex"}


def comparison(home: Home, filtered: str, checkpoint: str) -> Comparison:
    """All finished pairs, or the runs that the selector `filtered` means, at the checkpoint `best` or `last`."""
    from trainctl.compare.report import compare

    return compare(home, select.resolve(home, [filtered]) if filtered else None, checkpoint)


def export(compared: Comparison, path: Path, *, replace: bool) -> str:
    """Write the comparison as its file's ending says; what to say of it.

    UsageError for another ending, or if the file stands already and is not to be replaced; MachineError if it cannot
    be written.
    """
    from trainctl.compare.render import render

    form = EXPORTS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path.name or 'the name'} must end in .md (markdown) or .tex (LaTeX)")
    try:
        with open(path, "w" if replace else "x", encoding="utf-8") as file:
            file.write(render(compared, form))
    except FileExistsError:
        raise UsageError(f"{path} stands already; enter once more replaces it") from None
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}") from None
    return f"written: {path.resolve()}"
