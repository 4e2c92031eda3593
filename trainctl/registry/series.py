"""Curves of as many points as there are, in a few hundred buckets of x that SQL makes.

A bucket is 2^k wide and begins at a multiple of its width, so that two neighbours make one bucket of the next width. So
buckets are remembered, new points are merged into them, and a curve that outgrows its number of buckets is halved;
what was read once is not read again.
"""

from __future__ import annotations

import math
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from trainctl.home import Home
from trainctl.registry import query

KEPT = 64
"""Curves whose buckets are remembered."""
CHUNKS = 64
"""Pieces in which a curve is read: SQLite sorts by bucket, and a small sort stays in the processor's cache."""
X = {"step": "step", "epoch": "epoch", "time": "(t - {began!r})"}
FINITE = "CASE WHEN abs(value) <= 1.7976931348623157e308 THEN value END"
Row = tuple[int, float | None, float | None]  # step, t, value
OF = "FROM points WHERE run = ? AND kind = ? AND metric = ?"


class Bucket(NamedTuple):
    """What stands between the x `first` and `last`: lowest, highest and mean of `n` finite values.

    `lost` more are NaN or infinite. Without a finite value low, high and mean are NaN.
    """

    first: float
    last: float
    low: float
    high: float
    mean: float
    n: int
    lost: int


@dataclass(frozen=True)
class Wanted:
    """A curve, between the x `left` and `right` (None: to its end), in at most `buckets` buckets (at least 2).

    x counts steps, epochs, or as "time" the seconds since the run started; `kind` is as in `query.points`.
    """

    run: str
    metric: str
    kind: str = "step"
    x: str = "step"
    left: float | None = None
    right: float | None = None
    buckets: int = 400


@dataclass(frozen=True)
class Curve:
    """Buckets in the order of x. The whole curve, of which they may be a part, lies between `first` and `last`."""

    buckets: tuple[Bucket, ...] = ()
    first: float = math.nan
    last: float = math.nan


