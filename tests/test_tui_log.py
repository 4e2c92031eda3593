"""The log pane, and the reading of a log that may grow, be replaced, hold anything, and be larger than the memory."""

from __future__ import annotations

import os
import random
import resource
import time
from pathlib import Path
from typing import ClassVar

import pytest
from dashboard import SIZES, Watched, made, screen_text, until
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.pilot import Pilot
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Input

from trainctl.errors import MachineError, UsageError
from trainctl.tui import keys
from trainctl.tui.feed import log
from trainctl.tui.feed.log import LogFile, Page, Search
from trainctl.tui.feed.pattern import Pattern
from trainctl.tui.screens.run import RunScreen
from trainctl.tui.themes import THEMES
from trainctl.tui.widgets import log as pane
from trainctl.tui.widgets.log import LogView
from trainctl.tui.widgets.log_lines import LogLines
from trainctl.tui.widgets.runs import RunsTable


def paged(file: LogFile, first: int | None = None, count: int = 100) -> Page:
    """The page that one question gives."""
    page = file.page(first, count)
    assert page is not None
    return page


def opened(path: Path) -> LogFile:
    """A file whose lines are all counted."""
    file = LogFile(path)
    while not file.grow(1.0):
        pass
    return file


def hits(search: Search) -> tuple[int | None, int, int]:
    while search.step().share < 1:
        pass
    return search.found.line, search.found.rank, search.found.lines


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"1%\r2%\nx\r\n", ["2%", "x"]),
        (b"abcdef\rxy\n", ["xycdef"]),
        (b"abcdef\r\x1b[Kxy\nlong\r\x1b[2Ks\n", ["xy", "s"]),
        (b"\x1b[1mbold\x1b[0m\x07\n", ["bold\\x07"]),
        (b"\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x1b(B\n", ["link"]),
        (b"[red]no markup[/red] \x9b31m\n", ["[red]no markup[/red] �31m"]),
        ("naïve \u202e 漢字 \u2028\n".encode(), ["naïve \\u202e 漢字 \\u2028"]),
        (b"a\tb\x00\n", ["a       b\\x00"]),
        (b"\xff\xfe\n\xc3\n", ["��", "�"]),
        (b"", [""]),
    ],
)
def test_a_log_is_read_as_a_terminal_would_show_it(tmp_path: Path, data: bytes, expected: list[str]) -> None:
    assert log.lines(data) == expected
    (tmp_path / "log").write_bytes(data)
    assert list(paged(LogFile(tmp_path / "log")).lines) == expected * bool(data)


@pytest.mark.parametrize(
    ("torn", "shown"), [(b"half a li", "half a li"), (b"caf\xc3", "caf"), (b"5%\r\x1b[3", "5%"), (b"x\x1b", "x")]
)
def test_a_line_that_is_being_written_is_shown_without_what_is_torn(tmp_path: Path, torn: bytes, shown: str) -> None:
    (tmp_path / "log").write_bytes(b"first\n" + torn)
    assert paged(LogFile(tmp_path / "log")).lines == ("first", shown)


def test_long_lines_are_cut_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "log"
    bar = b"".join(b"\r%5d/99999 |####   |" % step for step in range(5000))
    path.write_bytes(b"x" * 4096 + b"\n" + b"y" * 4097 + b"\n" + b"\0" * 100_000 + b"\n" + bar + b"\nlast\n")
    exact, cut, zeros, drawn, last = paged(LogFile(path)).lines
    assert exact == "x" * 4096
    assert cut == "y" * 4096 + " … cut here: this line has 4,097 bytes"
    assert zeros == "\\x00" * 1024 + " … cut here: this line has 100,000 bytes"
    assert (drawn, last) == (" 4999/99999 |####   |", "last")
    path.write_bytes(bar)  # while the bar is being drawn
    assert paged(LogFile(path)).lines == (" 4999/99999 |####   |",)


