"""What the runs screen asks and writes, without a screen: windows, mistakes of filters, cells, widths of columns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dashboard import crowd, made
from folders import append, make_run

from trainctl.home import Home
from trainctl.registry import ingest, selection
from trainctl.registry.watch import Watch
from trainctl.registry.window import View
from trainctl.tui import columns, text
from trainctl.tui.feed.runs import Question, Row, RunsFeed, key, thinned

FIRST = Question(View(), 0, 60, 0, "", False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


def test_names_notes_and_tags_cannot_steer_the_terminal(tmp_path: Path) -> None:
    home = Home(tmp_path)
    evil = "\x1b[31m[red]x\ny\tz\u202e"
    run = make_run(home, "evil", name=evil)
    run.write_json("labels.json", {"note": evil, "tags": [evil]})
    answer = RunsFeed(home, Watch(home)).overview(FIRST)
    assert answer is not None
    for of in columns.COLUMNS.values():
        written = of.cell(answer.lines[0], columns.Look(now=2000.0)).plain
        assert written.isprintable()
    note = columns.COLUMNS["note"].cell(answer.lines[0], columns.Look())
    assert "[31m[red]x" in note.plain and not note.spans


def test_an_answer_that_would_be_the_same_is_not_given(home: Home) -> None:
    feed = RunsFeed(home, Watch(home))
    first = feed.overview(FIRST)
    assert first is not None
    asked = replace(FIRST, anchor=key(first.lines[0]))
    assert feed.overview(asked) is not None
    while feed.overview(asked) is not None:  # the second look reads all folders, which may find something
        pass
    assert feed.overview(asked) is None
    assert feed.overview(replace(asked, at=1, anchor="atwork")) is not None


def test_the_window_moves_with_the_run_under_the_cursor(tmp_path: Path) -> None:
    home = crowd(Home(tmp_path), 200)
    feed = RunsFeed(home, Watch(home))
    asked = replace(FIRST, offset=90, size=20, at=99, anchor="q0100")
    answer = feed.overview(asked)
    assert answer is not None and answer.at == 99 and key(answer.lines[9]) == "q0100"
    other = feed.overview(replace(asked, view=View(sort="created")))
    assert other is not None and other.at == 100
    far = feed.overview(replace(asked, offset=0, at=5))
    assert far is not None and far.at == 99
    assert key(far.lines[far.at - far.window.offset]) == "q0100"
    gone = feed.overview(replace(asked, view=View(filtered="seed<10")))
    assert gone is not None and (gone.at, len(gone.lines), gone.window.fitting) == (0, 10, 10)


def test_a_mistake_in_a_filter_says_where_and_keeps_the_last_that_was_right(home: Home) -> None:
    feed = RunsFeed(home, Watch(home))
    right = feed.overview(replace(FIRST, view=View(filtered="seed=1")))
    assert right is not None and right.mistake is None and len(right.lines) == 2
    for written, at, said in (
        ("seed=1 adn", 7, "expected `and`"), ("sed=1", 0, "unknown field 'sed'"), ("nosuch", None, "there is no run"),
        ("aa>", 3, "expected a value"), ("tag:nosuch", None, "tag"),
    ):  # fmt: skip
        answer = feed.overview(replace(FIRST, view=View(filtered=written)))
        assert answer is not None and answer.mistake is not None
        assert answer.mistake.at == at
        assert said in answer.mistake.text
        assert len(answer.lines) == 2
    assert len(feed.ids(View(filtered="nosuch"))) == 2


def test_damaged_folders_do_not_stop_the_others(home: Home) -> None:
    (home.run("base0").path / "recipe.toml").write_bytes(b"\xff\x00 = [")
    home.run("base1").events.write_bytes(b"{nonsense\n" + json.dumps({"event": "epoch", "epoch": "x"}).encode() + b"\n")
    home.run("train0").log.write_bytes(b"\xff\xfe\x00" * 10)
    feed = RunsFeed(home, Watch(home))
    for number, run in enumerate(("waiting", "atwork", "train1", "train0", "base1", "base0")):
        answer = feed.overview(replace(FIRST, at=number, anchor=run, curves=True))
        assert answer is not None and len(answer.lines) == 6
        assert answer.selected is not None and key(answer.selected) == run


def test_the_curve_is_the_accuracy_that_chooses_thinned_to_its_room(home: Home) -> None:
    answer = RunsFeed(home, Watch(home)).overview(replace(FIRST, curves=True))
    assert answer is not None
    curve = {line.run.id: line.curve for line in answer.lines if isinstance(line, Row)}
    assert curve["base0"] == (83.0, 84.0, 85.0)
    assert curve["waiting"] == ()
    values = [float(number) for number in range(25)]
    assert thinned(values, 10)[:2] == (0.5, 3.0)
    assert sum(thinned(values, 5)) == 5 * 12.0
    assert thinned(values[:3], 10) == (0.0, 1.0, 2.0)
    assert thinned([], 10) == ()


def test_a_curve_is_robust_before_natural_and_without_what_is_no_number(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for run, metrics in (("robust", ("test_natural", "test_pgd20")), ("plain", ("validation_natural",)), ("none", ())):
        folder = make_run(home, run, status="running")
        folder.events.write_bytes(b"")
        values = [1.0, float("nan"), 3.0]
        log = [
            ("epoch", {"epoch": n, "step": n, **{name: values[n] + len(name) for name in metrics}}) for n in range(3)
        ]
        append(folder, log, 2000.0)
    ingest.refresh(home)
    found = selection.curves(home, ["robust", "plain", "none", "nosuch"])
    assert found == {"robust": (11.0, 13.0), "plain": (19.0, 21.0)}


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, "▱▱▱▱▱"), (0.001, "▰▱▱▱▱"), (0.5, "▰▰▱▱▱"), (0.999, "▰▰▰▰▱"), (1.0, "▰▰▰▰▰")]
)
def test_a_bar_is_full_only_at_the_end(share: float, expected: str) -> None:
    assert text.bar(share, 5) == expected


def test_numbers_are_written_short() -> None:
    durations = (5, 725, 3 * 3600 + 40 * 60, 53 * 3600, 400 * 86400)
    assert [text.short_duration(s) for s in durations] == ["0:05", "12:05", "3h40", "2d05h", "400d"]
    ages = (-3, 40, 720, 3 * 3600, 5 * 86400, 100 * 86400, 3 * 31557600)
    assert [text.age(s) for s in ages] == ["0 s", "40 s", "12 min", "3 h", "5 d", "3 mo", "3 y"]
    assert text.sparkline((1.0, 2.0, 3.0)) == "▁▄▇"
    assert text.sparkline((2.0, 2.0)) == "▄▄"
    assert text.sparkline(()) == ""
    assert [text.spread(95.04, std) for std in (None, 0.26)] == ["95.0", "95.0±0.3"]


def test_columns_go_by_importance_or_from_the_end() -> None:
    default = columns.chosen(())
    needed = {of.key: 8 for of in default} | {"name": 40}
    everything = columns.fitted(default, needed, 400, default=True)
    assert list(everything) == list(columns.DEFAULT) and everything["name"] == 40
    narrow = columns.fitted(default, needed, 80, default=True)
    assert set(columns.DEFAULT) - set(narrow) == set(columns.FIRST_TO_GO[: len(columns.DEFAULT) - len(narrow)])
    assert narrow["name"] >= 16 and sum(narrow.values()) + columns.GAP * len(narrow) <= 80
    picked = columns.chosen(("id", "note", "nosuch", "name", "aa"))
    assert [of.key for of in picked] == ["id", "note", "name"]
    few = columns.fitted(picked, {"id": 8, "note": 30, "name": 40}, 42, default=False)
    assert list(few) == ["id", "note"]
    assert list(columns.fitted(picked, {"id": 8, "note": 30, "name": 40}, 3, default=False)) == ["id"]
