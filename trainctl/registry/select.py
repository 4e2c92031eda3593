"""Which runs a RUN on the command line means.

    3f9k2m8x  3f9            an id, or a unique beginning of one
    cifar100-trades-s0       a name; all runs of that name
    @last                    the newest run
    tag:x recipe:x group:x   all runs with that
    natural>80 and seed=3    a filter; see trainctl.registry.filters

Several RUNs mean all runs that any of them means. An archived run is meant by its id, the beginning of that, or its
name, and by a filter that asks for the field `archived`; by nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.registry import filters, ingest, query
from trainctl.registry.query import RunRow

_PREFIXES = ("tag", "recipe", "group")


class Named(Protocol):
    """A run as it can be meant without a filter."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def name(self) -> str:
        """Its name, which several may share."""

    @property
    def recipe(self) -> str:
        """The name of its recipe."""

    @property
    def group(self) -> str:
        """What it shares with its repetitions under other seeds."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags."""

    @property
    def archived(self) -> bool:
        """True if only an id or a name mean it."""


R = TypeVar("R", bound=Named)


def resolve(home: Home, selectors: Iterable[str], *, archived: bool = False, exact: bool = False) -> list[RunRow]:
    """The runs that any of `selectors` means, each once, oldest first; the index is brought up to date before.

    No selectors mean no runs. A filter that fits no run means none; any other selector without a run is a
    UsageError, as are an ambiguous beginning and a filter that cannot be read. With `archived`, every selector
    means archived runs too. `exact` is for whoever acts on the runs, see `ingest.freshen`.
    """
    selectors = list(selectors)
    if not selectors:
        return []
    ingest.freshen(home, exact=exact)
    rows = query.runs(home)
    chosen = {row.id for selector in selectors for row in _select(home, rows, selector.strip(), archived)}
    return [row for row in rows if row.id in chosen]


def some(home: Home, selectors: Iterable[str], *, archived: bool = False) -> list[RunRow]:
    """As `resolve`, `exact`, but UsageError if no run fits."""
    selectors = list(selectors)
    rows = resolve(home, selectors, archived=archived, exact=True)
    if not rows:
        hint = why_none(home, selectors, archived=archived) or "`trainctl ls` lists all runs"
        raise UsageError(f"no run fits {' '.join(selectors)}", hint)
    return rows


def why_none(home: Home, selectors: Iterable[str], *, archived: bool = False) -> str:
    """Of `selectors` that were found to mean no run: a word in a filter that no run has; "" if it is not for one."""
    for selector in selectors:
        if filters.looks_like(selector):
            condition = filters.parse(selector)
            if said := filters.unknown_word(condition, _asked(home, condition, query.runs(home), archived)[1]):
                return said
    return ""


def one(home: Home, selector: str) -> RunRow:
    """The one run that `selector` means; UsageError if it means none or several."""
    rows = some(home, [selector])
    if len(rows) > 1:
        raise UsageError(f"{selector!r} means {len(rows)} runs, but one is expected", "name one of " + _listed(rows))
    return rows[0]


def _select(home: Home, rows: list[RunRow], selector: str, archived: bool) -> list[RunRow]:
    found = named(rows, selector, archived)
    return _filter(home, rows, selector, archived) if found is None else found


def named(rows: Sequence[R], selector: str, archived: bool) -> list[R] | None:
    """The runs that `selector` means among `rows`, oldest first, or None if it is a filter; UsageError as `resolve`."""
    listed = [row for row in rows if archived or not row.archived]
    if not selector:
        raise UsageError("an empty RUN", "give an id, a name, @last, tag:…, recipe:…, group:… or a filter")
    if selector == "@last":
        return _last(listed)
    prefix, colon, value = selector.partition(":")
    if colon and prefix in _PREFIXES:
        return _by_prefix(listed, prefix, value)
    exact = [row for row in rows if row.id == selector] or [row for row in rows if row.name == selector]
    if exact:
        return exact
    if filters.looks_like(selector):
        return None
    return _by_beginning(rows, selector)


def _last(rows: list[R]) -> list[R]:
    if not rows:
        raise UsageError("@last: there are no runs yet", "start one with `trainctl run`")
    return rows[-1:]


def _by_prefix(rows: list[R], prefix: str, value: str) -> list[R]:
    def values(row: R) -> tuple[str, ...]:
        return row.tags if prefix == "tag" else (str(getattr(row, prefix)),)

    found = [row for row in rows if value in values(row)]
    if not found:
        known = sorted({name for row in rows for name in values(row) if name})
        raise UsageError(
            f"no run has the {prefix} {value!r}", _nearest(value, known) if known else f"no run has a {prefix}"
        )
    return found


def _by_beginning(rows: Sequence[R], selector: str) -> list[R]:
    found = [row for row in rows if row.id.startswith(selector)]
    if len(found) > 1:
        raise UsageError(f"{selector!r} is the beginning of {len(found)} ids", "it may be " + _listed(found))
    if not found:
        names = sorted({name for row in rows for name in (row.id, row.name)})
        hint = _nearest(selector, names) if names else "there are no runs yet; start one with `trainctl run`"
        raise UsageError(f"there is no run {selector!r}", hint)
    return found


def _filter(home: Home, rows: list[RunRow], selector: str, archived: bool) -> list[RunRow]:
    condition = filters.parse(selector)
    rows, tables = _asked(home, condition, rows, archived)
    filters.check_fields(condition, tables)
    return [row for row, table in zip(rows, tables, strict=True) if condition.holds(table)]


def _asked(
    home: Home, condition: filters.Condition, rows: list[RunRow], archived: bool
) -> tuple[list[RunRow], list[filters.Fields]]:
    """The runs that a filter is about, and what it can ask of each."""
    rows = [row for row in rows if archived or not row.archived or "archived" in condition.fields]
    dotted = query.settings(home) if any("." in name for name in condition.fields) else {}
    return rows, [filters.asked(vars(row), dotted.get(row.id, {})) for row in rows]


def _listed(rows: Sequence[Named]) -> str:
    shown = ", ".join(f"{row.id} ({row.name})" for row in rows[:10])
    return shown + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")


def _nearest(word: str, known: list[Any]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(map(repr, close)) + "?"
    return "known: " + ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
