"""The tables of the paper: which runs a row means, which of them a home has, and how the numbers are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli
from folders import PGD, append, evaluation, training

from engine.rundir import RunDir
from trainctl.compare.render.markdown import write
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.launch import folders
from trainctl.recipes.load import resolve
from trainctl.recipes.plan import Planned, group_of, pair_of, plan
from trainctl.reproduce import estimate, render, result, timing
from trainctl.reproduce.plan import key, plan_table, standing
from trainctl.reproduce.rows import METRICS, TABLES, baseline, rows
from trainctl.reproduce.scales import experiment

PUBLISHED = tomli.loads((Path(result.__file__).parents[1] / "compare" / "paper_tables.toml").read_text())["rows"]
GOOD = {"natural": 95.0, "pgd20": 53.0, "cw20": 50.0, "aa": 45.0, "topo_natural": 96.0, "topo_robust": 60.0}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


def finish(
    home: Home, run: Planned, metrics: Mapping[str, float] = GOOD, *, status: str = "done", **more: Any
) -> RunDir:
    """The run of a plan as the engine leaves it."""
    [folder] = folders.create(home, [run])
    log = training(3, 3, 2.0)
    if status == "done":
        threats = {name: {**PGD, "eps": 0.25} for name in metrics}
        log += evaluation("best", metrics, {**threats, **more}, 359, 2, "best pgd10 on validation")
    append(folder, log, 1000.0)
    folder.write_json("exit.json", {"status": status, "code": int(status != "done"), "reason": "", "t": 1100.0})
    folder.write_json("heartbeat.json", {"pid": 1, "start_time": 0.0, "host": "x", "t": 1.0})
    return folder


def collected(home: Home, table: int, seeds: str = "0-1") -> result.Result:
    planned = plan_table(table, "tiny", seeds)
    return result.collect(home, planned, standing(home, planned.runs()), "best")


# --- rows and scales --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["full", "small", "tiny"])
@pytest.mark.parametrize("table", TABLES)
def test_every_published_number_of_every_table_is_a_cell(home: Home, table: int, scale: Any) -> None:
    planned = plan_table(table, scale, "0-1")
    found = result.collect(home, planned, {}, "best")
    cells = render.plan_json(found, None)["cells"]
    wanted = [
        {"row": row["label"], "metric": name, "published": row[name]}
        for row in PUBLISHED
        for name in METRICS
        if row["table"] == table and name in row
    ]
    assert [{name: cell[name] for name in ("row", "metric", "published")} for cell in cells] == wanted
    labels = [line.row.label for line in planned.lines]
    assert len(set(labels)) == len(labels) == sum(row["table"] == table for row in PUBLISHED)
    assert (found.notice == "") == (scale == "full")
    assert len(planned.runs()) == (1 if table == 4 else 2 * len(labels))  # no two rows are the same runs
    for line in planned.lines:
        if table != 4:
            assert [run.seed for run in line.runs] == [0, 1]
            missing = {METRICS[name] for name in line.row.published} - _evaluated(line.resolved)
            assert not missing, (line.row.label, missing)


def _evaluated(recipe: Any) -> set[str]:
    topology = {"topo_natural", "topo_robust"} if recipe.eval.topology else set()
    return {"natural", *recipe.eval.attacks, *topology} | ({"l_tp"} if recipe.topology.enabled else set())


@pytest.mark.parametrize(
    ("table", "label", "scale", "recipe", "settings"),
    [
        (1, "FAT", "full", "cifar10-fat", {"eval.protocol": "las", "eval.topology": False}),
        (1, "TRADES + LBGAT + TRAIN", "full", "cifar10-lbgat-trades-las",
         {"method.form": "paper", "standard.strides": "standard", "topology.enabled": True, "eval.topology": False}),
        (2, "SAT", "full", "cifar100-sat", {"eval.protocol": "las", "eval.topology": False}),
        (2, "TRADES + LBGAT", "full", "cifar100-lbgat-trades-las", {"eval.topology": False}),
        (2, "LAS-TRADES", "full", "cifar100-las-trades", {"eval.topology": False}),
        (3, "MCA", "full", "cifar100-at-mca", {"eval.topology": False}),
        (3, "Vanilla AT", "full", "cifar100-at", {}),
        (3, "Vanilla AT + TRAIN'", "tiny", "digits-at",
         {"topology.enabled": True, "topology.variant": "prime"}),
        (6, "TRADES + LBGAT", "full", "cifar100-lbgat-trades", {}),
        (6, "TRADES + LBGAT + TRAIN", "full", "cifar100-lbgat-trades-paper", {"topology.enabled": True}),
        (7, "LBGAT + ALP", "full", "tiny-imagenet-lbgat-alp", {"eval.attacks": ["pgd20"], "eval.topology": False}),
        (8, "TRADES + TRAIN (M = WRN-34-10)", "tiny", "digits-trades",
         {"standard.arch": "wrn-10-1", "topology.enabled": True}),
        (9, "Vanilla AT + TRAIN, batch 384", "full", "cifar100-at",
         {"optim.batch_size": 384, "topology.enabled": True, "eval.topology": False}),
        (10, "TRADES, lambda = 0", "full", "cifar100-trades",
         {"topology.enabled": True, "topology.weight": 0.0, "eval.attacks": ["pgd20"]}),
        (10, "TRADES + TRAIN, lambda = 20a", "full", "cifar100-trades", {"topology.enabled": True}),
        (11, "Vanilla AT + TRAIN*", "full", "cifar100-at",
         {"topology.enabled": True, "topology.variant": "star"}),
        (12, "TRADES + TRAIN", "tiny", "digits-trades-mobilenetv3",
         {"eval.aa_examples": 30, "topology.enabled": True, "eval.attacks": ["pgd20", "cw20", "aa"],
          "eval.topology": False}),
    ],
)  # fmt: skip
def test_what_a_row_means(table: int, label: str, scale: Any, recipe: str, settings: dict[str, Any]) -> None:
    [row] = [row for row in rows(table) if row.label == label]
    found = experiment(row, scale)
    assert (found.recipe, found.settings) == (recipe, settings)


@pytest.mark.parametrize("scale", ["full", "small", "tiny"])
def test_compare_finds_the_baselines_of_twins(scale: Any) -> None:
    """But where the tables have none of the same loss (LBGAT's own rows are quoted) or batch, or measure less."""
    found = [(row, experiment(row, scale)) for table in TABLES if table != 4 for row in rows(table)]
    recipes = [(row, resolve(its.recipe, its.overrides).recipe, its.recipe) for row, its in found]
    baselines = {group_of(recipe, name) for _, recipe, name in recipes if not recipe.topology.enabled}
    lonely = {
        row.label
        for row, recipe, name in recipes
        if recipe.topology.enabled and pair_of(recipe, name) not in baselines
        and recipe.method.name != "lbgat" and recipe.optim.batch_size < 256
    }  # fmt: skip
    assert all("lambda" in label for label in lonely), lonely


@pytest.mark.parametrize(
    ("table", "label", "wanted"),
    [
        (1, "FAT", {"milestones": [15, 22, 28], "tolerance_epoch": 13, "tolerance_every": 10, "tolerance_rises": 2}),
        (1, "GAIRAT", {"milestones": [15, 22, 28], "begin_epoch": 15, "lam_epoch": 15}),
        (2, "SAT", {"milestones": [12, 18, 24], "gate_epoch": 9, "gate_every": 1, "gate_rises": 12}),
        (6, "TRADES + TRAIN", {"milestones": [22, 27], "ramp_period": 30}),
    ],
)
def test_small_shortens_all_that_counts_epochs(table: int, label: str, wanted: dict[str, Any]) -> None:
    [row] = [row for row in rows(table) if row.label == label]
    found = experiment(row, "small")
    recipe = resolve(found.recipe, found.overrides).recipe
    values = {**recipe.schedule.model_dump(), **recipe.method.model_dump(), **recipe.topology.model_dump()}
    assert {name: values[name] for name in wanted} == wanted
    assert (recipe.schedule.epochs, recipe.model.arch, recipe.eval.aa_examples) == (30, "resnet-18", 1000)


def test_small_and_tiny_keep_what_tables_8_and_12_compare() -> None:
    for scale in ("small", "tiny"):
        eight = [line.resolved for line in plan_table(8, scale, "0").lines]
        assert eight[0].model.arch == eight[1].standard.arch != eight[3].standard.arch == eight[2].model.arch
        assert eight[1].model.arch == eight[3].model.arch
        twelve = [line.resolved for line in plan_table(12, scale, "0").lines]
        assert {recipe.model.arch for recipe in twelve} == {"mobilenetv3-large"}


def test_a_row_of_several_tables_is_one_run() -> None:
    for scale in ("full", "small", "tiny"):
        at = {
            table: {line.row.label: key(line.runs[0]) for line in plan_table(table, scale, "0").lines}
            for table in (3, 6, 8, 9, 10, 11)
        }
        assert at[3]["Vanilla AT"] == at[6]["Vanilla AT"] == at[11]["Vanilla AT"]
        assert at[3]["Vanilla AT + TRAIN"] == at[6]["Vanilla AT + TRAIN"] == at[9]["Vanilla AT + TRAIN, batch 128"]
        assert at[6]["TRADES + TRAIN"] == at[8]["TRADES + TRAIN (M = ResNet-18)"]
        same = "TRADES + TRAIN, lambda = 5a" if scale == "tiny" else "TRADES + TRAIN, lambda = 20a"
        assert at[6]["TRADES + TRAIN"] == at[10][same]


def test_the_baseline_of_a_row() -> None:
    found = {
        table: {row.label: base.label for row in rows(table) if (base := baseline(row)) is not None} for table in TABLES
    }
    assert found[3] == dict.fromkeys([row.label for row in rows(3)][1:], "Vanilla AT")
    assert found[7] == {
        "Vanilla AT + LBGAT": "Vanilla AT",
        "LBGAT + ALP": "ALP",
        "TRADES (beta=6) + LBGAT": "TRADES (beta=6)",
        "TRADES (beta=6) + TRAIN": "TRADES (beta=6)",
        "TRADES (beta=6) + LBGAT + TRAIN": "TRADES (beta=6) + LBGAT",
    }
    assert found[1]["ECAS + TRAIN"] == "ECAS" and "FAT" not in found[1]
    assert found[8] == {"TRADES + TRAIN (M = WRN-34-10)": "TRADES + TRAIN (M = ResNet-18)"}
    assert set(found[9].values()) == {"Vanilla AT + TRAIN, batch 128"} and len(found[9]) == 2
    assert set(found[10].values()) == {"TRADES, lambda = 0"} and len(found[10]) == 4


def test_settings_of_the_user_win_and_mistakes_are_told() -> None:
    changed = plan_table(9, "tiny", "0", ["optim.batch_size=32", "schedule.epochs=2"])
    assert {line.resolved.optim.batch_size for line in changed.lines} == {32}
    assert len(changed.runs()) == 1
    assert "schedule.epochs 2 instead" not in result.notice(changed)
    assert "epochs 2 instead of 100" in result.notice(changed)
    with pytest.raises(UsageError, match=r"optim\.btach_size"):
        plan_table(9, "tiny", "0", ["optim.btach_size=32"])


# --- what a home has --------------------------------------------------------------------------------------------


def test_runs_of_other_commands_count_and_runs_without_the_evaluations_do_not(home: Home) -> None:
    done = finish(home, plan(["digits-at"], seeds="0")[0])
    finish(home, plan(["digits-at"], overrides=["eval.attacks=['pgd20']"], seeds="1")[0])
    finish(home, plan(["digits-at"], overrides=["optim.lr=0.05"], seeds="1")[0])
    for table in (3, 6, 11):
        planned = plan_table(table, "tiny", "0-1")
        assert [row.id for row in standing(home, planned.runs()).values()] == [done.id]


def test_a_run_that_is_done_counts_before_a_newer_one_that_is_not(home: Home) -> None:
    [run] = plan(["digits-at"], seeds="0")
    wanted = plan_table(11, "tiny", "0").runs()[:1]
    for status in ("diverged", "killed", "failed"):
        newest = finish(home, run, status=status)
        assert [row.id for row in standing(home, wanted).values()] == [newest.id]
    done = finish(home, run)
    finish(home, run, status="killed")
    finish(home, run, status="diverged")
    assert [row.id for row in standing(home, wanted).values()] == [done.id]


def test_table_4_is_one_run_of_its_own(home: Home) -> None:
    planned = plan_table(4, "tiny", "0-2")
    [run] = planned.runs()
    assert len(planned.beside) == len(planned.lines) == 6
    timed = [tomli.loads(text) for _, text in sorted(planned.beside.items())]
    assert [(one["method"]["name"], one["topology"]["enabled"]) for one in timed] == [
        ("at", False), ("lbgat", False), ("at", True), ("trades", False), ("lbgat", False), ("trades", True),
    ]  # fmt: skip
    [folder] = folders.create(home, [run], beside=planned.beside)
    assert len(list((folder.path / "timed").glob("*.toml"))) == 6
    append(folder, [("end", {"status": "done"})], 1000.0)
    folder.write_json("exit.json", {"status": "done", "code": 0, "t": 1100.0})
    assert [row.id for row in standing(home, planned.runs()).values()] == [folder.id]
    assert standing(home, plan_table(6, "tiny", "0").runs()) == {}


# --- numbers ----------------------------------------------------------------------------------------------------


def test_numbers_beside_the_printed_ones(home: Home) -> None:
    before, after = plan_table(11, "tiny", "0-1").lines[0].runs, plan_table(11, "tiny", "0-1").lines[2].runs
    for run, natural in zip(before, (90.0, 92.0), strict=True):
        finish(home, run, {**GOOD, "natural": natural})
    for run, natural in zip(after, (89.0, 90.0), strict=True):
        finish(home, run, {**GOOD, "natural": natural})
    cells = {(cell["row"], cell["metric"]): cell for cell in render.as_json(collected(home, 11))["cells"]}
    base = cells["Vanilla AT", "natural"]
    assert (base["mean"], base["n"], base["published"], base["delta"]) == (91.0, 2, 60.44, None)
    assert base["std"] == pytest.approx(2**0.5) and base["difference"] == pytest.approx(91.0 - 60.44)
    train = cells["Vanilla AT + TRAIN", "natural"]
    # differences -1 and -2: mean -1.5, half of the 95 % interval 12.706 * 0.5
    assert train["delta"]["mean"] == -1.5 and train["delta"]["high"] == pytest.approx(-1.5 + 6.353, abs=1e-3)
    assert train["published_delta"] == pytest.approx(66.39 - 60.44)
    assert cells["Vanilla AT + TRAIN*", "natural"]["mean"] is None


def test_what_is_unlike_in_the_paper_is_marked(home: Home) -> None:
    for run in plan_table(11, "tiny", "0").lines[0].runs:
        finish(home, run)
    found = collected(home, 11, "0")
    [pgd] = [cell for cell in found.outcomes[0].cells if cell.metric == "pgd20"]
    assert pgd.unlike == ("ε 0.25 instead of 0.031, step 0.025 instead of 0.003, images 359 instead of 10000",)
    section = render.grid(found).sections[0]
    assert "NOT the paper's setting" in section.caption
    assert len(section.heads[1].marks) == 1 and section.rows[0].cells[1].marks == ()  # said once, at the head
    paper = {"eps": 0.031, "step_size": 0.003, "steps": 20, "start": "uniform", "n": 10000}
    assert result.unlike_paper(rows(11)[0], "pgd20", paper) == ""
    assert result.unlike_paper(rows(1)[0], "pgd20", paper).startswith("ε 0.031 instead of 0.03137")


def test_rows_say_what_is_odd_about_them(home: Home) -> None:
    notes = {
        table: {outcome.line.row.label: " ".join(outcome.notes) for outcome in collected(home, table).outcomes}
        for table in (1, 6, 8, 9, 10)
    }
    assert "quotes this row from LBGAT" in notes[6]["TRADES"] and "LBGAT" not in notes[6]["Vanilla AT"]
    assert "authors' code" in notes[6]["TRADES + LBGAT + TRAIN"] and "authors' code" not in notes[6]["TRADES + LBGAT"]
    assert "label is doubtful" in notes[8]["TRADES + TRAIN (M = ResNet-18)"]
    assert "text says the ablations are on TRADES" in notes[9]["Vanilla AT + TRAIN, batch 256"]
    assert "33.97" in notes[10]["TRADES + TRAIN, lambda = 20a"]
    assert "variant" in notes[1]["ECAS"]
    assert any("agree with Table 6" in text for text in collected(home, 3).notes)
    assert any("last batch" in text for text in collected(home, 3).notes)


def test_what_the_notice_says() -> None:
    small = result.notice(plan_table(6, "small", "1"))
    assert small.startswith(
        "This is NOT the paper's setting: epochs 30 instead of 100, M' resnet-18 instead of wrn-34-10"
    )
    assert "AutoAttack on 1000 images" in small
    tiny = result.notice(plan_table(11, "tiny", "0", ["optim.momentum=0.8"]))
    for said in ("data set digits instead of cifar100", "ε 0.25 instead of 0.031", "--set optim.momentum=0.8"):
        assert said in tiny


def test_the_printed_table(home: Home) -> None:
    planned = plan_table(11, "tiny", "0-1")
    for run in planned.lines[0].runs:
        finish(home, run)
    finish(home, planned.lines[2].runs[0], {**GOOD, "natural": 94.0})
    finish(home, planned.lines[2].runs[1], status="diverged")
    text = write(render.grid(collected(home, 11)))
    assert "| Vanilla AT | 2 | 95.00 ± 0.00 |" in text
    assert "| Δ to Vanilla AT | 1 | -1.00 |" in text  # it does not help, and says so
    assert "| *paper's Δ* |  | +5.95 |" in text
    assert "seed 1: diverged" in text and "difference" not in text
    lines = render.csv(collected(home, 11)).splitlines()
    assert len(lines) == 1 + 12 and lines[1].startswith("11,tiny,best,Vanilla AT,natural,60.44,95.0,0.0,2,")
    json.dumps(render.as_json(collected(home, 11)), allow_nan=False)


def test_in_the_papers_setting_levels_are_compared_too(home: Home) -> None:
    planned = plan_table(11, "full", "1")
    finish(home, planned.lines[0].runs[0], {**GOOD, "natural": 61.0})
    text = write(render.grid(result.collect(home, planned, standing(home, planned.runs()), "best")))
    assert "| difference |  | +0.56 |" in text and "the paper's own setting" in text


def test_times_are_compared_round_by_round(home: Home) -> None:
    planned = plan_table(4, "tiny", "0")
    found = result.collect(home, planned, {}, "best")
    assert all(time.seconds is None for time in timing.read(home, found))
    [folder] = folders.create(home, planned.runs(), beside=planned.beside)
    steps = [[1.0, 2.0, 1.0], [1.5, 2.0, 1.3], [1.1, 2.2, 1.1], [2.0, 4.0, 3.0], [2.0, 4.0, 3.0], [2.2, 4.4, 3.0]]
    common = {"steps_per_epoch": 10, "rounds": 3, "steps": 9, "seconds_per_step": 1.0, "seconds_per_epoch": 10.0}
    log = [("timing", {"setting": index, "round_seconds": each, **common}) for index, each in enumerate(steps)]
    append(folder, log, 1000.0)
    folder.write_json("exit.json", {"status": "done", "code": 0, "t": 1100.0})
    found = result.collect(home, planned, standing(home, planned.runs()), "best")
    times = timing.read(home, found)
    assert times[0].ratio is None and times[0].seconds == 10.0
    assert times[1].ratio is not None and times[1].ratio.median == 1.3  # of 1.5, 1 and 1.3, not of the sums
    assert times[5].ratio is not None and times[5].ratio.median == pytest.approx(2.2)
    assert times[5].base == "TRADES" and times[5].base_ratio is not None
    assert times[5].base_ratio.median == pytest.approx(1.1)
    assert times[5].base_ratio.published == pytest.approx(1109 / 1079)
    cells = timing.as_json(found, times)["cells"]
    assert [(cell["row"], cell["published"]) for cell in cells] == [
        (row["label"], row["epoch_seconds"]) for row in PUBLISHED if row["table"] == 4
    ]
    assert len(timing.csv(found, times).splitlines()) == 7
    assert "| Vanilla AT + TRAIN | 3 | 10 | 1.100" in write(timing.grid(found, times))


# --- how long ---------------------------------------------------------------------------------------------------


def test_an_estimate_from_past_runs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainctl.reproduce.estimate.slots.cores", lambda: 1)
    monkeypatch.setattr("trainctl.reproduce.estimate.slots.gpus", list)
    planned = plan_table(11, "tiny", "0-1")
    assert estimate.seconds(home, planned, {}) == 6 * estimate.TINY
    assert estimate.seconds(home, plan_table(11, "full", "1"), {}) is None
    for run in planned.runs():
        if run.seed == 0:
            finish(home, run)
    have = standing(home, planned.runs())
    assert len(have) == 3
    # 20 epochs, 3 s from one epoch event to the next (two steps between), and 6 evaluations of 0.5 s
    assert estimate.seconds(home, planned, have) == pytest.approx(3 * (20 * 3.0 + 3.0))
    for run in planned.runs():
        if run.seed == 1:
            finish(home, run)
    assert estimate.seconds(home, planned, standing(home, planned.runs())) == 0
