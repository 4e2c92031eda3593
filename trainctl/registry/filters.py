"""The filter language of a RUN: comparisons joined by and, or, not and parentheses.

    natural>80 and method=trades            fields are the keys of `ls --json`, metrics,
    optim.lr < 0.1 or not (topology = on)   and every dotted key of a recipe
    note ~ "lr too high"                    ~ is "contains"; values with blanks are quoted
    created >= 2026-03-01                   dates for created, started, finished

`not` binds strongest, then `and`, then `or`. A run that lacks the field (or has NaN there) fails every comparison.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.events import METRICS
from engine.rundir import STATUSES
from trainctl.errors import UsageError
from trainctl.registry.query import RunRow

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<operator>!=|<=|>=|==|=|<|>|~)"""
    r"""|(?P<bracket>[()])|(?P<word>[^\s()=<>~!"']+))"""
)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip
_OPERATORS = ("=", "!=", "<", ">", "<=", ">=", "~")
_WORDS = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
_TIMES = ("created", "started", "finished")
_TABLES = ("metrics", "threats")  # of a run, which no value can be compared with
_DEEPEST = 50


@dataclass(frozen=True)
class Fields:
    """What a filter can ask of one run: keys of `ls --json` and metrics, and the recipe's dotted keys."""

    own: dict[str, Any]
    settings: dict[str, Any]

    def get(self, name: str) -> Any:
        """The value, or None."""
        return self.settings.get(name) if "." in name else self.own.get(name)


def asked(run: Mapping[str, Any], settings: dict[str, Any]) -> Fields:
    """What a filter can ask of a run, given by the fields of its RunRow, and of its recipe with dotted keys."""
    own = {**run["metrics"], **run}
    for name in _TABLES:
        del own[name]
    return Fields(own, settings)


@dataclass(frozen=True)
class Condition:
    """A filter that has been read: `holds` decides for one run; `fields` maps each field to its position.

    `equal` are the fields that are to be equal to a word, with that word.
    """

    text: str
    fields: dict[str, int]
    equal: tuple[tuple[str, str], ...]
    holds: Callable[[Fields], bool]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def looks_like(selector: str) -> bool:
    """True if `selector` can only be meant as a filter, since it compares something."""
    return bool(re.search(r"[=<>~!]", selector))


def parse(text: str) -> Condition:
    """Read a filter; UsageError with a caret below the place where it stops making sense."""
    parser = _Parser(text)
    holds = parser.either(0)
    if parser.token.kind != "end":
        raise parser.error("expected `and`, `or` or the end", parser.token)
    return Condition(text, parser.fields, tuple(parser.equal), holds)


def check_fields(condition: Condition, tables: Iterable[Fields]) -> None:
    """UsageError if a field of the filter is no key, no metric, and in no recipe."""
    known = {name for name in RunRow.__dataclass_fields__ if name not in _TABLES} | set(METRICS)
    for table in tables:
        known.update(table.own, table.settings)
    unknown = [name for name in condition.fields if name not in known]
    if any("." in name for name in unknown):  # pydantic is slow to import: only on the way to an error
        from engine.recipe import keys

        known.update(keys())
    for name in unknown:
        if name not in known:
            among = sorted(key for key in known if ("." in key) == ("." in name))
            close = difflib.get_close_matches(name, among, n=2, cutoff=0.5)
            hint = "did you mean " + " or ".join(close) + "?" if close else "known fields: " + ", ".join(among)
            raise UsageError(_pointed(f"unknown field {name!r}", condition.text, condition.fields[name]), hint)


