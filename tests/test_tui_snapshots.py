"""Every screen as a picture, compared with the one that was looked at last: see __snapshots__/."""

from __future__ import annotations

import difflib
import html
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard import opened
from gallery import LIVE, Stop, fill, go, keys_table, still, taken
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.image import SVGImageSnapshotExtension

from trainctl.home import Home
from trainctl.tui import settings
from trainctl.tui.app import Dashboard

CELL = 12.2  # units of an SVG that a character is wide
TOUR = (
    Stop("runs", (), "epoch 12/20", run=LIVE),
    Stop("columns", ("o",), "enter takes it"),
    Stop("confirm", ("escape", "D"), "There is no way back"),
    Stop("prompt", ("escape", "n"), "does TRAIN help"),
    Stop("filter", ("escape", "slash"), "^", typed="natural>>96"),
    Stop("help", ("escape", "question_mark"), "Everywhere"),
    Stop("grouped", ("escape", "g", "g", "g"), "in groups: all but the seed"),
    Stop("launch-recipe", ("g", "l"), "TRADES (Zhang"),
    Stop("launch-settings", ("enter", "p"), "2 runs"),
    Stop("launch-start", ("ctrl+s",), "nothing has started yet"),
    Stop("machine", ("escape", "escape", "escape", "m"), "Waiting (2)"),
    Stop("run-curves", ("enter",), "dashed: base"),
    Stop("run-log", ("2",), "following"),
    Stop("run-recipe", ("3",), "[standard]"),
    Stop("run-system", ("5",), "packages"),
    Stop("run-results", ("p", "4"), "the beginning"),
    Stop("compare", ("escape", "escape", "escape", "c"), "Δ"),
    Stop("compare-seeds", ("down", "enter"), "seed 1"),
    Stop("compare-curves", ("2",), "━ +TRAIN"),
    Stop("compare-price", ("3",), "ratio"),
    Stop("export", ("1", "e"), "Export what is shown"),
)
SHORT = (  # on the smallest terminal
    Stop("runs", (), "epoch 12/20", run=LIVE),
    Stop("run-curves", ("enter",), "dashed: base"),
    Stop("compare", ("escape", "c"), "Δ"),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with monkeypatch.context() as patch:
        yield fill(still(patch, tmp_path))
    time.tzset()


@pytest.mark.parametrize(
    ("theme", "size", "tour"),
    [
        pytest.param("trainctl-dark", (120, 40), TOUR, id="dark"),
        pytest.param("trainctl-light", (120, 40), TOUR, id="light"),
        pytest.param("trainctl-dark", (80, 24), SHORT, id="small"),
    ],
)
async def test_every_screen_looks_as_it_did(
    home: Home, tmp_path: Path, snapshot: SnapshotAssertion, theme: str, size: tuple[int, int], tour: tuple[Stop, ...]
) -> None:
    settings.save(home, settings.Settings(theme=theme))
    snapshot = snapshot.use_extension(SVGImageSnapshotExtension)
    wrong = []
    async with Dashboard(home).run_test(size=size) as pilot:
        await opened(pilot, len(home.run_dirs()))
        for stop in tour:
            await go(pilot, stop)
            picture = await taken(pilot)
            assert str(tmp_path) not in picture
            if picture != snapshot(name=stop.name):
                result = list(snapshot.executions.values())[-1]
                actual = tmp_path / f"{stop.name}.svg"
                actual.write_text(picture)
                wrong.append(difference(Path(result.snapshot_location), (result.recalled_data or b"").decode(), actual))
    assert not wrong, "\n\n".join(wrong)


def difference(expected: Path, before: str, actual: Path) -> str:
    """What is another than it was, in words, and where both pictures lie."""
    places = f"  it was   {expected}\n  it is    {actual}"
    if not before:
        return f"there is no picture of this screen yet. Look at it, then --snapshot-update keeps it.\n{places}"
    lines = list(difflib.unified_diff(text_of(before), text_of(actual.read_text()), lineterm="", n=0))[2:]
    said = "\n".join(lines) or "the text is the same; colours or styles are not"
    return f"this screen looks different. If it is meant to, --snapshot-update keeps it.\n{places}\n{said}"


def text_of(picture: str) -> list[str]:
    """The characters of an SVG line by line, each in its column."""
    lines: dict[float, str] = {}
    for x, y, text in re.findall(r'<text [^>]*?x="([\d.]+)" y="([\d.]+)" textLength[^>]*>([^<]*)</text>', picture):
        line = lines.get(float(y), "")
        lines[float(y)] = line.ljust(round(float(x) / CELL)) + html.unescape(text).replace("\xa0", " ")
    return [lines[y].rstrip() for y in sorted(lines)]


def test_the_page_lists_the_keys() -> None:
    page = (Path(__file__).parent.parent / "docs" / "dashboard.md").read_text()
    assert f"\n{keys_table()}\n" in page, "the keys have changed: `python benchmarks/screens.py` writes the page anew"
