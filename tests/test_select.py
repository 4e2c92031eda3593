"""What a RUN on the command line means, and what is said when it means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import make_run
from hypothesis import given
from hypothesis import strategies as st

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.registry import filters, ingest, query, select


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("select") / "home")
    make_run(home, "abc1", seed=0, created=1000.0, tags=["demo", "old"], metrics={"natural": 95.0, "pgd20": 53.0})
    make_run(
        home, "abd2", seed=0, topology=True, created=2000.0, tags=["demo"], metrics={"natural": 96.0, "pgd20": 59.0}
    )
    make_run(
        home,
        "xyz3",
        seed=1,
        method="at",
        created=3000.0,
        recipe_table={"optim": {"lr": 0.05}},
        metrics={"natural": 97.0},
    )
    make_run(home, "xyz4", seed=1, method="standard", created=1772323200.0, status="failed", name="my run", group="g-1")
    make_run(home, "tag", seed=2, created=1772409600.0, status="queued", name="abd2")  # named like another's id
    home.run("xyz3").write_json("labels.json", {"tags": [], "note": 'lr "too" high'})
    ingest.refresh(home)
    return home


def ids(home: Home, *selectors: str) -> list[str]:
    return [row.id for row in select.resolve(home, selectors)]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("abc1", ["abc1"]),
        ("abc", ["abc1"]),
        ("abd2", ["abd2"]),  # an id comes before a name
        ("x", None),
        ("my run", ["xyz4"]),
        (" my run ", ["xyz4"]),
        ("digits-trades-s0", ["abc1"]),
        ("@last", ["tag"]),
        ("tag:demo", ["abc1", "abd2"]),
        ("tag:old", ["abc1"]),
        ("recipe:digits-at", ["xyz3"]),
        ("group:g-1", ["xyz4"]),
        ("natural>95", ["abd2", "xyz3"]),
        ("natural >= 95 and method = trades", ["abc1", "abd2"]),
        ("method=trades", ["abc1", "abd2", "tag"]),
        ("method=TRADES and topology=true", ["abd2"]),
        ("topology=on or method==at", ["abd2", "xyz3"]),
        ("not topology=on and natural>0", ["abc1", "xyz3"]),
        ("not (topology=on or method=at)", ["abc1", "xyz4", "tag"]),
        ("method=at or method=trades and topology=on", ["abd2", "xyz3"]),
        ("(method=at or method=trades) and topology=on", ["abd2"]),
        ("not not method=at", ["xyz3"]),
        ("pgd20<55", ["abc1"]),
        ("pgd20!=53", ["abd2"]),  # runs without it fail every comparison
        ("not pgd20=53", ["abd2", "xyz3", "xyz4", "tag"]),
        ("optim.lr<0.1", ["xyz3"]),
        ("optim.lr=1e-1 and seed=0", ["abc1", "abd2"]),
        ("attack.eps=1/4 and seed=2", ["tag"]),
        ("schedule.milestones=75", []),
        ("tags=demo", ["abc1", "abd2"]),
        ("tags!=demo and seed=1", ["xyz3", "xyz4"]),
        ("tags~ol", ["abc1"]),
        ("name~RUN", ["xyz4"]),
        ('name="my run"', ["xyz4"]),
        ("name = 'my run'", ["xyz4"]),
        ('note~"\\"too\\" high"', ["xyz3"]),
        ("status=failed", ["xyz4"]),
        ("created>=2026-03-01T12:00 and created<2026-12-01", ["tag"]),
        ("created>1500 and created<3500", ["abd2", "xyz3"]),
        ("natural>99", []),
        ("status>3", []),  # text has no order
        ("topology>0", []),
    ],
)
def test_selectors(home: Home, selector: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            ids(home, selector)
    else:
        assert ids(home, selector) == expected


def test_several_selectors_are_united_each_run_once(home: Home) -> None:
    assert ids(home, "xyz3", "tag:demo", "abc") == ["abc1", "abd2", "xyz3"]
    assert ids(home) == []


@pytest.mark.parametrize(
    ("selector", "message", "hint"),
    [
        ("xyz", "'xyz' is the beginning of 2 ids", "it may be xyz3 (digits-at-s1), xyz4 (my run)"),
        ("abc1x", "there is no run 'abc1x'", "did you mean 'abc1'?"),
        ("????", "there is no run '????'", "known: "),
        ("", "an empty RUN", "give an id"),
        ("tag:dem", "no run has the tag 'dem'", "did you mean 'demo'?"),
        ("recipe:zzz", "no run has the recipe 'zzz'", "known: digits-at"),
        ("natual>3", "unknown field 'natual'\n  natual>3\n  ^", "did you mean natural"),
        (
            "seed=1 and optim.rl=3",
            "unknown field 'optim.rl'\n  seed=1 and optim.rl=3\n             ^",
            "did you mean optim.lr",
        ),
        ("qqqqq=3", "unknown field 'qqqqq'", "known fields: aa, "),
        ("natural>", "filter: expected a value after '>'\n  natural>\n          ^", ""),
        ("natural>high", "filter: > compares numbers; expected one, found 'high'\n  natural>high\n          ^", ""),
        ("natural 3", "there is no run 'natural 3'", "known: "),
        ("natural 3 or seed=1", "filter: expected one of = != < > <= >= ~ after 'natural', found '3'", ""),
        ("= 3", "filter: expected a field, found '='", ""),
        (
            "natural>3 seed=4",
            "filter: expected `and`, `or` or the end, found 'seed'\n  natural>3 seed=4\n            ^",
            "",
        ),
        ("natural>3 and", "filter: expected a field", ""),
        ("(natural>3", "filter: this parenthesis is not closed, found '('\n  (natural>3\n  ^", ""),
        ("natural>3)", "filter: expected `and`, `or` or the end, found ')'", ""),
        ("name='x", "filter: this quote is not closed, found \"'\"\n  name='x\n       ^", ""),
        ("natural ! 3", "filter: unexpected character, found '!'\n  natural ! 3\n          ^", ""),
        ("created>yesterday", "filter: expected a date such as 2026-03-01", ""),
        ("(" * 60 + "seed=1" + ")" * 60, "filter: nested too deeply", ""),
        ("not " * 5000 + "seed=1", "filter: nested too deeply", ""),
    ],
)
def test_mistakes_are_pointed_at(home: Home, selector: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        select.resolve(home, [selector])
    assert str(caught.value).startswith(message)
    assert caught.value.hint.startswith(hint)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("method=TRADE", "no run has method = TRADE; did you mean trades?"),
        ("natural>99 or method=zzz", "no run has method = zzz; some have at, standard, trades"),
        ("tags=dem", "no run has tags = dem; did you mean demo?"),
        ("method=trades and natural>99", ""),
        ("method!=zzz and natural>99", ""),
        ("seed=99", ""),
        ("xyz", ""),
    ],
)
def test_a_word_that_no_run_has_is_named(home: Home, selector: str, said: str) -> None:
    assert select.why_none(home, [selector]) == said
    if said:
        with pytest.raises(UsageError) as caught:
            select.some(home, [selector])
        assert caught.value.hint == said


def test_a_setting_that_no_run_has_is_known_all_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(UsageError, match="there are no runs yet"):
        select.resolve(home, ["@last"])
    with pytest.raises(UsageError) as caught:
        select.resolve(home, ["abc"])
    assert "no runs yet" in caught.value.hint
    assert select.resolve(home, ["optim.lr=3", "aa>3"]) == []
    with pytest.raises(UsageError, match="no run has the tag"):
        select.resolve(home, ["tag:x"])


def test_one_run(home: Home) -> None:
    assert select.one(home, "abc").id == "abc1"
    with pytest.raises(UsageError, match="means 2 runs"):
        select.one(home, "tag:demo")
    with pytest.raises(UsageError, match="no run fits"):
        select.one(home, "natural>99")


def test_a_selector_sees_runs_made_since(tmp_path: Path) -> None:
    home = Home(tmp_path)
    make_run(home, "aaaa")
    assert ids(home, "@last") == ["aaaa"]
    make_run(home, "bbbb", created=2000.0)
    assert ids(home, "@last") == ["bbbb"]


def test_archived_runs_are_meant_by_who_names_them_and_by_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    make_run(home, "aaaa", tags=["demo"], group="g")
    make_run(home, "hidden", created=2000.0, name="mine", tags=["demo", "own"], group="g")
    home.run("hidden").write_json("labels.json", {"archived": True})
    for selector in (
        "hidden",
        "hid",
        "mine",
        "archived = on",
        "archived=true and seed=0",
        "tags=own and archived!=off",
    ):
        assert ids(home, selector) == ["hidden"]
    for selector in ("@last", "tag:demo", "group:g", "recipe:digits-trades", "seed=0", "not name=x", "archived = off"):
        assert ids(home, selector) == ["aaaa"]
        assert "hidden" in [row.id for row in select.resolve(home, [selector], archived=True)] or "off" in selector
    assert ids(home, "tags=own") == []
    with pytest.raises(UsageError, match="no run has the tag 'own'"):
        ids(home, "tag:own")
    assert [row.id for row in select.some(home, ["tag:own"], archived=True)] == ["hidden"]


def test_many_candidates_are_cut_short(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for index in range(12):
        make_run(home, f"a{index:02d}", status="queued")
    with pytest.raises(UsageError) as caught:
        select.resolve(home, ["a"])
    assert caught.value.hint.endswith(" and 2 more")


@given(st.text(alphabet="ab1.()=<>!~'\" \\andort:@-/", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        condition = filters.parse(text)
    except UsageError:
        return
    assert condition.holds(filters.Fields({"a": 1, "b": "x"}, {})) in (True, False)


names = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.tuples(names, st.sampled_from(["=", "!=", "<", ">", "<=", ">="]), st.integers(-3, 3)),
    lambda inner: st.one_of(st.tuples(st.just("not"), inner), st.tuples(inner, st.sampled_from(["and", "or"]), inner)),
    max_leaves=8,
)


def written(tree: tuple) -> str:
    if tree[0] == "not":
        return f"not ({written(tree[1])})"
    if tree[1] in ("and", "or"):
        return f"({written(tree[0])}) {tree[1]} ({written(tree[2])})"
    return f"{tree[0]} {tree[1]} {tree[2]}"


def meant(tree: tuple, values: dict[str, int]) -> bool:
    if tree[0] == "not":
        return not meant(tree[1], values)
    if tree[1] in ("and", "or"):
        left, right = meant(tree[0], values), meant(tree[2], values)
        return (left and right) if tree[1] == "and" else (left or right)
    sign = "==" if tree[1] == "=" else tree[1]
    return bool(eval(f"{values[tree[0]]} {sign} {tree[2]}"))


@given(trees, st.fixed_dictionaries({"a": st.integers(-3, 3), "b": st.integers(-3, 3), "c": st.integers(-3, 3)}))
def test_filters_mean_what_they_say(tree: tuple, values: dict[str, int]) -> None:
    assert filters.parse(written(tree)).holds(filters.Fields(dict(values), {})) == meant(tree, values)


def test_rows_and_settings_are_what_filters_ask(home: Home) -> None:
    assert query.settings(home)["xyz3"]["optim.lr"] == 0.05