@pytest.mark.parametrize("seed", range(4))
def test_any_part_of_any_file_is_what_splitting_it_gives(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With chunks of a few bytes, so that lines begin and end at all places in them; counted in small steps."""
    monkeypatch.setattr(log, "CHUNK", 16)
    monkeypatch.setattr(log, "BLOCK", 3)
    chance = random.Random(seed)
    texts = ["z" * chance.choice([0, 0, 1, 5, 15, 16, 17, 40, 100]) + str(n) * (n % 3 > 0) for n in range(200)]
    data = "\n".join(texts) + "\n" * (seed % 2)
    path = tmp_path / "log"
    path.write_text(data)
    every = tuple(data.removesuffix("\n").split("\n"))
    file = LogFile(path)
    while not file.grow(0.0):  # the end is there from the beginning, and keeps its text while its numbers grow
        assert file.lines(0, 10**6)[1:] == every[len(every) - file.count + 1 :]
    assert file.count == len(every)
    for _ in range(200):
        first, count = chance.randrange(len(every)), chance.randrange(30)
        assert file.lines(first, count) == every[first : first + count]


def test_the_end_is_shown_at_once_and_numbers_follow_when_all_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %d\n" % n for n in range(200_000)))  # 2.5 MB
    monkeypatch.setattr(log, "BUDGET", 0.0)
    monkeypatch.setattr(log, "BLOCK", 1)
    file = LogFile(path)
    page = paged(file, None, 3)
    assert page.lines == ("line 199997", "line 199998", "line 199999")
    assert page.counted < 0.2
    monkeypatch.setattr(log, "BUDGET", 1.0)
    after = paged(file, page.first, 3)
    assert (after.counted, after.count, after.lines) == (1.0, 200_000, page.lines)
    assert after.first == page.first + after.shift == 199_997
    assert file.page(after.first, 3) is None  # nothing new


def test_a_file_that_grows_is_replaced_or_written_anew_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(path)
    assert (paged(file).count, file.page(None, 100)) == (0, None)
    path.write_text("one\ntw")
    assert paged(file).lines == ("one", "tw")
    with open(path, "a") as writing:
        writing.write("o\nthree\n")
    page = paged(file)
    assert page.lines == ("one", "two", "three")
    path.write_text("anew\n")  # shorter
    anew = paged(file)
    assert (anew.lines, anew.generation > page.generation) == (("anew",), True)
    (tmp_path / "other").write_text("anew\nelse\n")
    (tmp_path / "other").replace(path)
    other = paged(file)
    assert (other.lines, other.generation > anew.generation) == (("anew", "else"), True)
    path.write_text("not what stood there before\nand longer\n")
    assert paged(file).lines == ("not what stood there before", "and longer")
    path.unlink()
    assert paged(file).count == 0


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot read .*log: no regular file"):
        (tmp_path / "log").mkdir()
        LogFile(tmp_path / "log").page(None, 1)


def test_ten_thousand_lines_a_second_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    file, spent = LogFile(path), 0.0
    with open(path, "a") as writing:
        for question in range(1, 6):  # the lines of half a second between two questions
            writing.write("".join(f"line {n} of many that are written\n" for n in range(5000)))
            writing.flush()
            start = time.perf_counter()
            page = paged(file, None, 150)
            spent += time.perf_counter() - start
            assert (page.count, page.lines[-1]) == (5000 * question, "line 4999 of many that are written")
    assert spent < 1.0  # of 2.5 s; 0.03 s where nothing else runs


def test_a_search_goes_round_in_both_directions(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"Needle %d\n" % n if n % 5000 == 7 else b"straw %d\n" % n for n in range(20_000)))
    file = opened(path)  # 7, 5007, 10007, 15007
    assert hits(Search(file, Pattern("needle"), 0)) == (7, 1, 4)
    assert hits(Search(file, Pattern("needle"), 5007)) == (5007, 2, 4)
    assert hits(Search(file, Pattern("NEEDLE"), 5008)) == (10_007, 3, 4)
    assert hits(Search(file, Pattern("needle"), 15_008)) == (7, 1, 4)
    assert hits(Search(file, Pattern("needle"), 20_000)) == (7, 1, 4)
    assert hits(Search(file, Pattern("needle"), 15_006, backwards=True)) == (10_007, 3, 4)
    assert hits(Search(file, Pattern("needle"), 6, backwards=True)) == (15_007, 4, 4)
    assert hits(Search(file, Pattern("needle"), -1, backwards=True)) == (15_007, 4, 4)
    assert hits(Search(file, Pattern("/^n.*7$/"), 8)) == (5007, 2, 4)
    assert hits(Search(file, Pattern("straw 19999"), 3)) == (19_999, 1, 1)
    assert hits(Search(file, Pattern("s.raw"), 0)) == (None, 0, 0)
    search = Search(file, Pattern("needle"), 0)
    assert not search.go(7, backwards=False)  # not all are known yet
    hits(search)
    assert [search.go(7, backwards=False), search.found.line] == [True, 5007]
    assert [search.go(7, backwards=True), search.found.line] == [True, 15_007]
    assert [search.go(15_007, backwards=False), search.found.line] == [True, 7]
    with pytest.raises(UsageError, match=r"/\(/ cannot be read"):
        Search(file, Pattern("/(/"), 0)


NEVER = "/(x+x+)+y/"  # `re` tries every way to part the x


def test_no_pattern_takes_for_ever() -> None:
    began = time.process_time()
    assert not Pattern(NEVER).matches("x" * 4096)
    assert Pattern(NEVER).spans("axxyXXXY") == [(1, 4), (4, 8)]
    for typed in ("/((a{1000}){1000}){1000}/", "/" + "(" * 5000 + "/", "/a(?=b)/", "/\udcff/"):
        with pytest.raises(UsageError, match=r"cannot be read") as caught:
            Pattern(typed)
        assert "b'" not in str(caught.value) and "as it stands" in caught.value.hint
    assert time.process_time() - began < 5


@pytest.mark.parametrize("backwards", [False, True])
def test_lines_are_searched_as_they_are_shown(tmp_path: Path, backwards: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "CHUNK", 64)
    path = tmp_path / "log"
    pieces = ["loss", "LO\x1b[1mSS", "lo\rss", "x\rloss", "los\x07s", "löss\t", "", "l" * 90, "lo\nss", "ſ", "\x1b[3"]
    chance = random.Random(1)
    path.write_text("".join(chance.choice(pieces) + chance.choice(["", " ", "\n", "\r\n"]) for _ in range(600)))
    file = opened(path)
    every = file.lines(0, file.count)
    for typed in ("loss", "ss", "lo", "\\x07", "Ö", "/^lo?s/", "/l{90}/"):
        expected = [n for n, line in enumerate(every) if Pattern(typed).spans(line)]
        assert expected
        first = chance.randrange(file.count)
        inside = [n for n in expected if (n <= first if backwards else n >= first)] or expected
        line = inside[-1 if backwards else 0]
        found = hits(Search(file, Pattern(typed), first, backwards=backwards))
        assert found == (line, expected.index(line) + 1, len(expected))


def test_a_search_can_be_left_and_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_text("yes\n" * 50_000)
    file = opened(path)
    search = Search(file, Pattern("yes"), 0)
    first = search.step(0.0)
    assert (first.line, first.share < 1) == (0, True)  # a piece at a time
    monkeypatch.setattr(log, "MATCHES", 1000)
    assert hits(Search(file, Pattern("yes"), 3)) == (3, 1, 1000)
    path.write_text("another\n")
    file.grow(1.0)
    assert search.step().share == 1  # the lines it was looking through are no more


@pytest.mark.slow
def test_a_file_of_a_gigabyte(tmp_path: Path) -> None:
    """Times of the processor, ten times those of a quiet machine."""
    path = tmp_path / "log"
    line = b"epoch %5d  step %6d  loss 0.%05d  of a run that has been at work for days\n"
    block = b"".join(line % (n, n, n) for n in range(14_000))
    blocks = (1 << 30) // len(block) + 1
    try:
        with open(path, "wb") as writing:
            for _ in range(blocks):
                writing.write(block)
            writing.write(b"the end")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        file, start = LogFile(path), time.process_time()
        assert paged(file).lines[-1] == "the end"
        assert time.process_time() - start < 0.6
        while not file.grow(0.05):
            pass
        assert time.process_time() - start < 15
        assert file.count == 14_000 * blocks + 1
        assert file.lines(14_000 * (blocks // 2), 1)[0].startswith("epoch     0  step      0 ")
        assert Search(file, Pattern("days"), file.count - 2, backwards=True).step().line == file.count - 2
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 20 * 1024  # KiB
        os.truncate(path, 0)
        os.truncate(path, 1 << 30)  # a hole: one line of zeros
        start = time.process_time()
        while (page := paged(file)).counted < 1:
            pass
        assert time.process_time() - start < 15
        assert page.lines[0].endswith("cut here: this line has 1,073,741,824 bytes")
        assert hits(Search(file, Pattern("days"), 0))[2] == 0
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    finally:
        path.unlink()


class Shown(App[None]):
    """A log pane and nothing else."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "left", "Leave")]

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.low_bandwidth = path, False
        self.left: list[str] = []
        self.told: list[str] = []
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def compose(self) -> ComposeResult:
        yield LogView(id="printed")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        view = self.query_one(LogView)
        view.open(self.path)
        view.focus()

    def action_left(self) -> None:
        self.left.append("left")

    def notify(self, message: str, **_: object) -> None:  # type: ignore[override]
        self.told.append(message)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often, so that tests wait less."""
    monkeypatch.setattr(pane, "PERIOD", 0.1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of 2000 lines and some that are hard to show."""
    path = tmp_path / "stdout.log"
    path.write_text(
        "".join(f"line {n} {'mark' if n % 500 == 7 else ''}\n" for n in range(2000))
        + "[bold]no[/bold] \x1b[31mred\x1b[0m \x07\n10%\r100%\n"
        "RuntimeError: nan\nUserWarning: slow\n\x00\x00\nhalf a li"
    )
    return path


def place(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query_one(".log-place").render()).strip()


def found(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query_one(".log-found").render()).strip()


def rows(pilot: Pilot[None]) -> list[str]:
    """The log on the screen, without the scrollbar, the bar and the footer."""
    return [row.rstrip("▁▂▃▄▅▆▇█ ").strip() for row in screen_text(pilot).split("\n")[:-2]]


def top(pilot: Pilot[None]) -> str:
    return rows(pilot)[0]


def bottom(pilot: Pilot[None]) -> str:
    return rows(pilot)[-1]


@SIZES
async def test_the_end_is_followed_until_one_scrolls_up(path: Path, size: tuple[int, int]) -> None:
    async with Shown(path).run_test(size=size) as pilot:
        await until(pilot, lambda: bottom(pilot) == "half a li")
        shown = screen_text(pilot)
        for text in ("[bold]no[/bold] red \\x07", " 100%", "\\x00\\x00"):
            assert text in shown
        assert all(len(line) <= size[0] for line in shown.split("\n"))
        height = size[1] - 2
        assert place(pilot) == f"line 1 {1007 - height}–2 006 of 2 006 · following"
        with open(path, "a") as file:
            file.write("ne\nadded\n")
        await until(pilot, lambda: bottom(pilot) == "added")
        await pilot.press("up")
        await until(pilot, lambda: "f follows" in place(pilot))
        before = top(pilot)
        with open(path, "a") as file:
            file.write("more\n" * 300)
        await until(pilot, lambda: "of 2 307 · f follows" in place(pilot))
        assert (top(pilot), bottom(pilot)) == (before, "half a line")
        await pilot.press("home")
        await until(pilot, lambda: top(pilot) == "line 0")
        assert place(pilot) == f"line 1–{height} of 2 307 · f follows"
        await pilot.press("pagedown", "down")
        await until(pilot, lambda: top(pilot) == f"line {height + 1}")
        await pilot.press("end")
        await until(pilot, lambda: bottom(pilot) == "more" and "following" in place(pilot))
        await pilot.press("up", "down")
        await until(pilot, lambda: "following" in place(pilot))


@SIZES
async def test_matches_are_found_by_keys(path: Path, size: tuple[int, int]) -> None:
    app = Shown(path)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: bottom(pilot) == "half a li")
        await pilot.press("n")  # nothing was looked for: it asks what
        assert isinstance(app.focused, Input)
        await pilot.press(*"MARK", "enter")  # in any case
        await until(pilot, lambda: found(pilot) == "“MARK”: match 1 of 4 · n/N")
        await until(pilot, lambda: "line 7 mark" in screen_text(pilot))
        for key, rank, line in (("n", 2, 507), ("N", 1, 7), ("N", 4, 1507), ("n", 1, 7)):
            await pilot.press(key)
            await until(pilot, lambda rank=rank: f"match {rank} of 4" in found(pilot))
            await until(pilot, lambda line=line: f"line {line} mark" in screen_text(pilot))
        here = app.query_one(LogLines)
        styles = {segment.text: segment.style for _, strip in here.rows() for segment in strip}
        assert styles["mark"] is not None
        assert styles["mark"].reverse  # without colour too
        await pilot.press("escape")
        await until(pilot, lambda: found(pilot) == "")
        assert app.left == []
        await pilot.press("escape")
        assert app.left == ["left"]
        typed = app.query_one(Input)
        await pilot.press("slash")
        typed.value = "/[/"
        await pilot.press("enter")
        await until(pilot, lambda: "/[/ cannot be read: missing ]: [" in found(pilot))
        assert place(pilot) == ""  # the mistake has all the room
        assert isinstance(app.focused, Input)
        typed.value = "nothing like it"
        await pilot.press("enter")
        await until(pilot, lambda: found(pilot) == "“nothing like it”: no match")
        assert app.focused is here
        path.write_text("anew\n")
        await until(pilot, lambda: found(pilot) == "" and top(pilot) == "anew")
        assert app.told == []


