"""The runs as a table of lines of which only a part is looked at: filtered, sorted, grouped, cut out in SQL."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.rundir import STATUSES
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.registry import query
from trainctl.registry.fitting import Fitting
from trainctl.registry.groups import GroupLine, Spreads, describe, spreads
from trainctl.registry.query import AMONG, RunRow

__all__ = ["GROUPS", "GroupLine", "Table", "View", "Window"]

T = TypeVar("T")
_Kept = dict[str, tuple[object, Any]]
GROUPS = ("recipe", "pair", "group")
_TEXTS = ("id", "name", "recipe", "method", "dataset", "model", "group", "pair", "status", "note", "title", "device")
_NEWEST = "runs.created DESC, runs.id DESC"


@dataclass(frozen=True)
class View:
    """Which lines there are, and in which order."""

    filtered: str = ""
    """A RUN as on the command line; "" means all."""
    sort: str = "-created"
    """A column of `runs` or a metric; "-" in front: largest first. Runs without the value come last either way, ties
    newest first. Groups stand where their first run would, or, by a metric, its mean over their runs that are done."""
    group: str = ""
    """One of GROUPS, or "" for a line a run."""
    opened: frozenset[str] = frozenset()
    """Keys of the groups whose runs are listed below their line."""
    archived: bool = False
    """Archived runs too."""


@dataclass(frozen=True)
class Window:
    """The lines from `offset` on, which is moved up if the table ends before."""

    total: int
    """Runs without the filter."""
    fitting: int
    """Runs with it."""
    lines: int
    offset: int
    shown: tuple[RunRow | GroupLine, ...]
    counts: tuple[tuple[str, int], ...]
    """How many of all runs that are not archived have each status, in the order of STATUSES."""


@dataclass(frozen=True)
class _Group:
    key: str
    runs: int
    rowids: str
    """Of its runs, as JSON; and of those that are done."""
    done: str


class Table:
    """Answers from the index as it is. Threads may share it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._lock = threading.Lock()
        self._fitting = Fitting()
        self._lines: dict[tuple[str, str, str], GroupLine] = {}
        self._spreads: dict[str, Spreads] = {}
        self._kept: _Kept = {}

    def window(self, view: View, offset: int, size: int) -> Window:
        """At most `size` lines from `offset` on. UsageError for a filter that cannot be read."""

        def work(rows: _Rows) -> Window:
            counts = rows.counts()
            total = sum(counts.values()) if not view.archived else rows.count("1")
            fitting = rows.count(rows.where)
            groups = rows.groups() if view.group else []
            lines = len(groups) + sum(group.runs for group in groups if group.key in view.opened)
            lines = lines if view.group else fitting
            start = max(0, min(offset, lines - size))
            shown = self._grouped(rows, groups, start, size) if view.group else rows.runs(start, size)
            known = tuple((status, counts[status]) for status in STATUSES if status in counts)
            return Window(total, fitting, lines, start, tuple(shown), known)

        return self._ask(view, work) or Window(0, 0, 0, 0, (), ())

    def index_of(self, view: View, run_id: str) -> int | None:
        """The line of a run, or of the group with that key; None if it has none, as in a group that is not opened."""
        lines = self._ask(view, lambda rows: list(_all_lines(rows))) or []
        return lines.index(run_id) if run_id in lines else None

    def ids(self, view: View) -> list[str]:
        """All runs that fit, also those in groups that are not opened, in the order of the lines."""

        def work(rows: _Rows) -> list[str]:
            if not view.group:
                return rows.ids()
            return [run for group in rows.groups() for _, run in rows.members(group.key)]

        return self._ask(view, work) or []

    def _ask(self, view: View, work: Callable[[_Rows], T]) -> T | None:
        def read(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")  # all questions are answered by one state of the index
            return work(_Rows(connection, view, self._fitting, self._kept))

        with self._lock:
            return query.ask(self.home, read)

    def _grouped(self, rows: _Rows, groups: list[_Group], start: int, size: int) -> list[RunRow | GroupLine]:
        shown: list[RunRow | GroupLine] = []
        before, self._lines, kept = self._lines, {}, self._spreads
        self._spreads = {}
        line = 0
        for group in groups:
            if line >= start + size:
                break
            if line >= start:
                known = (rows.view.group, group.key, group.rowids)
                self._spreads[group.done] = kept.get(group.done) or spreads(rows.connection, group.done)
                self._lines[known] = before.get(known) or describe(rows.connection, *known, self._spreads[group.done])
                shown.append(self._lines[known])
            line += 1
            if group.key in rows.view.opened:
                first, last = max(0, start - line), min(group.runs, start + size - line)
                if first < last:
                    shown += rows.runs_of(group.key, first, last - first)
                line += group.runs
        return shown


def _all_lines(rows: _Rows) -> Iterator[str]:
    """What each line is about: the id of a run or the key of a group."""
    if not rows.view.group:
        yield from rows.ids()
        return
    for group in rows.groups():
        yield group.key
        if group.key in rows.view.opened:
            yield from (run for _, run in rows.members(group.key))


class _Rows:
    """The rows of `runs` that a view shows, within one transaction.

    What takes long is kept, since one scrolls through the same rows again and again.
    """

    def __init__(self, connection: sqlite3.Connection, view: View, fitting: Fitting, kept: _Kept) -> None:
        if view.group not in ("", *GROUPS):
            raise UsageError(f"runs cannot be grouped by {view.group!r}", f"group them by {', '.join(GROUPS)}")
        self.view, self.connection, self._kept = view, connection, kept
        self._execute = connection.execute
        stamp = query.stamp_of(connection)
        self._asked = (stamp, view.filtered, view.sort, view.group, view.archived)
        self.where = "1" if view.archived else "archived = 0"
        if view.filtered.strip():
            chosen = fitting.rowids(connection, stamp, view.filtered, view.archived)
            connection.create_function("fits", 1, chosen.__contains__, deterministic=True)
            self.where = "fits(runs.rowid)"
        self._key = f"""coalesce(nullif("{view.group}", ''), id)"""
        self._value = _value(view.sort.removeprefix("-"))
        self._descending = view.sort.startswith("-")
        self._way = "COLLATE NOCASE " + ("DESC NULLS LAST" if self._descending else "ASC NULLS LAST")
        # Written like this the order by `created` is that of an index.
        self._order = _NEWEST if view.sort == "-created" else f"{self._value} {self._way}, {_NEWEST}"

    def count(self, where: str) -> int:
        return int(self._execute(f"SELECT count(*) FROM runs WHERE {where}").fetchone()[0])

    def counts(self) -> dict[str, int]:
        return dict(self._execute("SELECT status, count(*) FROM runs WHERE archived = 0 GROUP BY status"))

    def ids(self) -> list[str]:
        return [run for _, run in self._ordered()]

    def runs(self, offset: int, size: int) -> list[RunRow]:
        """A part of the rows in their order."""
        if self._order == _NEWEST:  # an index has this order
            question = f"SELECT rowid FROM runs WHERE {self.where} ORDER BY {_NEWEST} LIMIT ? OFFSET ?"
            return self._whole([row for (row,) in self._execute(question, (max(0, size), offset))])
        return self._whole([row for row, _ in self._ordered()[offset : offset + size]])

    def members(self, key: str) -> list[tuple[int, str]]:
        """Rowid and id of the runs of a group, in their order."""

        def work() -> dict[str, list[tuple[int, str]]]:
            found: dict[str, list[tuple[int, str]]] = {}
            question = f"SELECT {self._key}, rowid, id FROM runs WHERE {self.where} ORDER BY {self._order}"
            for group, row, run in self._execute(question):
                found.setdefault(group, []).append((row, run))
            return found

        return self._once("members", work)[key]

    def runs_of(self, key: str, offset: int, size: int) -> list[RunRow]:
        """A part of the runs of a group in their order."""
        return self._whole([row for row, _ in self.members(key)[offset : offset + size]])

    def groups(self) -> list[_Group]:
        """In their order."""
        if self.view.sort.removeprefix("-") in query.COLUMNS:
            value = f"{'max' if self._descending else 'min'}({self._value})"
        else:
            value = f"avg({self._value}) FILTER (WHERE status = 'done')"
        rowids = "json_group_array(rowid)"
        question = f"""SELECT {self._key} AS key, count(*), {rowids}, {rowids} FILTER (WHERE status = 'done')
            FROM runs WHERE {self.where} GROUP BY key ORDER BY {value} {self._way}, max(created) DESC, key"""
        return self._once("groups", lambda: [_Group(*row) for row in self._execute(question)])

    def _ordered(self) -> list[tuple[int, str]]:
        question = f"SELECT rowid, id FROM runs WHERE {self.where} ORDER BY {self._order}"
        return self._once("ordered", lambda: self._execute(question).fetchall())

    def _whole(self, rowids: list[int]) -> list[RunRow]:
        # A row that changes gets another rowid, so what was read once is right.
        read: dict[int, RunRow] = self._kept.get("rows", (None, {}))[1]
        missing = [row for row in rowids if row not in read]
        question = f"SELECT rowid, {query.FIELDS} FROM runs WHERE rowid {AMONG}"
        found = {row: query.row(rest) for row, *rest in self._execute(question, (json.dumps(missing),))}
        read = {row: read.get(row) or found[row] for row in rowids}
        self._kept["rows"] = None, read
        return list(read.values())

    def _once(self, name: str, work: Callable[[], T]) -> T:
        """What `work` returns, unless it was done for the same rows of the same index."""
        if name not in self._kept or self._kept[name][0] != self._asked:
            self._kept[name] = (self._asked, work())
        found: T = self._kept[name][1]
        return found


def _value(name: str) -> str:
    """The SQL of what is sorted by; NULL where a run lacks it."""
    if name in _TEXTS:
        return f"""nullif(runs."{name}", '')"""
    if name == "tags":
        return "nullif(runs.tags, '[]')"
    if name in query.COLUMNS:
        return f'runs."{name}"'
    if not re.fullmatch(r"[\w .+-]+", name):  # a name that could be read as a path or as SQL
        return "NULL"
    return f"""json_extract(runs.metrics, '$."{name}"')"""
