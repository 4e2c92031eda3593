"""Mistakes in recipes, each with the place it was made. All of them are gathered before any is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainctl.errors import UsageError


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
        text = ": ".join(part for part in (place, self.key, self.message) if part)
        return f"{text} ({self.hint})" if self.hint else text


class RecipeProblems(UsageError):
    """Every mistake in the recipes that were asked for; one a line as text. Nothing was started."""

    def __init__(self, problems: Iterable[Located]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))
