"""The runs, for the home screen: a window of the table, and what stands under the cursor."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.rundir import AT_WORK
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.registry import query, selection
from trainctl.registry.groups import GroupLine
from trainctl.registry.query import RunRow
from trainctl.registry.series import Reader
from trainctl.registry.watch import Watch
from trainctl.registry.window import Table, View, Window
from trainctl.tui.feed.selected import Selected, current, selected

CURVE = 10  # values of a curve in the table
LOG_LINES = 60
GROUP = "group "  # before the key of a group, which could be the id of a run


@dataclass(frozen=True)
class Row:
    """A run in the table: how far its training is (0 to 1), the seconds that are left, and its curve."""

    run: RunRow
    share: float = 0.0
    eta: float | None = None
    curve: tuple[float, ...] = ()


Line = Row | GroupLine


@dataclass(frozen=True)
class Question:
    """What the screen shows: `size` lines of `view` from `offset` on. `at` is the line of the cursor, which is on
    the run or group `anchor`; "" for whatever stands there.
    """

    view: View
    offset: int
    size: int
    at: int
    anchor: str
    curves: bool
    marked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Mistake:
    """Why a filter cannot be read; `at` is the character where it stops making sense, if one can be named."""

    text: str
    hint: str
    at: int | None


@dataclass(frozen=True)
class Overview:
    """The home screen. The cursor belongs on line `at`, which was line `asked.at` when it was asked."""

    asked: Question
    window: Window
    lines: tuple[Line, ...]
    at: int
    marked: frozenset[str]
    """Of those that were marked, the runs that still are in the table, whatever the filter."""
    hidden: int
    """Of a table without any run, how many are archived."""
    mistake: Mistake | None
    selected: Selected | GroupLine | None
    minute: int
    """When it was answered; ages are told anew each minute."""


def key(line: Line | Selected) -> str:
    """What a line of the table is recognised by."""
    return GROUP + line.key if isinstance(line, GroupLine) else line.run.id


def group_of(run: RunRow, view: View) -> str:
    """Key of the group that `run` stands in; a run without a group is one by itself."""
    return getattr(run, view.group) or run.id


class RunsFeed:
    """Answers of the home screen. Used by one thread at a time."""

    def __init__(self, home: Home, watch: Watch) -> None:
        self.home = home
        self._watch = watch
        self._table = Table(home)
        self._reader = Reader(home)
        self._answered: object = None
        self._stood: tuple[int, View] = (0, View())
        """The index's version and the view of the last answer."""
        self._kept: tuple[object, Window] = None, Window(0, 0, 0, 0, (), ())
        self._curves: dict[str, tuple[tuple[str, int], tuple[float, ...]]] = {}

    def overview(self, question: Question) -> Overview | None:
        """The answer; None if it would be the last one again."""
        version, minute = self._watch.look(), int(time.time() / 60)
        asked = (version, minute, question, self._log_of(question.anchor))
        if asked == self._answered:
            return None
        mistake, view = None, question.view
        try:
            window, at = self._window(question, version)
        except UsageError as error:  # the table keeps what it had, and goes on with it
            mistake, view = _mistake(error), replace(view, filtered=self._stood[1].filtered)
            window, at = self._window(replace(question, view=view), version)
        marked = question.marked
        if marked and (version, view.archived) != (self._stood[0], self._stood[1].archived):
            there = self.runs(marked)
            marked = frozenset(run.id for run in there if view.archived or not run.archived)
        rows = self._rows(window, question.curves)
        line = rows[at - window.offset] if 0 <= at - window.offset < len(rows) else None
        hidden = 0 if window.total else query.count(self.home)
        chosen = self._chosen(line, question.anchor)
        answer = Overview(question, window, rows, at, marked, hidden, mistake, chosen, minute)
        self._answered, self._stood = asked, (version, view)
        return answer

    def ids(self, view: View) -> list[str]:
        """Ids of all runs of the table; of a filter that cannot be read, of what the table shows instead."""
        try:
            return self._table.ids(view)
        except UsageError:
            return self._table.ids(replace(view, filtered=self._stood[1].filtered))

    def runs(self, ids: Iterable[str]) -> list[RunRow]:
        """The runs of `ids` that are still there, oldest first."""
        return query.runs(self.home, ids)

    def members(self, view: View, group: str) -> list[RunRow]:
        """The runs of the table that stand below the line of the group with the key `group`."""
        return [run for run in self.runs(self.ids(view)) if group_of(run, view) == group]

    def _window(self, question: Question, version: int) -> tuple[Window, int]:
        """The window, and the line where the cursor belongs: on its run, wherever that is now."""
        window = self._part(question.view, question.offset, question.size, version)
        unmoved = (version, question.view) == self._stood
        at = min(question.at, max(0, window.lines - 1)) if unmoved else self._line(window, question)
        if at != question.at and not 0 <= at - window.offset < len(window.shown):
            # The lines move with the cursor, so that it keeps its place on the screen.
            offset = max(0, question.offset + at - question.at)
            window = self._part(question.view, offset, question.size, version)
        return window, at

    def _part(self, view: View, offset: int, size: int, version: int) -> Window:
        """A window; the last one is kept, since most questions differ in the cursor only."""
        wanted = (view, offset, size, version)
        if wanted != self._kept[0]:
            self._kept = wanted, self._table.window(view, offset, size)
        return self._kept[1]

    def _line(self, window: Window, question: Question) -> int:
        keys = [line.id if isinstance(line, RunRow) else key(line) for line in window.shown]
        here = question.at - window.offset
        if question.anchor in keys and not (0 <= here < len(keys) and keys[here] == question.anchor):
            return window.offset + keys.index(question.anchor)
        at: int | None = question.at
        if question.anchor not in ("", *keys):
            at = self._table.index_of(question.view, question.anchor.removeprefix(GROUP))
        if at is None:  # it has gone: the next takes its place, but under another filter all begins at the top
            at = question.at if question.view == self._stood[1] else 0
        return min(at, max(0, window.lines - 1))

    def _rows(self, window: Window, curves: bool) -> tuple[Line, ...]:
        runs = [line for line in window.shown if isinstance(line, RunRow)]
        at_work = query.progress(self.home, [run.id for run in runs if run.status in AT_WORK])
        drawn = self._drawn(runs) if curves else {}

        def row(run: RunRow) -> Row:
            progress = at_work.get(run.id)
            if progress is None:
                share = run.epoch / run.epochs if run.epochs else 0.0
                return Row(run, min(1.0, share), None, drawn.get(run.id, ()))
            eta = progress.eta() if run.status == "running" else None
            return Row(run, progress.share, eta, drawn.get(run.id, ()))

        return tuple(row(line) if isinstance(line, RunRow) else line for line in window.shown)

    def _drawn(self, runs: Iterable[RunRow]) -> dict[str, tuple[float, ...]]:
        """The curves of the runs in the window; read again only where an epoch was added."""
        states = {run.id: (run.status, run.epoch) for run in runs}
        self._curves = {id: found for id, found in self._curves.items() if states.get(id) == found[0]}
        missing = [id for id, (_, epoch) in states.items() if epoch and id not in self._curves]
        found = selection.curves(self.home, missing)
        for id in missing:
            self._curves[id] = states[id], thinned(found.get(id, ()), CURVE)
        return {id: curve for id, (_, curve) in self._curves.items()}

    def _chosen(self, line: Line | None, anchor: str) -> Selected | GroupLine | None:
        """What stands under the cursor, also where that is out of sight."""
        if isinstance(line, GroupLine):
            return line
        run = line.run if line else next(iter(self.runs([anchor])), None)
        return selected(self.home, run, current(self.home, run.id), LOG_LINES, self._reader) if run else None

    def _log_of(self, run: str) -> object:
        """What changes whenever a run prints."""
        try:
            found = self.home.run(run).log.stat()
        except (OSError, ValueError):
            return None
        return found.st_ino, found.st_size


def thinned(values: Sequence[float], most: int) -> tuple[float, ...]:
    """At most `most` values: the means of equal parts."""
    parts = min(most, len(values))
    edges = [len(values) * part // parts for part in range(parts + 1)] if parts else []
    return tuple(math.fsum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges))


def _mistake(error: UsageError) -> Mistake:
    """The error of a filter; its last line is a caret below the filter, which is indented by two."""
    text, *pointed = str(error).split("\n")
    at = len(pointed[-1]) - 3 if pointed and pointed[-1].strip() == "^" else None
    return Mistake(text.removeprefix("filter: "), error.hint or "", at)
