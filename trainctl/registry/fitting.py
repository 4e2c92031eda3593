"""Which runs a RUN means, asked again and again while runs change: only those that did are judged again.

What a RUN means is said in `select` and `filters` alone. A row of the index that changes gets a larger rowid than any
had before, so a verdict is remembered by rowid.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from trainctl.errors import UsageError
from trainctl.registry import filters, query, select

# Threat models cannot be asked for and cost most of a row.
_COLUMNS = ", ".join(["'{}'" if "threats" in name else name for name in query.FIELDS.split(", ")])


@dataclass(frozen=True)
class Named:
    """What of a run can be said without a filter."""

    id: str
    name: str
    recipe: str
    group: str
    tags: tuple[str, ...]
    archived: bool


class Fitting:
    """The runs that one RUN means, until another one is asked for. Used by one thread at a time."""

    def __init__(self) -> None:
        self._runs: dict[int, Named] = {}
        self._condition: filters.Condition | None = None
        self._archived = False
        self._verdicts: dict[int, bool] = {}
        self._asked: object = None
        self._answer: set[int] | UsageError = set()

    def rowids(self, connection: sqlite3.Connection, stamp: object, selector: str, archived: bool) -> set[int]:
        """Of the runs that `selector` means, as `select.resolve` does; UsageError as there.

        `stamp` is that of the index (see `query.stamp`): while it stays the same, so does the answer.
        """
        asked = (stamp, selector, archived)
        if asked != self._asked:
            try:
                self._answer = self._judged(connection, selector.strip(), archived)
            except UsageError as error:
                self._answer, self._condition = error, None
            self._asked = asked
        if isinstance(self._answer, UsageError):
            raise self._answer
        return self._answer

    def _judged(self, connection: sqlite3.Connection, selector: str, archived: bool) -> set[int]:
        present = [row for (row,) in connection.execute("SELECT rowid FROM runs ORDER BY created, id")]
        self._read(connection, present)
        named = select.named([self._runs[row] for row in present], selector, archived)
        if named is not None:
            rows = {self._runs[row].id: row for row in present}
            return {rows[run.id] for run in named}
        if self._condition is None or (self._condition.text, self._archived) != (selector, archived):
            self._verdicts, self._archived = {}, archived
            self._condition = filters.parse(selector)
        hidden = not archived and "archived" not in self._condition.fields
        listed = {row for row in present if not (hidden and self._runs[row].archived)}
        self._judge(connection, self._condition, listed)
        return {row for row in listed if self._verdicts[row]}

    def _read(self, connection: sqlite3.Connection, present: list[int]) -> None:
        question = 'SELECT rowid, id, name, recipe, "group", tags, archived FROM runs WHERE rowid > ?'
        for row, *said, tags, archived in connection.execute(question, (max(self._runs, default=0),)):
            run, name, recipe, group = said
            self._runs[row] = Named(run, name, recipe, group, tuple(query.stored(tags)), bool(archived))
        for gone in self._runs.keys() - set(present):
            del self._runs[gone]
            self._verdicts.pop(gone, None)

    def _judge(self, connection: sqlite3.Connection, condition: filters.Condition, listed: set[int]) -> None:
        """Decide about the rows of `listed` that are new. One at a time: 10 000 in memory are slow to get rid of."""
        settings = "settings" if any("." in name for name in condition.fields) else "NULL"
        question = f"SELECT rowid, {settings}, {_COLUMNS} FROM runs WHERE rowid > ?"
        verdicts: dict[int, bool] = {}
        known = filters.Fields({}, {})
        for row, recipe, *rest in connection.execute(question, (max(self._verdicts, default=0),)):
            if row in listed:
                fields = filters.asked(query.fields(rest), query.stored(recipe) if recipe else {})
                verdicts[row] = condition.holds(fields)
                known.own.update(fields.own)
                known.settings.update(fields.settings)
        if not self._verdicts:  # a field that was known stays known
            filters.check_fields(condition, [known])
        self._verdicts |= verdicts
