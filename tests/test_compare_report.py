"""Which runs are compared, with which statistics, and what is said about an unfair comparison."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from folders import THREATS, environment, make_run

from trainctl.compare import paper
from trainctl.compare.grid import build
from trainctl.compare.render.csv import csv
from trainctl.compare.report import compare
from trainctl.compare.rows import Comparison
from trainctl.home import Home
from trainctl.registry import ingest, query, select


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def pair(home: Home, seed: int = 0, **train: Any) -> None:
    """A baseline and its twin; `train` changes the twin."""
    make_run(
        home,
        f"base{seed}",
        seed=seed,
        metrics={"natural": 95.0 + seed, "pgd20": 53.0},
        created=10.0 + seed,
        seconds=2.0,
    )
    twin = {"metrics": {"natural": 96.0 + 2 * seed, "pgd20": 59.0}, "created": 20.0 + seed, "seconds": 2.5, **train}
    make_run(home, f"twin{seed}", seed=seed, topology=True, **twin)


def differing(found: Comparison) -> dict[str, tuple[Any, Any]]:
    return {entry["key"]: (entry["baseline"], entry["train"]) for entry in found.pairs[0].differs}


def test_the_shape_of_the_json(home: Home) -> None:
    for seed in (0, 1, 2):
        pair(home, seed)
    make_run(home, "solo", method="standard", metrics={"natural": 98.5}, created=1.0)
    found = json.loads(json.dumps(compare(home).json()))
    assert found["metrics"] == ["natural", "pgd20", "seconds_per_epoch"]
    [one] = found["pairs"]
    assert one["label"] == "digits-trades"
    assert one["baseline"]["runs"] == ["base0", "base1", "base2"]
    assert one["baseline"]["natural"] == {"mean": 96.0, "std": 1.0, "n": 3, "values": [95.0, 96.0, 97.0]}
    assert one["train"]["natural"] == {"mean": 98.0, "std": 2.0, "n": 3, "values": [96.0, 98.0, 100.0]}
    assert one["train"]["seconds_per_epoch"]["mean"] == 2.5
    delta = one["delta"]["natural"]  # differences 1, 2, 3; t(0.975, 2) = 4.302653
    assert (delta["mean"], delta["n"]) == (2.0, 3)
    assert delta["high"] == pytest.approx(2 + 4.302653 / 3**0.5, rel=1e-6)
    assert delta["low"] == pytest.approx(2 - 4.302653 / 3**0.5, rel=1e-6)
    assert one["delta"]["pgd20"] == {"mean": 6.0, "low": 6.0, "high": 6.0, "n": 3}
    assert (one["differs"], one["unequal"], one["paper"]) == ([], [], None)
    assert one["threats"]["pgd20"]["eps"] == 0.25
    [alone] = found["runs"]
    assert (alone["label"], alone["runs"], alone["natural"]["mean"]) == ("digits-standard", ["solo"], 98.5)
    assert alone["pgd20"] == {"mean": None, "std": None, "n": 0, "values": []}


def test_each_train_group_has_its_row_against_the_one_baseline(home: Home) -> None:
    pair(home)
    make_run(
        home, "twin20", topology=True, name="digits-trades+train topology.weight=20-s0", group="other", created=30.0
    )
    found = compare(home)
    assert [(one.baseline.runs, one.train.runs) for one in found.pairs] == [
        (("base0",), ("twin0",)),
        (("base0",), ("twin20",)),
    ]
    assert found.alone == ()


def test_without_a_selection_only_finished_runs_are_compared(home: Home) -> None:
    pair(home)
    pair(home, 1, status="failed")
    make_run(home, "wait", seed=5, status="queued")
    found = compare(home)
    assert found.pairs[0].baseline.runs == ("base0", "base1")
    assert found.pairs[0].train.runs == ("twin0",)
    assert found.pairs[0].delta["natural"].n == 1


def test_a_selected_run_that_is_not_done_is_marked(home: Home) -> None:
    pair(home)
    pair(home, 1, status="failed")
    found = compare(home, select.resolve(home, ["method=trades"]))
    assert found.pairs[0].train.runs == ("twin0", "twin1")
    assert found.pairs[0].train.notes == (
        "not done: twin1 is failed",
        "natural: 1 of 2 runs have a value",
        "pgd20: 1 of 2 runs have a value",
    )
    assert found.pairs[0].delta["natural"].n == 1
    assert compare(home, select.resolve(home, ["twin0"])).pairs == ()
    assert [side.runs for side in compare(home, select.resolve(home, ["twin0"])).alone] == [("twin0",)]


def test_a_run_made_twice_counts_once_and_the_done_one_is_taken(home: Home) -> None:
    pair(home)
    make_run(home, "again", metrics={"natural": 90.0}, created=50.0)
    make_run(home, "broke", status="failed", created=60.0)
    found = compare(home, query.runs(home) or select.resolve(home, ["seed=0"]))
    assert found.pairs[0].baseline.runs == ("again",)
    assert "2 older runs of the same seed left out" in found.pairs[0].baseline.notes


def test_best_and_last_are_two_comparisons(home: Home) -> None:
    make_run(home, "base", metrics={"natural": 95.0}, last={"natural": 90.0})
    make_run(home, "twin", topology=True, metrics={"natural": 96.0}, last={"natural": 92.0})
    assert compare(home).pairs[0].delta["natural"].mean == 1.0
    assert compare(home, checkpoint="last").pairs[0].delta["natural"].mean == 2.0
    assert compare(home, checkpoint="last").json()["checkpoint"] == "last"


def test_best_chosen_on_the_test_set_is_marked(home: Home) -> None:
    chosen = {"eval": {"select": "test"}}
    make_run(home, "base", recipe_table=chosen)
    make_run(home, "twin", topology=True)
    found = compare(home)
    assert "`best` was chosen on the test set" in found.pairs[0].baseline.notes
    assert found.pairs[0].train.notes == ()
    assert differing(found)["checkpoint rule"] == ("best pgd10 on test", "best pgd10 on validation")
    assert compare(home, checkpoint="last").pairs[0].baseline.notes == ()


def test_what_differs_besides_the_regulariser(home: Home) -> None:
    env = environment("cuda") | {"device": "A GPU", "threads": 4, "git": {"commit": "b" * 40, "patch": "diff"}}
    env["packages"] = {"torch": "2.15.0", "numpy": "2.3.0"}
    recipe_table = {
        "optim": {"lr": 0.05},
        "topology": {"weight": 9.0},
        "standard": {"arch": "small-cnn"},
        "title": "other",
    }
    pair(home, env=env, recipe_table=recipe_table)
    patch = hashlib.sha256(b"diff").hexdigest()[:8]
    assert differing(compare(home)) == {
        "optim.lr": (0.1, 0.05), "device": ("Some CPU", "A GPU"), "device_type": ("cpu", "cuda"), "threads": (1, 4),
        "torch": ("2.14.1", "2.15.0"), "git commit": ("a" * 12, "b" * 12), "uncommitted changes": ("none", patch),
    }  # fmt: skip


def test_the_standard_model_counts_where_the_baseline_trains_it(home: Home) -> None:
    arch = {"standard": {"arch": "small-cnn"}}
    make_run(home, "base", method="lbgat")
    make_run(home, "twin", method="lbgat", topology=True, recipe_table=arch)
    assert differing(compare(home)) == {"standard.arch": ("resnet-18", "small-cnn")}


def test_what_tells_namesakes_apart_is_said(home: Home) -> None:
    for name, table in (("a", {}), ("b", {"optim": {"lr": 0.5}, "eval": {"every": 3}}), ("c", {"optim": {"lr": 0.5}})):
        for mark in ("", "+train"):
            about = {"name": f"same{mark}-s0", "group": f"{name}{mark}", "pair": name}
            make_run(home, f"{name}{bool(mark):d}", topology=bool(mark), recipe_table=table, **about)
    make_run(home, "other", method="at")
    found = compare(home)
    assert found.alone[0].notes == ()
    said = [(pair.baseline.notes, pair.train.notes) for pair in found.pairs]
    told = "one of several of this name, with optim.lr = "
    assert said == [((f"{told}{lr}, eval.every = {every}",),) * 2 for lr, every in ((0.1, 1), (0.5, 3), (0.5, 1))]
    assert compare(home, select.resolve(home, ["a0", "a1"])).pairs[0].baseline.notes == ()


def test_values_that_vary_within_a_side_are_listed(home: Home) -> None:
    pair(home)
    pair(home, 1, env=environment() | {"threads": 2})
    assert differing(compare(home)) == {"threads": (1, [1, 2])}


@pytest.mark.parametrize(
    ("key", "changed", "values"),
    [
        ("run.fold", {"recipe_table": {"run": {"fold": False}}}, (True, False)),
        ("run.micro_batch", {"recipe_table": {"run": {"micro_batch": 8}}}, (0, 8)),
        ("precision", {"env": environment() | {"precision": "bfloat16"}}, ("float32", "bfloat16")),
        ("compiled", {"env": environment() | {"compiled": True}}, (False, True)),
    ],
)
def test_what_changes_the_computation_is_said(
    home: Home, key: str, changed: dict[str, Any], values: tuple[Any, Any]
) -> None:
    pair(home, **changed)
    assert differing(compare(home)) == {key: values}
    make_run(home, "base1", seed=1, **changed)
    make_run(home, "twin1", seed=1, topology=True)
    both = sorted(values, key=repr)
    assert differing(compare(home)) == {key: (both, both)}  # both sides average over unequal runs, if alike
    for side, said in (
        (["base0"], ()),
        (["base0", "base1"], (f"the runs differ in {key}: {both[0]} and {both[1]}".lower(),)),
    ):
        (alone,) = compare(home, select.resolve(home, side)).alone  # without a partner too
        assert alone.notes == said


def test_runs_older_than_the_keys_neither_fold_nor_compile(home: Home) -> None:
    pair(home, env=environment() | {"compiled": False}, recipe_table={"run": {"fold": False}})
    old = home.run("base0").recipe
    written = old.read_text()
    old.write_text(written.replace("\nfold = true\n", "\n"))
    assert differing(compare(home)) == {}
    old.write_text(written)
    assert differing(compare(home)) == {"run.fold": (True, False)}


def test_runs_that_wait_have_no_precision_that_could_differ(home: Home) -> None:
    pair(home)
    for name, topology in (("base1", False), ("twin1", True)):
        make_run(home, name, seed=1, topology=topology, status="queued")
    found = compare(home, select.resolve(home, ["method=trades"]))
    assert found.pairs[0].train.runs == ("twin0", "twin1")
    assert differing(found) == {}


def test_different_threat_models_are_said(home: Home) -> None:
    pair(home, threats={"pgd20": {**THREATS["pgd20"], "eps": 0.2, "seed": 9}})
    found = compare(home)
    assert found.pairs[0].unequal == ("pgd20",)
    assert differing(found) == {"pgd20 eps": (0.25, 0.2)}
    assert [threat["eps"] for threat in found.pairs[0].json()["threats"]["pgd20"]] == [0.25, 0.2]


def test_a_measurement_that_stands_for_both_checkpoints_is_no_other_threat_model(home: Home) -> None:
    pair(home, threats={"pgd20": {**THREATS["pgd20"], "measured_on": "best"}})
    found = compare(home)
    assert (found.pairs[0].unequal, differing(found)) == ((), {})
    assert "measured_on" not in found.pairs[0].json()["threats"]["pgd20"]


def test_threat_models_are_matched_by_seed(home: Home) -> None:
    for seed, examples in ((0, 360), (1, 100)):
        make_run(home, f"base{seed}", seed=seed, examples=examples)
        make_run(home, f"twin{seed}", seed=seed, topology=True, examples=examples)
    assert compare(home).pairs[0].unequal == ()  # each difference is between equals
    make_run(home, "base2", seed=2, examples=360)
    make_run(home, "twin2", seed=2, topology=True, examples=90)
    found = compare(home)
    assert found.pairs[0].unequal == ("natural", "pgd20")
    assert differing(found)["natural n"] == (360, 90)


def test_sides_without_a_common_seed_still_compare_their_threat_models(home: Home) -> None:
    make_run(home, "base", seed=0, examples=360)
    make_run(home, "twin", seed=1, topology=True, examples=100)
    found = compare(home)
    assert found.pairs[0].delta["natural"].n == 0
    assert found.pairs[0].unequal == ("natural", "pgd20")


def test_nothing_to_compare(home: Home) -> None:
    assert compare(home).json() == {"checkpoint": "best", "metrics": [], "pairs": [], "runs": []}
    home.create()
    (home.run("odd").path).mkdir()
    (home.run("odd").path / "run.json").write_text("{}")
    ingest.refresh(home)
    found = compare(home, query.runs(home))
    assert found.json()["runs"][0]["runs"] == ["odd"]


# --- the published rows -------------------------------------------------------------------------------------


def settings(dataset: str, protocol: str, method: str, **more: Any) -> dict[str, Any]:
    base = {
        "data.dataset": dataset, "eval.protocol": protocol, "eval.eps": 0.0, "model.arch": "wrn-34-10",
        "standard.arch": "resnet-18",
        "method.name": method, "topology.enabled": True, "topology.variant": "joint",
        "schedule.epochs": 110 if protocol == "las" else 100,
        "optim.batch_size": 128, "topology.weight": 5.0 if dataset == "cifar10" else 20.0,
        "topology.ramp": dataset != "cifar10",
    }  # fmt: skip
    return {**base, **{key.replace("__", "."): value for key, value in more.items()}}


def published(*args: Any, **more: Any) -> dict[str, Any] | None:
    recipe = settings(*args, **more)
    return paper.published(recipe, recipe)


@pytest.mark.parametrize(
    ("recipe", "table", "before", "after"),
    [
        (("cifar10", "las", "trades"), 1, 85.72, 87.07),
        (("cifar100", "las", "trades"), 2, 58.61, 67.47),
        (("cifar10", "lbgat", "at"), 5, 86.69, 88.85),
        (("cifar100", "lbgat", "at"), 6, 60.44, 66.39),
        (("cifar100", "lbgat", "trades"), 6, 56.50, 65.28),
        (("tiny-imagenet", "lbgat", "trades"), 7, 38.51, 41.12),
    ],
)
def test_published_rows(recipe: tuple[str, str, str], table: int, before: float, after: float) -> None:
    found = published(*recipe)
    assert found is not None
    assert (found["table"], found["baseline"]["natural"], found["train"]["natural"]) == (table, before, after)
    assert found["notes"] == []
    assert found["protocol"] == recipe[1]


def test_quoted_rows_are_marked() -> None:
    found = published("cifar100", "lbgat", "trades")
    assert found is not None
    assert found["baseline"]["quoted_from"] == "LBGAT"
    assert "quoted_from" not in found["train"]


@pytest.mark.parametrize(
    ("method", "label", "natural"), [({"method": "alp"}, "ALP", 30.51),
    ({"method": "lbgat", "method__base": "alp"}, "LBGAT + ALP", 33.67)],
)  # fmt: skip
def test_logit_pairing_is_in_table_7_without_a_row_of_train(method: dict[str, Any], label: str, natural: float) -> None:
    recipe = settings("tiny-imagenet", "lbgat", **method)
    row = paper._row(7, recipe, "")
    assert row is not None and (row["label"], row["natural"]) == (label, natural)
    baseline = recipe | {"topology.enabled": False}
    for found in (paper.published(baseline, recipe), paper.published_alone(baseline)):
        assert found is not None and found["train"] is None and found["baseline"]["natural"] == natural
        assert found["notes"] == []  # a quoted row: what it was trained with is not known


def test_variants_lbgat_and_mobilenet() -> None:
    def natural(**more: Any) -> tuple[Any, ...]:
        found = published("cifar100", "lbgat", **{"method": "at", **more})
        assert found is not None
        return found["table"], found["baseline"]["natural"], found["train"]["natural"]

    assert natural(topology__variant="prime") == (3, 60.44, 62.10)
    assert natural(topology__variant="star") == (11, 60.44, 65.15)
    assert natural(method="lbgat", method__base="at") == (6, 61.01, 68.20)
    assert natural(method="lbgat", method__base="trades") == (6, 60.43, 62.62)
    assert natural(model__arch="mobilenetv3-large") == (12, 35.10, 38.58)
    found = published("cifar100", "lbgat", "trades", standard__arch="wrn-34-10")
    assert found is not None
    assert (found["table"], found["baseline"], found["train"]["note"]) == (
        8,
        None,
        "probably also with LBGAT, see the row above it",
    )


@pytest.mark.parametrize("base", ["at", "trades"])
def test_rows_of_the_papers_own_lbgat_say_so_beside_that_of_its_authors(base: str) -> None:
    """Eq. 15 and 16 keep a cross-entropy on M' that LBGAT's code has not."""
    row = {"method": "lbgat", "method__base": base}
    for form, notes in (("paper", []), ("official", ["method.form is paper in the paper, official here"])):
        found = published("cifar100", "lbgat", **row, method__form=form)
        assert found is not None and found["notes"] == notes
    alone = settings("cifar100", "lbgat", **row, method__form="official", topology__enabled=False)
    quoted = base == "trades"  # from LBGAT's authors
    found = paper.published_alone(alone)
    assert found is not None and bool(found["baseline"].get("quoted_from")) == quoted
    assert bool(found["notes"]) != quoted


@pytest.mark.parametrize(
    "more",
    [
        {"dataset": "digits"}, {"protocol": "other"}, {"method": "toy"}, {"model__arch": "wrn-10-1"},
        {"eval__eps": 0.1}, {"eval__eps": 8 / 255}, {"dataset": "tiny-imagenet", "protocol": "las"},
    ],
)  # fmt: skip
def test_no_published_row_without_a_match(more: dict[str, Any]) -> None:
    assert published(**{"dataset": "cifar100", "protocol": "lbgat", "method": "trades", **more}) is None


def test_without_a_published_twin_the_row_of_the_baseline_stands_alone() -> None:
    recipe = settings("cifar100", "lbgat", "trades", standard__arch="small-cnn")
    found = paper.published(recipe | {"topology.enabled": False}, recipe)
    assert found is not None and found["train"] is None
    assert (found["table"], found["baseline"]["natural"]) == (6, 56.50)


@pytest.mark.parametrize(
    ("more", "table", "natural"),
    [
        ({"dataset": "cifar10", "protocol": "las", "method": "mart"}, 1, 84.17),
        ({"dataset": "cifar10", "protocol": "las", "method": "fat", "method__base": "at"}, 1, 87.97),
        ({"dataset": "cifar10", "protocol": "las", "method": "las", "method__base": "trades"}, 1, 85.24),
        ({"dataset": "cifar100", "protocol": "las", "method": "sat"}, 2, 62.82),
        ({"dataset": "cifar100", "protocol": "las", "method": "awp", "method__base": "at"}, 2, 60.38),
        ({"dataset": "cifar100", "protocol": "lbgat", "method": "at", "terms__rkd__weight": 25.0}, 3, 64.00),
        ({"dataset": "cifar100", "protocol": "lbgat", "method": "at", "terms__mca__weight": 1.0}, 3, 57.18),
    ],
)
def test_baselines_of_every_kind_have_their_row(more: dict[str, Any], table: int, natural: float) -> None:
    found = paper.published_alone(settings(**more, topology__enabled=False))
    assert found is not None
    assert (found["table"], found["baseline"]["natural"], found["train"]) == (table, natural, None)


@pytest.mark.parametrize(
    "method", [{"method": "awp", "method__base": "trades"}, {"method": "fat", "method__base": "mart"}]
)
def test_forms_that_the_paper_does_not_have_show_no_row(method: dict[str, Any]) -> None:
    assert paper.published_alone(settings("cifar10", "las", topology__enabled=False, **method)) is None


def test_runs_without_a_partner_show_their_published_row(home: Home) -> None:
    recipe_table = {"data": {"dataset": "cifar100"}, "model": {"arch": "wrn-34-10"}, "eval": {"eps": 0.0}}
    make_run(home, "base", recipe_table=recipe_table)
    (section,) = build(compare(home)).sections
    assert [(row.kind, row.label) for row in section.rows] == [("alone", "cifar100-trades"), ("paper", "paper: TRADES")]
    assert compare(home).json()["runs"][0]["paper"]["baseline"]["natural"] == 56.50
    assert "paper baseline" in csv(compare(home))


def test_what_is_our_reading_is_said(home: Home) -> None:
    words = "the weight is not published"
    make_run(home, "base", recipe_table={"our_reading": words})
    make_run(home, "twin", topology=True, recipe_table={"our_reading": words, "topology": {"variant": "prime"}})
    grid = build(compare(home))
    assert f"our reading: {words}" in grid.notes
    assert any("TRAIN' is printed without a formula" in note for note in grid.notes)
    (pair,) = compare(home).pairs
    assert all(entry["key"] != "our_reading" for entry in pair.differs)


def test_the_protocols_own_eps_may_be_written_out_and_other_settings_are_noted() -> None:
    found = published("cifar100", "las", "trades", eval__eps=8 / 255, schedule__epochs=1, topology__weight=5.0)
    assert found is not None
    assert found["notes"] == [
        "schedule.epochs is 110 in the paper, 1 here",
        "topology.weight is 20.0 in the paper, 5.0 here",
    ]


def test_all_published_rows_are_there() -> None:
    rows = paper.tables()["rows"]
    assert len(rows) == 79
    assert sum("natural" in row for row in rows) == 73  # Table 4 has times only
    assert {row["table"] for row in rows} == set(range(1, 13))


def test_a_pair_without_a_published_baseline_shows_one_row(home: Home) -> None:
    recipe_table = {
        "data": {"dataset": "cifar100"}, "model": {"arch": "wrn-34-10"}, "eval": {"eps": 0.0},
        "standard": {"arch": "wrn-34-10"},
    }  # fmt: skip
    make_run(home, "base", recipe_table=recipe_table)
    make_run(home, "twin", topology=True, recipe_table=recipe_table)
    rows = build(compare(home)).sections[0].rows
    assert [row.label for row in rows if row.kind == "paper"] == ["paper: TRADES + TRAIN (M = WRN-34-10)"]


def test_a_pair_shows_its_published_row(home: Home) -> None:
    recipe_table = {
        "data": {"dataset": "cifar100"}, "model": {"arch": "wrn-34-10"}, "eval": {"eps": 0.0, "select": "test"},
        "topology": {"weight": 20.0, "ramp": True},
    }  # fmt: skip
    make_run(home, "base", recipe_table=recipe_table)
    make_run(home, "twin", topology=True, recipe_table=recipe_table)
    found = compare(home).pairs[0].paper
    assert found is not None
    assert (found["table"], found["train"]["pgd20"]) == (6, 33.97)
    assert found["notes"] == ["schedule.epochs is 100 in the paper, 3 here"]