async def test_long_lines_scroll_sideways_or_wrap(tmp_path: Path) -> None:
    path = tmp_path / "log"
    texts = [f"<{n}" + "-" * (n * 37 % 400) + f"{n}>" for n in range(30)]
    path.write_text("\n".join(texts) + "\n" + "x" * 300 + "needle\n")
    app = Shown(path)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "of 31 · following" in place(pilot))
        await pilot.press("home")
        app.query_one(LogView).search("needle")
        await until(pilot, lambda: bottom(pilot).endswith("xneedle"))
        before = bottom(pilot)
        await pilot.press("escape", "left", "left")
        assert bottom(pilot) == "xx" + before
        await pilot.press("w", "home")
        await until(pilot, lambda: top(pilot) == "<00>")
        seen = "".join(rows(pilot))
        for _ in range(30):
            await pilot.press("down")
            seen += "".join(rows(pilot))
        assert [text for text in texts if text not in seen] == []
        assert "following" in place(pilot)
        assert bottom(pilot).endswith("needle")
        await pilot.press("up")
        assert "f follows" in place(pilot)
        await pilot.resize_terminal(100, 30)
        await pilot.press("w", "f")
        await until(pilot, lambda: bottom(pilot).startswith("xxx") and "following" in place(pilot))


async def test_a_line_that_goes_on_out_of_sight_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * 30 + " 29.345\n" + "short\n" + "y" * 35 + "\n")
    app = Shown(path)
    async with app.run_test(size=(36, 24)) as pilot:  # 33 characters without the margins and the scrollbar
        await until(pilot, lambda: top(pilot).startswith("x"))
        assert [row.rstrip() for row in rows(pilot)[:3]] == ["x" * 30 + " 2…", "short", "y" * 32 + "…"]
        lines = app.query_one(LogLines)
        await until(pilot, lambda: lines.max_scroll_x >= 2)
        lines.scroll_to(x=2, force=True)
        await until(pilot, lambda: top(pilot).endswith("29.…"))
        assert rows(pilot)[2] == "y" * 33
        await pilot.press("w")
        await until(pilot, lambda: "…" not in "".join(rows(pilot)))


