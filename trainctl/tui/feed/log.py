"""The text that a run has printed, as a terminal would leave it: any part of a growing file, without holding it."""

from __future__ import annotations

import codecs
import os
import re
import time
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.rundir import regular
from trainctl.cli.common import printable
from trainctl.errors import MachineError
from trainctl.tui.feed.pattern import Pattern

CHUNK = 1 << 16  # bytes between two entries of the index of lines
TAIL = 3  # whole chunks that are counted before anything is shown
BLOCK = 16  # chunks that are read at once on the way to the beginning
LONG = 1 << 14  # of a longer line only so many bytes at its start and its end are looked at
WIDTH = 4096  # characters of a line that are shown and searched
MARK = 32  # bytes before the end by which it is known that a file was not written anew
BUDGET = 0.05  # seconds that one question may take
MATCHES = 50_000  # lines that a search finds at most
CONTROLS = bytes({*range(32), 127} - {10})
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~]|\Z)")
ERASE = re.compile(r"\x1b\[[0-2]?K")
SILENT = "It has printed nothing yet."


def plain(data: bytes, *, torn: bool = False) -> str:
    """One line as a terminal would leave it: what follows a carriage return is written over what stood there.

    Escape codes are left out, other control characters written out. If `torn`, a character may lack its last bytes.
    """
    left = ""
    for part in codecs.getincrementaldecoder("utf-8")("replace").decode(data, not torn).rstrip("\r").split("\r"):
        text = ESCAPES.sub("", part)
        left = text if ERASE.search(part) else text + left[len(text) :]
    left = left.expandtabs()
    return left if left.isprintable() else printable(left)


def shown(head: bytes, tail: bytes, size: int, *, torn: bool = False) -> str:
    """A line of `size` bytes, of which `head` are the first LONG and `tail` the last, cut to WIDTH characters.

    A progress bar can draw over a line for days; of such a line the last state counts, not the first.
    """
    _, drawn_over, last = tail.rstrip(b"\r").partition(b"\r") if size > LONG else (b"", b"", b"")
    text = plain(last, torn=torn) if drawn_over else plain(head, torn=torn or size > LONG)
    if len(text) <= WIDTH and (size <= LONG or drawn_over):
        return text
    return f"{text[:WIDTH]} … cut here: this line has {size:,} bytes"


def lines(data: bytes) -> list[str]:
    """The lines of `data`; what follows its last newline is one if there is any."""
    parts = data.split(b"\n")
    return [plain(part) for part in (parts if parts[-1] or len(parts) == 1 else parts[:-1])]


def last_lines(path: Path, count: int) -> tuple[str, ...]:
    """The last `count` lines that are not blank, of the last 8 KiB; none if the file cannot be read."""
    try:
        with open(path, "rb", opener=regular) as file:
            start = max(0, file.seek(0, os.SEEK_END) - 8192)
            file.seek(start)
            data = file.read(8192)
    except OSError:
        return ()
    return tuple(line for line in lines(data)[start > 0 :] if line.strip())[-count:]


@dataclass(frozen=True)
class Page:
    """Some lines of a log, numbered from 0: `lines` from the number `first` on, of `count`.

    `counted` is the share of the file whose lines were counted. Below 1 its beginning is not yet among them, and all
    numbers grow by the `shift` of a later page. `generation` grows when the file was replaced.
    """

    first: int
    lines: tuple[str, ...]
    count: int
    counted: float
    shift: int
    generation: int


