"""Which line of a TOML text sets which key.

tomli gives values without places, and a mistake without a place is half a message. So this reads the text a
second time, only for its keys: tomli has already accepted it, which leaves very little that can go wrong.
"""

from __future__ import annotations

import re

import tomli

Key = tuple[str, ...]
MAX_DEPTH = 16
"""Of a key in a recipe, which needs three. Deeper ones are cut, so that thousands of them cost little."""
_CUT = MAX_DEPTH + 1

# Multi-line strings come first, or their opening quotes would be read as an empty string. They may end in up
# to two quotes of their own content.
_TOKEN = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?"""(?:"{0,2})'
    r"|'''[\s\S]*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{}=,.\n]"
    r"|[^\s\[\]{}=,.\n\#\"']+"
)


class _Scanner:
    """Walks over the tokens; `path` is the key whose value is being read, `prefix` the table its keys go into."""

    def __init__(self) -> None:
        self.lines: dict[Key, int] = {}
        self.table: Key = ()  # of the last header
        self.prefix: Key = ()
        self.path: Key = ()
        self.parts: list[str] = []  # of the key being read
        self.reads_key = True
        self.in_header = False
        self.brackets: list[tuple[str, Key, Key]] = []

    def token(self, token: str, line: int) -> None:
        if token[0] == "#":
            return
        if token == "\n":
            self._newline()
        elif self.in_header:
            self._header(token, line)
        elif self.reads_key:
            self._key(token, line)
        else:
            self._value(token)

    def _newline(self) -> None:
        if not self.brackets:
            self.prefix, self.parts = self.table, []
            self.reads_key, self.in_header = True, False

    def _header(self, token: str, line: int) -> None:
        if token == "]" and self.parts:  # the second bracket of [[x]] finds no parts
            self.table = tuple(self.parts[:_CUT])
            self._record((), self.parts, line)
            self.parts = []
        elif token not in ("[", "]", "."):
            self.parts.append(_name(token))

    def _key(self, token: str, line: int) -> None:
        if token == "=":
            self.path = (*self.prefix, *self.parts)[:_CUT]
            self._record(self.prefix, self.parts, line)
            self.reads_key = False
        elif token == "[":
            self.in_header = True
        elif token == "}":  # an empty inline table, or one with a comma at its end
            self._close()
        elif token not in (".", ","):
            self.parts.append(_name(token))

    def _value(self, token: str) -> None:
        if token in ("[", "{"):
            self.brackets.append((token, self.prefix, self.path))
            if token == "{":
                self.prefix, self.parts, self.reads_key = self.path, [], True
        elif token in ("]", "}"):
            self._close()
        elif token == "," and self.brackets[-1][0] == "{":
            self.parts, self.reads_key = [], True

    def _close(self) -> None:
        _, self.prefix, self.path = self.brackets.pop()
        self.reads_key = False

    def _record(self, prefix: Key, parts: list[str], line: int) -> None:
        for end in range(1, min(len(parts), _CUT - len(prefix)) + 1):
            self.lines.setdefault((*prefix, *parts[:end]), line)


def key_lines(text: str) -> dict[Key, int]:
    """The line, counted from 1, where each key or table of `text` is first named.

    `text` must be TOML that tomli accepts. Keys inside arrays of tables are counted as keys of the array.
    """
    scanner = _Scanner()
    line, position = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        scanner.token(match.group(), line)
    return scanner.lines


def _name(token: str) -> str:
    """A bare or quoted key as the string it stands for."""
    if token[0] == '"' and "\\" in token:
        return next(iter(tomli.loads(f"{token} = 0")))
    return token[1:-1] if token[0] in "\"'" else token