async def test_nothing_is_read_while_the_pane_is_hidden(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    real = LogFile.page

    def counting(self: LogFile, first: int | None, count: int) -> Page | None:
        asked.append(time.monotonic())
        return real(self, first, count)

    monkeypatch.setattr(LogFile, "page", counting)
    app = Shown(path)

    async def more(pilot: Pilot[None]) -> bool:
        """Whether it is asked within some periods, after what was under way has ended."""
        await pilot.pause(0.15)
        before = len(asked)
        await pilot.pause(0.35)
        return len(asked) > before

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bottom(pilot) == "half a li")
        assert await more(pilot)
        app.push_screen(Screen())
        assert not await more(pilot)
        with open(path, "a") as file:
            file.write("\nmeanwhile")
        app.pop_screen()
        await until(pilot, lambda: bottom(pilot) == "meanwhile")
        app.push_screen(ModalScreen())  # lets it be seen
        assert await more(pilot)
        app.pop_screen()
        app.query_one(LogView).display = False
        assert not await more(pilot)
        app.query_one(LogView).display = True
        assert await more(pilot)
        app.low_bandwidth = True
        await pilot.pause(0.15)
        del asked[:]
        await pilot.pause(0.8)
        assert len(asked) <= 1


async def test_silence_and_what_cannot_be_read_are_said(tmp_path: Path) -> None:
    app = Shown(tmp_path / "log")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: top(pilot) == "It has printed nothing yet.")
        (tmp_path / "log").write_text("now\n")
        await until(pilot, lambda: top(pilot) == "now")
        (tmp_path / "log").unlink()
        await until(pilot, lambda: top(pilot) == "It has printed nothing yet.")
        (tmp_path / "log").mkdir()
        await until(pilot, lambda: app.told != [])
        await pilot.pause(0.3)
        assert app.told == [f"cannot read {tmp_path / 'log'}: no regular file\nsee who may read it"]