class LogFile:
    """Lines of a file that grows, by number. Used by one thread at a time; a file that is not there is empty.

    Newlines are counted at the end of the file first and then towards its beginning, so that the last lines can be
    shown at once. Kept are the counts at each CHUNK bytes: 128 KiB for a file of 1 GiB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self._seen: tuple[int, int, int] | None = None
        self._told: tuple[int, ...] = ()
        self._shifted = 0  # lines by which all numbers have grown
        self._restart(0)

    def _restart(self, size: int) -> None:
        self.generation += 1
        self._low = max(0, size // CHUNK - TAIL)  # the first chunk that was counted; line 0 begins there
        self._end = self._low * CHUNK  # the first byte that was not
        self._before = array("q", [0])  # newlines from the first counted chunk to the start of each
        self._newlines = 0
        self._mark = b""

    @property
    def count(self) -> int:
        """Lines that were counted; the last need not be complete."""
        return self._newlines + (self._mark[-1:] not in (b"", b"\n"))

    def grow(self, budget: float) -> bool:
        """Count what is new, for about `budget` seconds; whether all is counted. MachineError if it cannot be read.

        Each call gets on by a block at least: on a slow machine merely opening the file may use up the budget.
        """
        until = time.monotonic() + budget
        try:
            with open(self.path, "rb", buffering=0, opener=regular) as file:
                stat = os.fstat(file.fileno())
                seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
                if seen != self._seen:
                    if self._is_another(file.fileno(), stat):
                        self._restart(stat.st_size)
                    self._seen = seen
                self._count_on(file.fileno(), stat.st_size, until)
                if self._end == stat.st_size:
                    self._count_back(file.fileno(), until)
        except FileNotFoundError:
            if self._seen:
                self._seen = None
                self._restart(0)
            return True
        except OSError as error:
            raise MachineError(f"cannot read {self.path}: {error.strerror or error}", "see who may read it") from None
        return not self._low and self._end == stat.st_size

    def _is_another(self, file: int, stat: os.stat_result) -> bool:
        """Whether the file was replaced, made shorter or written anew since it was seen."""
        if self._seen is None or stat.st_ino != self._seen[0] or stat.st_size < self._end:
            return True
        return os.pread(file, len(self._mark), self._end - len(self._mark)) != self._mark

    def _count_on(self, file: int, size: int, until: float) -> None:
        """Count towards the end, to `size` bytes."""
        start = self._end
        while self._end < size and (self._end - start < CHUNK * (TAIL + 1) or time.monotonic() < until):
            data = os.pread(file, min(CHUNK - self._end % CHUNK, size - self._end), self._end)
            if not data:
                return
            self._newlines += data.count(b"\n")
            self._end += len(data)
            self._mark = (self._mark + data)[-MARK:]
            if self._end % CHUNK == 0:
                self._before.append(self._newlines)

    def _count_back(self, file: int, until: float) -> None:
        """Count towards the beginning, and number the lines anew."""
        found: list[int] = []  # newlines of each chunk, the last first
        while self._low and (not found or time.monotonic() < until):
            block = min(BLOCK, self._low)
            data = os.pread(file, block * CHUNK, (self._low - block) * CHUNK)
            found += (data.count(b"\n", at * CHUNK, (at + 1) * CHUNK) for at in reversed(range(block)))
            self._low -= block
        if not found:
            return
        before = array("q", [0])
        for newlines in reversed(found):
            before.append(before[-1] + newlines)
        added = before.pop()
        before.extend(newlines + added for newlines in self._before)
        self._before = before
        self._newlines += added
        self._shifted += added

    def page(self, first: int | None, count: int) -> Page | None:
        """`count` lines from the number `first` on, or the last ones (None), after at most BUDGET of counting.

        `first` is a number of the page before; None if neither the file nor what is asked for has changed since then.
        MachineError if the file cannot be read.
        """
        generation, shifted = self.generation, self._shifted
        whole = self.grow(BUDGET)
        shift = self._shifted - shifted if generation == self.generation else 0
        first = max(0, self.count - count) if first is None else max(0, min(first + shift, self.count - 1))
        asked = (self.generation, self._low, self._end, first, count)
        if asked == self._told:
            return None
        self._told = asked
        size = self._seen[1] if self._seen else 0
        counted = 1.0 if whole else (self._end - self._low * CHUNK) / max(size, 1)
        return Page(first, self.lines(first, count), self.count, counted, shift, self.generation)

    def lines(self, first: int, count: int) -> tuple[str, ...]:
        """`count` lines from the number `first` on, or as many as there are."""
        last = min(self.count, first + count)
        found: list[str] = []
        try:
            with open(self.path, "rb", buffering=0, opener=regular) as file:
                at = self._start(file.fileno(), first) if first < last else 0
                for number in range(first, last):
                    text, at = self._line(file.fileno(), number, at)
                    found.append(text)
        except OSError:
            pass  # it went away meanwhile, which the next look will notice
        return tuple(found)

    def _line(self, file: int, number: int, start: int) -> tuple[str, int]:
        """A line whose first byte is `start`, and the first byte of the next."""
        head = os.pread(file, min(LONG + 1, self._end - start), start)
        size = head.find(b"\n")
        if size >= 0:
            return shown(head[:size], b"", size), start + size + 1
        torn = number == self._newlines
        after = self._end + 1 if torn else self._start(file, number + 1)
        size = after - 1 - start
        tail = os.pread(file, LONG, after - 1 - LONG) if size > LONG else b""
        return shown(head[:LONG], tail, size, torn=torn), after

    def _start(self, file: int, number: int) -> int:
        """The first byte of a line."""
        if number == 0:
            return self._low * CHUNK
        chunk = bisect_left(self._before, number) - 1
        data = os.pread(file, CHUNK, (self._low + chunk) * CHUNK)
        rest = data.split(b"\n", number - self._before[chunk])[-1]
        return (self._low + chunk) * CHUNK + len(data) - len(rest)

    def piece(self, start: int, stop: int, *, backwards: bool) -> tuple[int, int]:
        """The first, or `backwards` the last, of the lines `start` to `stop` that begin within one chunk."""
        if backwards:
            chunk = bisect_left(self._before, stop - 1) - 1
            return max(start, self._before[chunk] + 1) if chunk >= 0 else start, stop
        chunk = bisect_left(self._before, start)
        return start, min(stop, self._before[chunk] + 1) if chunk < len(self._before) else stop

    def raw(self, start: int, stop: int) -> bytes | None:
        """The bytes of the lines `start` to `stop`; None if they are many more than a chunk."""
        try:
            with open(self.path, "rb", buffering=0, opener=regular) as file:
                low = self._start(file.fileno(), start)
                high = self._start(file.fileno(), stop) if stop <= self._newlines else self._end
                return os.pread(file.fileno(), high - low, low) if high - low <= 2 * CHUNK else None
        except OSError:
            return b""


@dataclass(frozen=True)
class Found:
    """How far a search is: the line it goes to, once there is one, and the rank of that among `lines` that match.

    `share` of the log was looked through. At 1, `lines` are all, or MATCHES and there may be more.
    """

    line: int | None
    rank: int
    lines: int
    share: float


class Search:
    """Once through a log that is counted whole, from a line on and round its end: where it goes first, and how often.

    It goes on by `step`, on the thread that uses the file. Lines are searched as they are shown.
    """

    def __init__(self, file: LogFile, pattern: Pattern, first: int, *, backwards: bool = False) -> None:
        self.pattern = pattern
        self.count = file.count
        self._file = file
        self._generation = file.generation
        self._plain = "" if pattern.regular else pattern.typed.casefold()
        self._lines: list[int] = []
        self._line: int | None = None
        self._through = 0
        self._pieces = self._around(first % max(1, self.count), backwards)
        self._backwards = backwards

    def step(self, budget: float = BUDGET) -> Found:
        """Search on for about `budget` seconds."""
        until = time.monotonic() + budget
        for start, stop in self._pieces:
            if self._file.generation != self._generation:
                self._through = self.count
                break
            found = self._matching(start, stop)
            if found and self._line is None:
                self._line = found[-1 if self._backwards else 0]
            for line in found[: MATCHES - len(self._lines)]:
                insort(self._lines, line)
            self._through += stop - start
            if len(self._lines) >= MATCHES:
                self._through = self.count
                break
            if time.monotonic() >= until:
                break
        return self.found

    @property
    def found(self) -> Found:
        """How far it is."""
        rank = 0 if self._line is None else bisect_left(self._lines, self._line) + 1
        return Found(self._line, rank, len(self._lines), self._through / self.count if self.count else 1.0)

    def go(self, line: int, *, backwards: bool) -> bool:
        """Go from a line to the next one, or `backwards`, that matches; False if not all are known."""
        if self._through < self.count or not 0 < len(self._lines) < MATCHES or self._file.count != self.count:
            return False
        at = bisect_left(self._lines, line) - 1 if backwards else bisect_right(self._lines, line)
        self._line = self._lines[at % len(self._lines)]
        return True

    def _around(self, first: int, backwards: bool) -> Iterator[tuple[int, int]]:
        """All lines in pieces, in the order in which they are searched."""
        parts = ((0, first + 1), (first + 1, self.count)) if backwards else ((first, self.count), (0, first))
        for start, stop in parts:
            while start < stop:
                piece = self._file.piece(start, stop, backwards=backwards)
                yield piece
                start, stop = (start, piece[0]) if backwards else (piece[1], stop)

    def _matching(self, start: int, stop: int) -> list[int]:
        """The lines from `start` to `stop` that match."""
        raw = self._file.raw(start, stop)
        texts = self._file.lines(start, stop - start) if raw is None else self._texts(raw)
        return [start + at for at, text in enumerate(texts[: stop - start]) if self.pattern.matches(text[:WIDTH])]

    def _texts(self, raw: bytes) -> Sequence[str]:
        """Lines as they are shown, or none if none of them can match."""
        block = raw.decode("utf-8", "replace")
        if raw.isascii() and len(raw.translate(None, CONTROLS)) == len(raw):  # the usual case, told apart quickly
            clean = True
        else:
            block = ESCAPES.sub("", block.replace("\r\n", "\n"))
            clean = block.replace("\n", "").isprintable()
        if not clean:
            return [shown(line[:LONG], line[-LONG:], len(line)) for line in raw.split(b"\n")]
        return block.split("\n") if self._plain in block.casefold() else ()