class Reader:
    """Reads curves and remembers their buckets. Used by one thread at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._held: OrderedDict[Wanted, _Held] = OrderedDict()

    def read(self, wanted: Sequence[Wanted]) -> list[Curve]:
        """The curves, as the index holds them at one moment. Raises MachineError if it cannot be read."""

        def look(connection: sqlite3.Connection) -> list[Curve]:
            try:
                connection.execute("BEGIN")
                return [self._curve(connection, each) for each in wanted]
            except sqlite3.Error:
                self._held.clear()
                raise

        return query.ask(self.home, look) or [Curve()] * len(wanted)

    def _curve(self, connection: sqlite3.Connection, wanted: Wanted) -> Curve:
        rows = _Rows(connection, wanted)
        ends = rows.ends()
        if ends is None:
            return Curve()
        held = self._held.pop(wanted, None)
        if held is None or held.stamp != rows.stamp() or (held.newest and rows.newest(held.newest[0]) != held.newest):
            held = _Held(rows.stamp())
        held.extend(rows, wanted, ends)
        self._held[wanted] = held
        while len(self._held) > KEPT:
            self._held.popitem(last=False)
        buckets = tuple(held.buckets[number] for number in sorted(held.buckets))
        return Curve(buckets, ends[0][1], ends[1][1])


class _Rows:
    """The rows of one curve that have an x."""

    def __init__(self, connection: sqlite3.Connection, wanted: Wanted) -> None:
        self._connection, self._of = connection, (wanted.run, wanted.kind, wanted.metric)
        started = connection.execute("SELECT started FROM runs WHERE id = ?", (wanted.run,)).fetchone()
        self._x = X[wanted.x].format(began=float((started and started[0]) or 0.0))
        self._where = f"{OF} AND {self._x} IS NOT NULL"
        limits = () if wanted.x == "step" else ((">=", wanted.left), ("<=", wanted.right))
        self._within = "".join(f" AND {self._x} {sign} {at!r}" for sign, at in limits if at is not None)

    def stamp(self) -> object:
        """Another one when the events are another file, as those of a resumed run are."""
        found = self._connection.execute("SELECT inode FROM cursors WHERE run = ?", self._of[:1]).fetchone()
        return found, self._x

    def newest(self, until: int | None = None) -> Row | None:
        """The row of the highest step, or of the highest up to the step `until`."""
        asked = f"SELECT step, t, value {self._where} AND step <= ? ORDER BY step DESC LIMIT 1"
        found: Row | None = self._connection.execute(
            asked, (*self._of, 2**63 - 1 if until is None else until)
        ).fetchone()
        return found

    def ends(self) -> tuple[tuple[int, float], tuple[int, float]] | None:
        """(step, x) of the first and the last row; None without any."""
        asked = f"SELECT step, 1.0 * {self._x} {self._where} ORDER BY step {{}} LIMIT 1"
        first, last = (self._connection.execute(asked.format(order), self._of).fetchone() for order in ("", "DESC"))
        return (first, last) if first else None

    def buckets(self, width: float, start: int, stop: int) -> Iterator[tuple[int, Bucket]]:
        """(number, bucket) of the rows from step `start` to `stop`; a bucket may come in several parts."""
        size = max(1, -(-(stop - start + 1) // CHUNKS))
        for begin in range(start, stop + 1, size):
            among = (width, *self._of, begin, min(begin + size - 1, stop))
            found = self._sums("value", among)
            if any(not math.isfinite(each) for row in found for each in row[3:6] if each is not None):
                found = self._sums(FINITE, among)  # infinities are rare, and to look at every value costs as much again
            for number, rows, count, low, high, total, first, last in found:
                values = (low, high, total / count) if count else (math.nan, math.nan, math.nan)
                yield number, Bucket(float(first), float(last), *values, count, rows - count)

    def _sums(self, value: str, among: tuple[object, ...]) -> list[tuple[int, int, int, float, float, float, int, int]]:
        return self._connection.execute(
            f"SELECT CAST({self._x} / ? AS INTEGER) AS number, count(*), count({value}), min({value}), max({value}), "
            f"total({value}), min({self._x}), max({self._x}) {self._where}{self._within} "
            "AND step BETWEEN ? AND ? GROUP BY number",
            among,
        ).fetchall()


@dataclass
class _Held:
    """What is remembered of a curve: its buckets by number, and the newest row that is in them."""

    stamp: object
    newest: Row | None = None
    width: float = 0.0
    buckets: dict[int, Bucket] = field(default_factory=dict)

    def extend(self, rows: _Rows, wanted: Wanted, ends: tuple[tuple[int, float], tuple[int, float]]) -> None:
        """Take in the rows behind `newest`."""
        newest = rows.newest()
        if newest == self.newest:
            return
        (first_step, first), (last_step, last) = ends
        left = first if wanted.left is None else max(first, wanted.left)
        right = last if wanted.right is None else min(last, wanted.right)
        if not self.width:
            span = min(max(right - left, 1e-9), 1e300)
            self.width = 2.0 ** math.floor(math.log2(span / wanted.buckets))
        while int(right / self.width) - int(left / self.width) >= wanted.buckets:
            self._halve()
        start = self.newest[0] + 1 if self.newest else first_step
        if wanted.x == "step":
            start, last_step = max(start, math.ceil(left)), math.floor(right)
        for number, bucket in rows.buckets(self.width, start, last_step):
            self._add(number, bucket)
        self.newest = newest

    def _halve(self) -> None:
        before, self.buckets, self.width = self.buckets, {}, self.width * 2
        for number, bucket in before.items():
            self._add(int(number / 2), bucket)

    def _add(self, number: int, bucket: Bucket) -> None:
        here = self.buckets.get(number)
        self.buckets[number] = _merged(here, bucket) if here else bucket


def _merged(a: Bucket, b: Bucket) -> Bucket:
    first, last, n, lost = min(a.first, b.first), max(a.last, b.last), a.n + b.n, a.lost + b.lost
    if not a.n or not b.n:
        return (b if b.n else a)._replace(first=first, last=last, lost=lost)
    mean = (a.mean * a.n + b.mean * b.n) / n
    return Bucket(first, last, min(a.low, b.low), max(a.high, b.high), mean, n, lost)