def unknown_word(condition: Condition, tables: Iterable[Fields]) -> str:
    """Of a filter that no run fits: a word that no run has in its field, and the nearest that some have; or ""."""
    tables = list(tables)
    for name, wanted in condition.equal:
        values = {value for table in tables for value in _several(table.get(name)) if isinstance(value, str) and value}
        found = {value.lower(): value for value in sorted(values)}
        if found and wanted.lower() not in found:
            close = [found[near] for near in difflib.get_close_matches(wanted.lower(), found, n=2, cutoff=0.5)]
            known = ", ".join(list(found.values())[:8]) + " …" * (len(found) > 8)
            return f"no run has {name} = {wanted}; " + (
                f"did you mean {' or '.join(close)}?" if close else f"some have {known}"
            )
    return ""


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _pointed(message: str, text: str, at: int) -> str:
    return f"{message}\n  {text}\n  {' ' * at}^"


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: dict[str, int] = {}
        self.equal: list[tuple[str, str]] = []
        self._tokens = list(self._scan())
        self._next = 0

    @property
    def token(self) -> _Token:
        return self._tokens[self._next]

    def error(self, message: str, token: _Token) -> UsageError:
        found = f", found {token.text!r}" if token.text else ""
        return UsageError(
            _pointed(f"filter: {message}{found}", self.text, token.at),
            "a filter looks like: natural>80 and method=trades",
        )

    def either(self, depth: int) -> Callable[[Fields], bool]:
        parts = [self._both(depth)]
        while self._word("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else lambda run: any(part(run) for part in parts)

    def _both(self, depth: int) -> Callable[[Fields], bool]:
        parts = [self._term(depth)]
        while self._word("and"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else lambda run: all(part(run) for part in parts)

    def _term(self, depth: int) -> Callable[[Fields], bool]:
        if depth > _DEEPEST:
            raise self.error("nested too deeply", self.token)
        if self._word("not"):
            inner = self._term(depth + 1)
            return lambda run: not inner(run)
        if self.token.text == "(" and self.token.kind == "bracket":
            opening = self._take()
            inner = self.either(depth + 1)
            if self.token.text != ")":
                raise self.error("this parenthesis is not closed", opening)
            self._take()
            return inner
        return self._comparison()

    def _comparison(self) -> Callable[[Fields], bool]:
        field = self._take()
        if field.kind != "word":
            raise self.error("expected a field", field)
        sign = self._take()
        if sign.kind != "operator":
            raise self.error(f"expected one of {' '.join(_OPERATORS)} after {field.text!r}", sign)
        value = self._take()
        if value.kind not in ("word", "quoted"):
            raise self.error(f"expected a value after {sign.text!r}", value)
        self.fields.setdefault(field.text, field.at)
        name, symbol = field.text, sign.text.replace("==", "=")
        wanted = value.text
        if symbol == "=":
            self.equal.append((name, wanted))
        if name in _TIMES:
            moment = _moment(wanted)
            if moment is None:
                raise self.error("expected a date such as 2026-03-01 or 2026-03-01T12:30", value)
            wanted = repr(moment)
        if symbol in _ORDER and _number(wanted) is None:
            raise self.error(f"{symbol} compares numbers; expected one", value)
        if name == "status" and symbol in ("=", "!=") and wanted.lower() not in STATUSES:
            raise UsageError(
                _pointed(f"no run can be {wanted!r}", self.text, value.at), f"status is one of: {', '.join(STATUSES)}"
            )
        return lambda run: _compare(run.get(name), symbol, wanted)

    def _word(self, word: str) -> bool:
        if self.token.kind == "word" and self.token.text.lower() == word:
            self._next += 1
            return True
        return False

    def _take(self) -> _Token:
        token = self.token
        if token.kind != "end":
            self._next += 1
        return token

    def _scan(self) -> Iterable[_Token]:
        at, end = 0, len(self.text.rstrip())
        while at < end:
            match = _TOKEN.match(self.text, at)
            if match is None or match.lastgroup is None:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                bad = _Token("bad", self.text[at], at)
                raise self.error("this quote is not closed" if bad.text in "\"'" else "unexpected character", bad)
            content = match[match.lastgroup]
            if match.lastgroup == "quoted":
                content = re.sub(r"\\(.)", r"\1", content[1:-1])
            yield _Token(match.lastgroup, content, match.start(match.lastgroup))
            at = match.end()
        yield _Token("end", "", end)


def _compare(actual: Any, symbol: str, wanted: str) -> bool:
    """One comparison: of numbers where the run has a number, else of text without regard to case."""
    if actual is None or actual != actual:
        return False
    if isinstance(actual, (list, tuple)):
        if symbol == "~":
            return any(_compare(item, "~", wanted) for item in actual)
        return any(_equal(item, wanted) for item in actual) == (symbol == "=")
    if symbol == "~":
        return wanted.lower() in str(actual).lower()
    if symbol in ("=", "!="):
        return _equal(actual, wanted) == (symbol == "=")
    number = isinstance(actual, (int, float)) and not isinstance(actual, bool)
    return number and _ORDER[symbol](actual, _number(wanted))


def _equal(actual: Any, wanted: str) -> bool:
    if isinstance(actual, bool):
        return _WORDS.get(wanted.lower()) is actual
    if isinstance(actual, (int, float)):
        return bool(actual == _number(wanted))
    return str(actual).lower() == wanted.lower()


def _number(text: str) -> float | None:
    """A number, also as a fraction such as 8/255."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        return None


def _moment(text: str) -> float | None:
    """Unix seconds behind a date in local time, or a number of seconds."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return _number(text)
