"""What every command shares: the options --home and --json, and how JSON, notes and errors are printed.

Tables and JSON go to stdout, everything else to stderr, so that a pipe only ever carries data.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from trainctl.errors import TrainctlError

if TYPE_CHECKING:
    from rich.console import Console

HomeOption = Annotated[
    str | None,
    typer.Option(
        "--home",
        metavar="DIR",
        show_default=False,
        help="Folder of the runs; else TRAINCTL_HOME, else the user data folder.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN…",
        show_default=False,
        help="An id, its beginning, a name, @last, tag:x, recipe:x, group:x or a filter.",
    ),
]


def emit_json(value: Any, *, line: bool = False) -> None:
    """Print `value` on stdout, indented, or on one `line`. NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(_finite(value), indent=None if line else 2, allow_nan=False), flush=line)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def printable(text: str) -> str:
    """`text` with control characters written out, so that a name from a file cannot steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def note(text: str) -> None:
    """Say something to the person on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def show_error(error: TrainctlError) -> None:
    """`error: message` and `hint: …` on stderr."""
    print(_colored("error:", "1;31", sys.stderr), printable(str(error)), file=sys.stderr)
    if error.hint:
        print(_colored("hint:", "1;36", sys.stderr), printable(error.hint), file=sys.stderr)


def _colored(text: str, style: str, stream: IO[str]) -> str:
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\x1b[{style}m{text}\x1b[0m"


def console(*, stderr: bool = False) -> Console:
    """A rich console that never reads markup out of names; imported here because not every command needs rich."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)
