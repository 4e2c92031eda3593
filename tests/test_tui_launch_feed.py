"""What stands behind the launch screen: drafts, their form with all mistakes, the recipes, and what would start."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from folders import make_run

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.launch import slots
from trainctl.launch.start import at_once
from trainctl.recipes.problems import RecipeProblems
from trainctl.registry.watch import Watch
from trainctl.tui.feed import launch, plan
from trainctl.tui.feed.draft import GRID, JOBS, NAME, SEEDS, SIDE, TAGS, Draft
from trainctl.tui.feed.form import Form, form
from trainctl.tui.feed.launch import Offers, OffersFeed, about, span


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cores, no GPU, and a working directory of one's own."""
    monkeypatch.setattr(slots, "cores", lambda: 2)
    monkeypatch.setattr(slots, "gpus", list)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


# --- what was typed ---------------------------------------------------------------------------------------------------


def test_a_draft_is_the_options_of_the_command(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft("digits-trades")
    for key, text in {
        SIDE: "pair", SEEDS: "0-2", JOBS: "1", NAME: "a b", TAGS: "x  y", f"{GRID}0": "attack.eps=0.1,0.2",
        f"{GRID}1": "method.beta=1,6", "optim.lr": "0.2", "model.arch": "resnet-18",
    }.items():  # fmt: skip
        draft = draft.typed(key, f" {text} ")
    assert draft.command(home) == [
        "trainctl", "run", "digits-trades", "--pair", "--seeds", "0-2", "--jobs", "1", "--name", "a b",
        "--set", "optim.lr=0.2", "--set", "model.arch=resnet-18", "--grid", "attack.eps=0.1,0.2",
        "--grid", "method.beta=1,6", "--tag", "x", "--tag", "y", "--home", str(home.path), "-d",
    ]  # fmt: skip
    assert shlex.split(draft.line(home)) == draft.command(home)
    monkeypatch.setenv("TRAINCTL_HOME", str(home.path))
    assert "--home" not in draft.command(home)  # it is the one that the command finds by itself
    for key in (SIDE, SEEDS, JOBS, NAME, TAGS, f"{GRID}1", f"{GRID}0"):
        draft = draft.typed(key, "")
    assert draft.typed("optim.lr", "0.10", "0.1").typed("model.arch", '"small-cnn"', "small-cnn") == Draft(
        "digits-trades"
    )


def at(found: Form, key: str) -> Any:
    [field] = [field for field in found.fields if field.key == key]
    return field


def test_the_form_says_what_is_set_where() -> None:
    found = form(Draft("digits-trades"), ["0", "1"])
    assert (found.runs, found.mistakes) == (1, 0)
    assert (at(found, "method.beta").value, at(found, "method.beta").origin) == ("6.0", "digits/trades.toml:8")
    assert at(found, "attack.eps").origin == "digits/_base.toml:14"
    assert (at(found, "data.flip").origin, at(found, "data.flip").choices) == ("default", ("false", "true"))
    assert at(found, "run.device").choices == ("auto", "cpu", "cuda:0", "cuda:1")
    assert at(found, "schedule.milestones").value == "[15, 18]"
    assert at(found, "attack.eps").help == "radius of the ball"
    assert not any(field.changed for field in found.fields)
    # Every value, typed as it is shown, is no change.
    for field in found.fields:
        assert Draft("digits-trades").typed(field.key, field.value, field.base) == Draft("digits-trades"), field.key


def test_the_options_of_another_method_data_set_or_term_appear() -> None:
    keys = {field.key for field in form(Draft("digits-at")).fields}
    assert "method.code" in keys and "method.entropy_mode" not in keys and "terms.rkd.weight" not in keys
    draft = Draft("digits-at", (("method.name", "ecas"), ("data.dataset", "folder"), ("terms.rkd", "{}")))
    found = form(draft)
    keys = {field.key for field in found.fields}
    assert {"method.entropy_mode", "data.image_size", "terms.rkd.weight", "terms.rkd"} <= keys
    assert at(found, "method.name").changed and at(found, "method.name").base == "at"
    # What the file sets and the other method does not know cannot be taken away by --set.
    [problem] = at(form(Draft("digits-trades", (("method.name", "at"),))), "method.beta").problems
    assert "digits/trades.toml:8: unknown key" in problem and "begin with digits-at" in problem


def test_every_mistake_stands_at_its_field() -> None:
    draft = Draft(
        "digits-trades", (("method.name", "mrat"), ("optim.lr", "fast"), ("schedule.milestones", "[1")), "",
        ("attack.eps=8/255,x", "nonsense", "optim.lrr=1"),
        ((SEEDS, "3-1"), (JOBS, "0"), (NAME, "a/b"), (TAGS, "ok b,c")),
    )  # fmt: skip
    found = form(draft)
    said = {field.key: " ".join(field.problems) for field in found.fields if field.problems}
    assert found.runs is None and found.mistakes >= 10
    for key, words in {
        "method.name": "did you mean 'mart'?", "optim.lr": "'fast' is not allowed: expected a valid number",
        "schedule.milestones": "not a TOML value", f"{GRID}0": "'x' is not allowed", f"{GRID}1": "expected KEY=VALUE",
        f"{GRID}2": "did you mean 'lr'?", SEEDS: "did you mean 1-3?", JOBS: "expected a number of 1 or more",
        NAME: "cannot be the name of a run", TAGS: "'b,c' cannot be a tag",
    }.items():  # fmt: skip
        assert words in said.pop(key), key
    assert said == {}


@pytest.mark.parametrize(
    ("draft", "runs", "said"),
    [
        (Draft("digits-trades", side="pair", options=((SEEDS, "0-2"),)), 6, ""),
        (Draft("digits-trades", grid=("attack.eps=0.1,0.2,0.10",)), 2, ""),  # 0.1 and 0.10 are the same run
        (Draft("digits-trades", grid=("attack.steps=" + ",".join(map(str, range(1, 5001))),), side="pair"), 10_000, ""),
        (Draft("digits-trades", grid=("attack.steps=" + ",".join(map(str, range(1, 5002))),), side="pair"), None,
         "that makes 10002 runs, more than 10000"),
        (Draft("digits-trades", grid=("run.seed=1,2",), options=((SEEDS, "0-1"),)), None, "exclude each other"),
        (Draft("digits-trades", grid=("attack.eps=0.1", "attack.eps=0.2")), None, "names attack.eps twice"),
        (Draft("digits-standard", side="pair"), None, "makes no adversarial images"),
    ],
)  # fmt: skip
def test_how_many_runs_it_makes(draft: Draft, runs: int | None, said: str) -> None:
    found = form(draft)
    assert found.runs == runs
    text = "\n".join((*found.problems, *(problem for field in found.fields for problem in field.problems)))
    assert said in text and bool(said) == bool(text)


def test_a_recipe_that_has_gone_or_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(RecipeProblems, match="there is no file"):
        form(Draft("./gone.toml"))
    Path("bad.toml").write_text("[method\n")
    found = form(Draft("bad.toml"))
    assert "bad.toml:1: not TOML" in " ".join((*found.problems, *(p for f in found.fields for p in f.problems)))


# --- the picker -------------------------------------------------------------------------------------------------------


def all_offers(feed: OffersFeed, typed: str = "") -> Offers:
    feed.offers(typed, "")
    last = None
    while last is None or not last.complete:
        last = feed.offers(typed, "") or last
    return last


def test_the_recipes_are_named_at_once_and_read_by_and_by(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.toml").write_text('extends = "digits-trades"\ntitle = "Mine"\n')
    Path("broken.toml").write_text('extends = "digits-trades"\n[method]\nbeta = "x"\n')
    Path("pyproject.toml").write_text('[project]\nname = "x"\n')
    Path("_base.toml").write_text("[optim]\nlr = 0.1\n")
    make_run(home, "one")
    feed = OffersFeed(home, Watch(home))
    first = feed.offers("", "")
    assert first is not None and not first.complete and not any(offer.read for offer in first.shown)
    assert [offer.recipe for offer in first.shown if offer.own] == ["broken.toml", "mine.toml"]
    found = {offer.recipe: offer for offer in all_offers(feed).shown}
    assert len(found) == first.total and all(offer.read for offer in found.values())
    assert found["mine.toml"].title == "Mine" and "method.beta: 'x' is not allowed" in found["broken.toml"].mistakes
    trades, cifar, plain = found["digits-trades"], found["cifar10-trades"], found["digits-standard"]
    assert (trades.dataset, trades.method, trades.epochs, trades.like) == ("digits", "trades", 20, 1)
    assert trades.seconds == 20 * 3.0 + 2.0 and cifar.seconds is None
    assert trades.train == "L_TP × 5, ramped, M is small-cnn"
    assert plain.train == "not with standard, which makes no adversarial images"
    assert "scikit-learn" in trades.data and "not in" in cifar.data
    assert found["digits-ecas"].our_reading
    make_run(home, "two")
    assert feed.offers("", "") is None  # prices stand for a while
    monkeypatch.setattr(launch, "PRICES", 0.0)
    again = feed.offers("", "")
    assert again is not None and {offer.recipe: offer.like for offer in again.shown}["digits-trades"] == 2


def test_the_data_set_is_looked_for_where_the_engine_will(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/cifar-10-batches-py").mkdir(parents=True)
    monkeypatch.setenv("TRAINCTL_DATA", "data")
    found = {offer.recipe: offer for offer in all_offers(OffersFeed(home, Watch(home))).shown}
    assert found["cifar10-trades"].data == f"at {Path('data/cifar-10-batches-py').absolute()}"


@pytest.mark.parametrize(
    ("typed", "first", "error"),
    [
        ("TRADES digits awp", "digits-trades-awp", ""), ("no such thing", None, ""), ("./mine.toml", "./mine.toml", ""),
        ("sub/", "sub/deep.toml", ""), ("./mien.toml", None, "did you mean 'mine.toml'?"), ("./", "mine.toml", ""),
        ("empty/", None, "no recipe in empty/"), ("/dev/null", None, "no regular file"),
    ],
)  # fmt: skip
def test_what_is_typed_finds_recipes(home: Home, typed: str, first: str | None, error: str) -> None:
    for file in ("mine.toml", "sub/deep.toml"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text('extends = "digits-trades"\n')
    Path("empty").mkdir()
    found = all_offers(OffersFeed(home, Watch(home)), typed)
    assert [offer.recipe for offer in found.shown][:1] == ([first] if first else [])
    assert error in found.error and bool(error) == bool(found.error)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (62, "62 s"), (240, "4 min"), (5000, "83 min"), (9000, "2.5 h"), (86400 * 12.3, "12 d")],
)  # fmt: skip
def test_a_price_in_words(seconds: float, text: str) -> None:
    assert span(seconds) == text
    assert about(seconds, 2) == f"about {text} here (2 runs like it)"
    assert about(None, 0) == "no run like it yet"


# --- what would start -------------------------------------------------------------------------------------------------


def test_what_would_start_is_said_exactly(home: Home) -> None:
    draft = Draft("digits-trades", side="pair", options=((SEEDS, "0-1"),))
    empty = plan.planned(home, Watch(home), draft)
    assert (empty.together, empty.before, empty.known, empty.done) == (2, 0, 0, 0)
    for run in empty.planned[:2]:
        make_run(home, f"done{run.recipe.topology.enabled:d}", seed=run.seed, group=run.group, pair=run.pair,
                 topology=run.recipe.topology.enabled)  # fmt: skip
    make_run(home, "waits", status="queued")
    found = plan.planned(home, Watch(home), draft)
    assert [(run.name, run.method, run.seed, run.place, run.done) for run in found.runs] == [
        ("digits-trades-s0", "trades", 0, "CPU, 1 thread", "done0"),
        ("digits-trades+train-s0", "trades +TRAIN", 0, "CPU, 1 thread", "done1"),
        ("digits-trades-s1", "trades", 1, "CPU, 1 thread", ""),
        ("digits-trades+train-s1", "trades +TRAIN", 1, "CPU, 1 thread", ""),
    ]
    assert (found.before, found.done, found.known) == (1, 2, 4)
    assert found.seconds == 4 * 62.0 / 2  # 20 epochs of 3 s and 2 s of evaluations each, two at a time
    alone = plan.planned(home, Watch(home), Draft("digits-trades", side="pair", options=((JOBS, "1"),)))
    assert (alone.together, alone.share, alone.seconds) == (1, 1.0, 2 * 62.0)


def test_where_a_run_would_work_says_how_much_of_the_gpus(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "gpus", lambda: ["0", "1"])
    for settings, place in (
        ((), "a GPU, 1 thread"), ((("run.gpus", "0.5"),), "half of a GPU, 1 thread"),
        ((("run.gpus", "2"), ("run.threads", "4")), "2 GPUs, 4 threads"),
        ((("run.device", "cuda:1"), ("run.gpus", "0.25")), "a quarter of GPU 1, 1 thread"),
        ((("run.device", "cpu"), ("run.gpus", "0.5")), "CPU, 1 thread"),
    ):  # fmt: skip
        [run] = plan.planned(home, Watch(home), Draft("digits-trades", (("run.threads", "1"), *settings))).runs
        assert run.place == place


def test_slots_of_gpus() -> None:
    from trainctl.recipes.plan import plan as make

    runs = make(["digits-trades"], seeds="0-4")
    assert at_once(runs, None, ["0", "1"]) == 2  # device auto takes a GPU each
    assert at_once(runs, 0.5, []) == 2 and at_once(runs, None, []) == 2  # one thread of two cores
    pinned = make(["digits-trades"], seeds="0-4", overrides=["run.device=cuda:1"])
    assert at_once(pinned, None, ["0", "1"]) == 1


def test_mistakes_stop_the_last_screen(home: Home) -> None:
    for draft in (
        Draft("digits-trades", (("optim.lr", "fast"),)), Draft("digits-trades", options=((TAGS, "a,b"),)),
        Draft("digits-trades", options=((JOBS, "none"),)), Draft("digits-trades", options=((SEEDS, "x"),)),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            plan.planned(home, Watch(home), draft)
    assert home.run_dirs() == []
