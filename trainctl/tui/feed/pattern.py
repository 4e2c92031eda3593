"""What is looked for in a log: text in any case, or a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from trainctl.errors import UsageError


class Pattern:
    """Text, or /a regular expression/ in the syntax of RE2. UsageError if that cannot be read.

    Whatever the expression, RE2 takes time in proportion to what it looks through, and little memory. `re` may take
    years, in which nothing else can be done, not even drawing the screen.
    """

    def __init__(self, typed: str) -> None:
        self.typed = typed
        self.regular = len(typed) > 2 and typed[0] == typed[-1] == "/"
        self._find: Callable[[str], Iterator[Any]]
        if not self.regular:
            self._find = re.compile(re.escape(typed), re.IGNORECASE).finditer
            return
        import re2

        options = re2.Options()
        options.case_sensitive = options.log_errors = False
        try:
            self._find = re2.compile(typed[1:-1], options).finditer
        except (re2.error, UnicodeEncodeError) as error:
            (reason, *_) = error.args
            raise UsageError(
                f"{typed} cannot be read: {reason.decode(errors='replace') if isinstance(reason, bytes) else reason}",
                "without the slashes it is looked for as it stands",
            ) from None

    def matches(self, line: str) -> bool:
        """Whether it is in a line."""
        return next(self._find(line), None) is not None

    def spans(self, line: str) -> list[tuple[int, int]]:
        """First and last character of each match in a line."""
        return [match.span() for match in self._find(line)]