async def test_errors_and_warnings_have_the_colours_of_the_theme(path: Path) -> None:
    app = Shown(path)
    async with app.run_test(size=(80, 24)) as pilot:
        lines = app.query_one(LogLines)

        def color(text: str) -> object:
            return next(s.style and s.style.color for _, strip in lines.rows() for s in strip if s.text == text)

        await until(pilot, lambda: "UserWarning: slow" in screen_text(pilot))
        dark = [color(text) for text in ("half a li", "RuntimeError: nan", "UserWarning: slow")]
        assert len(set(dark)) == 3
        app.theme = THEMES[1].name
        await until(pilot, lambda: color("RuntimeError: nan") not in dark)


async def test_the_log_of_a_run_is_followed_and_searched(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    app = Watched(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(app.screen.query(RunsTable)) == 1)
        app.push_screen(RunScreen(home, "atwork"))
        await until(pilot, lambda: "validation" in screen_text(pilot))
        await pilot.press("2")
        await until(pilot, lambda: "[bold]loss[/bold] 0.5" in screen_text(pilot))
        await until(pilot, lambda: "line 1–3 of 3 · following" in screen_text(pilot))
        with open(home.run("atwork").log, "a") as file:
            file.write("".join(f"number {number}\n" for number in range(50)) + "half a li")
        await until(pilot, lambda: "half a li" in screen_text(pilot))
        await pilot.press("slash", *"first", "enter")
        await until(pilot, lambda: "“first”: match 1 of 1" in screen_text(pilot) and "first line" in screen_text(pilot))
        await pilot.press("n")  # the next match here, not a note
        assert isinstance(app.screen, RunScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, RunScreen)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, RunScreen))


def test_the_last_lines_are_those_that_say_something(tmp_path: Path) -> None:
    assert log.last_lines(tmp_path / "log", 2) == ()
    (tmp_path / "log").write_text("x" * 9000 + "\none\n\ntwo\r2\n \nthr")
    assert log.last_lines(tmp_path / "log", 2) == ("2wo", "thr")
    assert log.last_lines(tmp_path / "log", 9) == ("one", "2wo", "thr")


def test_the_keys_of_the_pane_stand_in_the_table() -> None:
    rows = [key for key in keys.KEYS if key.action.startswith("log(")]
    assert {key.keys for key in rows} == {"slash", "n", "N", "f", "w"}
    assert all(key.place == keys.RUN and key.help.startswith("Log: ") for key in rows)
