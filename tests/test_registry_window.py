"""The table of runs from SQL: the same runs as the command line means, in a definite order, and any part of it."""

from __future__ import annotations

import itertools
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from folders import PGD, append, evaluation, make_run

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.registry import filters, ingest, query, select
from trainctl.registry.groups import GroupLine, spread
from trainctl.registry.query import RunRow
from trainctl.registry.window import Table, View


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that no test changes."""
    home = Home(tmp_path_factory.mktemp("home"))
    for seed, (natural, pgd) in enumerate([(95.0, 53.0), (96.0, 51.0), (94.0, float("nan"))]):
        numbers: dict[str, Any] = {"seed": seed, "metrics": {"natural": natural, "pgd20": pgd}}
        make_run(home, f"base{seed}", created=1000.0 + seed, tags=["demo"], **numbers)
        make_run(home, f"train{seed}", topology=True, created=2000.0 + seed, **numbers)
    other = {"metrics": {"natural": 99.0, "pgd20": 20.0}, "recipe_table": {"optim": {"lr": 0.25}}}
    make_run(
        home, "Zulu", method="standard", name="odd=1", recipe_name="x", group="g", pair="", created=1000.0, **other
    )
    make_run(home, "young", status="queued", created=3000.0, group="q", pair="q", name="Alpha-s0")
    make_run(home, "atwork", status="running", created=3001.0, group="w", pair="w", epochs=9)
    make_run(home, "failed", status="failed", created=900.0, group="w", pair="w", metrics={})
    make_run(home, "away", created=500.0, tags=["demo"]).write_json("labels.json", {"tags": ["demo"], "archived": True})
    make_run(home, "undated").write_json("run.json", {"id": "undated"})
    ingest.refresh(home)
    return home


@pytest.fixture
def home(kept: Home, tmp_path: Path) -> Home:
    """A copy to change."""
    shutil.copytree(kept.path, tmp_path / "home")
    ingest.refresh(Home(tmp_path / "home"))  # a copied file is another file
    return Home(tmp_path / "home")


def ordered(rows: list[RunRow], sort: str) -> list[str]:
    """The order that a view promises, in plain Python."""
    name, descending = sort.removeprefix("-"), sort.startswith("-")

    def value(row: RunRow) -> Any:
        found = vars(row)[name] if name in query.COLUMNS else row.metrics.get(name)
        return found.lower() if isinstance(found, str) else found

    newest = sorted(rows, key=lambda row: (row.created if row.created is not None else -1.0, row.id), reverse=True)
    having = [row for row in newest if value(row) not in (None, "")]
    having.sort(key=value, reverse=descending)
    return [row.id for row in having] + [row.id for row in newest if row not in having]


SORTS = (
    "-created", "created", "name", "-name", "-natural", "pgd20", "status", "-seed", "-topology", "pair", "-finished",
    "epoch", "note", "never-heard-of",
)  # fmt: skip


@pytest.mark.parametrize("sort", SORTS)
def test_the_order_and_every_part_of_it(kept: Home, sort: str) -> None:
    table = Table(kept)
    for archived in (False, True):
        view = View(sort=sort, archived=archived)
        rows = [row for row in query.runs(kept) if archived or not row.archived]
        expected = ordered(rows, sort)
        assert table.ids(view) == expected
        for offset in range(0, len(expected), 5):
            window = table.window(view, offset, 5)
            assert (window.total, window.fitting, window.lines) == (len(rows),) * 3
            at = window.offset
            assert at == min(offset, len(rows) - 5)
            assert [row.id for row in window.shown if isinstance(row, RunRow)] == expected[at : at + 5]
        assert [table.index_of(view, run) for run in expected] == list(range(len(expected)))
    assert table.index_of(View(), "away") is None


def test_a_window_holds_whole_rows_and_counts_what_is_not_archived(kept: Home) -> None:
    window = Table(kept).window(View(filtered="seed=0 and method=trades"), 0, 100)
    by_id = {row.id: row for row in query.runs(kept)}
    assert window.shown and all(isinstance(row, RunRow) and row == by_id[row.id] for row in window.shown)
    assert dict(window.counts) == {"queued": 1, "running": 1, "done": 8, "failed": 1}
    assert [status for status, _ in window.counts] == ["queued", "running", "done", "failed"]
    assert (window.total, window.fitting) == (11, len(window.shown))
    assert Table(kept).window(View(), 4, 0).shown == ()


SELECTORS = (
    "natural>94", "natural>94 and pgd20>=53", "not (natural>94)", "pgd20 < 1e9", "optim.lr=0.25", "name ~ TRADES",
    "topology.enabled = true and natural>94", "topology=on or seed=2", "tags=demo", "archived=on", "archived=off",
    "status!=done", "created >= 2001", "base0", "base", "tr", "train1", "digits-trades-s0", "odd=1", "@last",
    "tag:demo", "recipe:x", "group:w", "tag:nothing", "nobody", "natural>", "(seed=1", "natrual>3", "optim.lrr=3",
    "threats ~ x", "young ", "note = ''",
)  # fmt: skip


def outcome(home: Home, selector: str, archived: bool) -> object:
    try:
        return {row.id for row in select.resolve(home, [selector], archived=archived)}
    except UsageError as error:
        return str(error), error.hint


def shown(table: Table, selector: str, archived: bool) -> object:
    try:
        return set(table.ids(View(filtered=selector, archived=archived)))
    except UsageError as error:
        return str(error), error.hint


@pytest.mark.parametrize("archived", [False, True])
def test_what_a_run_means_is_what_it_means_on_the_command_line(kept: Home, archived: bool) -> None:
    table = Table(kept)
    for selector in SELECTORS:
        expected = outcome(kept, selector, archived)
        assert shown(table, selector, archived) == expected, selector
        assert shown(table, selector, archived) == expected, selector  # remembered


def test_verdicts_follow_every_kind_of_change(home: Home) -> None:
    selectors = ("natural>94", "tag:demo", "archived=on", "optim.lr=0.1", "warmth>3", "base9")
    tables = {(selector, archived): Table(home) for selector in selectors for archived in (False, True)}

    def agree() -> list[object]:
        ingest.refresh(home)
        for (selector, archived), table in tables.items():
            assert shown(table, selector, archived) == outcome(home, selector, archived), selector
        return [outcome(home, selector, False) for selector in selectors]

    seen = [agree()]
    append(home.run("base2"), evaluation("best", {"natural": 99.5, "warmth": 4.0}, {}, 360, 3, "best"), 9000.0)
    seen.append(agree())
    home.run("base1").write_json("labels.json", {"tags": [], "archived": True})
    seen.append(agree())
    shutil.rmtree(home.run("atwork").path)  # the newest row
    seen.append(agree())
    make_run(home, "base9", created=4000.0, tags=["demo"])
    seen.append(agree())
    for number, run in enumerate(sorted(row.id for row in query.runs(home))):
        home.run(run).write_json("labels.json", {"tags": ["demo"] * (number % 2), "archived": number % 3 == 0})
    ingest.rebuild(home)
    seen.append(agree())
    assert all(before != after for before, after in itertools.pairwise(seen) if before is not seen[2])


def test_only_runs_that_changed_are_judged_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    table, judged = Table(home), []
    real = filters.asked
    monkeypatch.setattr(filters, "asked", lambda run, recipe: judged.append(run["id"]) or real(run, recipe))
    view = View(filtered="natural>94")
    table.ids(view)
    assert len(judged) == 11
    table.window(view, 0, 5)
    assert len(judged) == 11
    append(home.run("base2"), evaluation("best", {"natural": 99.5}, {}, 360, 3, "best"), 9000.0)
    ingest.refresh(home)
    assert "base2" in table.ids(view) and judged[11:] == ["base2"]


def test_a_rowid_is_never_given_twice(home: Home) -> None:
    def rowids() -> dict[str, int]:
        return dict(query.rows(home, "SELECT id, rowid FROM runs"))

    seen = rowids()
    newest = max(seen, key=seen.__getitem__)
    shutil.rmtree(home.run(newest).path)
    ingest.refresh(home)
    make_run(home, "new", created=1.0)
    ingest.refresh(home)
    assert rowids()["new"] > max(seen.values())
    ingest.rebuild(home)
    assert min(rowids().values()) > max(seen.values())
    before = rowids()
    home.run("atwork").write_json("heartbeat.json", home.run("atwork").json("heartbeat.json"))
    ingest.refresh(home)
    assert rowids() == before  # a heartbeat is no news


def group(shown: object) -> GroupLine:
    assert isinstance(shown, GroupLine)
    return shown


def test_groups_have_a_line_each_and_their_runs_below_when_opened(kept: Home) -> None:
    table = Table(kept)
    base, train = "digits-trades-00000000", "digits-trades+train-00000000"
    closed = table.window(View(group="group"), 0, 50)
    assert [group(line).key for line in closed.shown] == ["w", "q", train, base, "g", "undated"]
    assert (closed.lines, closed.fitting) == (6, 11)
    line = group(closed.shown[3])
    assert (line.label, line.runs, line.statuses) == ("digits-trades", 3, (("done", 3),))
    assert (line.method, line.dataset, line.model) == ("trades", "digits", "small-cnn")
    assert group(closed.shown[0]).statuses == (("running", 1), ("failed", 1))
    assert group(closed.shown[0]).metrics == {}  # none of its runs is done

    view = View(group="group", sort="-natural", opened=frozenset({base, "w"}))
    whole = [line.id if isinstance(line, RunRow) else line.key for line in table.window(view, 0, 50).shown]
    assert whole == ["g", train, base, "base1", "base0", "base2", "undated", "w", "atwork", "failed", "q"]
    for size in (1, 3, 4):
        for offset in range(len(whole)):
            window = table.window(view, offset, size)
            parts = [line.id if isinstance(line, RunRow) else line.key for line in window.shown]
            assert parts == whole[window.offset : window.offset + size] and window.lines == len(whole)
    assert [table.index_of(view, line) for line in whole] == list(range(len(whole)))
    assert table.index_of(view, "train0") is None
    assert table.ids(view) == [
        "Zulu", "train1", "train0", "train2", "base1", "base0", "base2", "undated", "atwork", "failed", "young",
    ]  # fmt: skip
    filtered = table.window(View(group="pair", filtered="seed=0"), 0, 50)
    assert {group(line).label: group(line).runs for line in filtered.shown}["digits-trades"] == 2
    with pytest.raises(UsageError, match="grouped by 'method'"):
        table.window(View(group="method"), 0, 5)


def test_groups_show_mean_and_spread_of_what_is_comparable(home: Home) -> None:
    table, view = Table(home), View(group="pair")
    odd = make_run(
        home, "odd", seed=3, threats={"pgd20": {**PGD, "eps": 0.1}}, metrics={"natural": 90.0, "pgd20": 60.0}
    )
    make_run(home, "unready", seed=4, status="running")
    ingest.refresh(home)

    def pair() -> GroupLine:
        lines = [group(line) for line in table.window(view, 0, 50).shown]
        return next(line for line in lines if line.key == "digits-trades-00000000")

    naturals = [95.0, 96.0, 94.0] * 2 + [90.0]
    assert pair().metrics == {
        "natural": (pytest.approx(statistics.mean(naturals)), pytest.approx(statistics.stdev(naturals)), 7)
    }
    assert (pair().runs, dict(pair().statuses)) == (8, {"running": 1, "done": 7})
    shutil.rmtree(odd.path)
    ingest.refresh(home)
    values = [53.0, 51.0] * 2  # of the third seed it is not a number
    assert pair().metrics["pgd20"] == (statistics.mean(values), pytest.approx(statistics.stdev(values)), 4)
    assert spread([3.5]) == (3.5, None, 1)


@pytest.mark.parametrize("sort", ['-a"b', "x'y", "a]", "$", "", "-", "metrics", "a\\", "\0", "é"])
def test_no_name_of_a_column_does_harm(kept: Home, sort: str) -> None:
    assert Table(kept).ids(View(sort=sort, group="")) == Table(kept).ids(View())
    assert not list(kept.path.glob("index.db.damaged-*"))


def test_a_home_without_runs_is_an_empty_table(tmp_path: Path) -> None:
    table = Table(Home(tmp_path))
    window = table.window(View(filtered="natural>3", group="pair"), 5, 20)
    assert (window.total, window.fitting, window.lines, window.offset, window.shown, window.counts) == (
        0,
        0,
        0,
        0,
        (),
        (),
    )
    assert table.ids(View()) == [] and table.index_of(View(), "x") is None
