"""Dots on characters: a canvas of two by four dots a character, and what is drawn on it.

A column of dots is one whole number whose bit r is the dot in row r from above. So a vertical stroke is one operation
however long it is, and thousands of points cost no more than the columns they fall into.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

Dots = Sequence[tuple[int, int]]  # (column, row), columns ascending
LEFT = (0x01, 0x02, 0x04, 0x40)  # bit of the dot in row r of a character's left column
RIGHT = (0x08, 0x10, 0x20, 0x80)
_LEFT = [sum(LEFT[row] for row in range(4) if nibble >> row & 1) for nibble in range(16)]
_RIGHT = [sum(RIGHT[row] for row in range(4) if nibble >> row & 1) for nibble in range(16)]
DASH, GAP = 5, 3  # columns of a dashed line that are drawn, and that are not


class Canvas:
    """`columns` by `rows` characters of dots."""

    def __init__(self, columns: int, rows: int) -> None:
        self.width, self.height = columns * 2, rows * 4
        self._columns = [0] * self.width

    def span(self, column: int, top: int, bottom: int) -> None:
        """The dots of `column` between the rows `top` and `bottom`, as far as they lie on the canvas."""
        top, bottom = max(top, 0), min(bottom, self.height - 1)
        if 0 <= column < self.width and top <= bottom:
            self._columns[column] |= (2 << bottom) - (1 << top)

    def line(self, dots: Dots) -> None:
        """A line from each of `dots` to the next; a single one is a dot."""
        if len(dots) == 1:
            self.span(dots[0][0], dots[0][1], dots[0][1])
        for (x0, y0), (x1, y1) in itertools.pairwise(dots):
            if x0 == x1:
                self.span(x0, min(y0, y1), max(y0, y1))
                continue
            slope = (y1 - y0) / (x1 - x0)
            at = float(y0)
            for column in range(max(x0, -1), min(x1, self.width) + 1):
                # Half of the way to either neighbour, so that a steep line has no holes.
                at = y0 + slope * (column - x0)
                ends = (round(at - slope / 2 * (column > x0)), round(at + slope / 2 * (column < x1)))
                self.span(column, min(ends), max(ends))

    def shade(self, strips: Iterable[tuple[int, int, int]]) -> None:
        """(column, top, bottom): both ends of each, so that no spike is lost, and every eighth dot between them."""
        for column, top, bottom in strips:
            if top < bottom:
                self.span(column, top, top)
                self.span(column, bottom, bottom)
                between = (2 << max(bottom, 0)) - (1 << max(top, 0))
                if 0 <= column < self.width:
                    self._columns[column] |= between & _sparse(column, self.height)

    def dash(self) -> None:
        """Make gaps in what was drawn; where it is steep only every other pair of dots goes."""
        for column in range(self.width):
            if column % (DASH + GAP) >= DASH:
                drawn = self._columns[column]
                self._columns[column] = drawn & _HALF if drawn.bit_count() > 3 else 0

    def cells(self) -> Iterator[tuple[int, int, int]]:
        """(column, row, bits) of each character that is not empty."""
        for column in range(self.width // 2):
            left, right = self._columns[2 * column], self._columns[2 * column + 1]
            rest = left | right
            while rest:
                row = (rest & -rest).bit_length() - 1 >> 2
                yield column, row, _LEFT[left >> 4 * row & 15] | _RIGHT[right >> 4 * row & 15]
                rest &= -1 << 4 * (row + 1)


_HALF = int("0011" * 100, 2)


def _sparse(column: int, height: int) -> int:
    return 0 if column % 2 else sum(1 << row for row in range(column // 2 % 2 * 2, height, 4))
