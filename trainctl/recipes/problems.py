"""Mistakes in recipes, each with the place it was made. All of them are gathered before any is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainctl.errors import UsageError

SHOWN = 50
"""Mistakes that a text names; nobody reads more of them."""
LONGEST = 500
"""Characters of a text from a recipe that a message repeats."""


def shown(text: str) -> str:
    """`text`, or its beginning, as one line that cannot steer a terminal."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return short if short.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


@dataclass(frozen=True)
class Origin:
    """Where a value was set: a file and line, or an option of the command line (then there is no line)."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Located:
    """One mistake. `file` may also be an option such as "--set model.arhc=x", and `key` is empty if there is none."""

    file: str
    line: int | None
    key: str
    message: str
    hint: str = ""
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part not in (None, ""))
        text = ": ".join(shown(part) for part in (place, self.key, self.message) if part)
        return f"{text} ({self.hint})" if self.hint else text


class RecipeProblems(UsageError):
    """Every mistake in the recipes that were asked for; as text one a line, up to SHOWN. Nothing was started."""

    def __init__(self, problems: Iterable[Located]) -> None:
        self.problems = list(dict.fromkeys(problems))
        lines, more = [*map(str, self.problems[:SHOWN])], len(self.problems) - SHOWN
        super().__init__("\n".join([*lines, f"and {more} more mistakes"] if more > 0 else lines))
