"""What is looked for in a log: text, or a regular expression, which can take for ever and must not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trainctl.errors import UsageError

SEARCHED = 1.0  # seconds that a regular expression may take for some lines
DRAWN = 0.02  # and for the marks in one line on the screen


class Pattern:
    """Text in any case, or /a regular expression/. UsageError if that cannot be read."""

    def __init__(self, typed: str) -> None:
        self.typed = typed
        self.regular = len(typed) > 2 and typed[0] == typed[-1] == "/"
        self._find: Callable[..., Iterator[Any]]
        if not self.regular:
            self._find = re.compile(re.escape(typed), re.IGNORECASE).finditer
            return
        import regex  # unlike `re` it can be told when to stop, and lets the screen draw meanwhile

        try:
            self._find = regex.compile(typed[1:-1], regex.IGNORECASE).finditer
        except (regex.error, OverflowError, RecursionError) as error:
            raise UsageError(
                f"{typed} cannot be read: {error}", "without the slashes it is looked for as it stands"
            ) from None

    def matching(self, lines: Iterable[str]) -> list[int]:
        """The places of the lines that match; UsageError if that takes longer than SEARCHED."""
        until = time.monotonic() + SEARCHED
        try:
            return [at for at, line in enumerate(lines) if next(self._found(line, until - time.monotonic()), None)]
        except TimeoutError:
            raise UsageError(
                f"{self.typed} takes too long: nested repetitions try every way to match",
                "without the slashes it is looked for as it stands",
            ) from None

    def spans(self, line: str) -> list[tuple[int, int]]:
        """First and last character of each match in a line; none if that takes longer than DRAWN."""
        try:
            return [match.span() for match in self._found(line, DRAWN)]
        except TimeoutError:
            return []

    def _found(self, line: str, seconds: float) -> Iterator[Any]:
        """The matches in a line; TimeoutError if `seconds` are over."""
        if not self.regular:
            return self._find(line)
        if seconds <= 0:
            raise TimeoutError
        return self._find(line, timeout=seconds, concurrent=True)
