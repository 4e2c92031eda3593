# ruff: noqa: E501 - what a person reads stands on one line here as there
"""Recipes × grid × seeds × sides: which runs, in which order, under which names and groups."""

import pytest

from engine.recipe import check
from trainctl.errors import UsageError
from trainctl.recipes.load import RecipeProblems
from trainctl.recipes.plan import check_name, group_of, pair_of, parse_seeds, plan, with_seed


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*recipes, **options):
    return [run.name for run in plan(recipes, **options)]


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("3", [3]),
        ("0-4", [0, 1, 2, 3, 4]),
        ("0,2,5", [0, 2, 5]),
        ("0-2,7", [0, 1, 2, 7]),
        (" 4 , 1-2", [4, 1, 2]),
        ("2,1-3", [2, 1, 3]),
        ("5-5", [5]),
    ],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "1,,2", "1.5", "0x3", "٣", "3-1", "0-10000", "1-2-3", "9" * 30])
def test_bad_seeds(text):
    with pytest.raises(UsageError, match="--seeds"):
        parse_seeds(text)
    with pytest.raises(UsageError, match="--seeds"):
        plan(["digits-trades"], seeds=text)


def test_a_plain_run_keeps_the_recipes_seed():
    (run,) = plan(["digits-trades"], overrides=["run.seed=9", "schedule.epochs=2"])
    assert (run.name, run.recipe_name, run.seed) == ("digits-trades-s9", "digits-trades", 9)
    assert run.overrides == ("run.seed=9", "schedule.epochs=2")
    assert run.group == run.pair
    assert not run.recipe.topology.enabled and run.recipe.schedule.epochs == 2


def test_pair_and_seeds_come_seed_by_seed():
    runs = plan(["digits-trades", "digits-at"], seeds="0-1", pair=True)
    assert [run.name for run in runs] == [
        "digits-trades-s0", "digits-trades+train-s0", "digits-trades-s1", "digits-trades+train-s1",
        "digits-at-s0", "digits-at+train-s0", "digits-at-s1", "digits-at+train-s1",
    ]  # fmt: skip
    assert [run.recipe.topology.enabled for run in runs] == [False, True] * 4
    assert [run.recipe.run.seed for run in runs] == [run.seed for run in runs] == [0, 0, 1, 1] * 2
    assert len({run.pair for run in runs}) == 2
    assert len({run.group for run in runs}) == 4
    assert runs[0].group == runs[2].group == runs[0].pair
    assert runs[1].group.startswith("digits-trades+train-")


def test_the_two_sides_differ_in_topology_alone():
    baseline, twin = plan(["cifar10-lbgat-trades"], pair=True)
    one, other = baseline.recipe.model_dump(), twin.recipe.model_dump()
    assert one.pop("topology") | {"enabled": True} == other.pop("topology")
    assert one == other


def test_train_alone():
    (run,) = plan(["digits-trades"], train=True)
    assert run.name == "digits-trades+train-s1" and run.recipe.topology.enabled
    assert run.pair == plan(["digits-trades"])[0].group


def test_topology_switched_on_by_the_recipe_counts_as_train():
    assert plan(["digits-trades"], overrides=["topology.enabled=true"])[0].name == "digits-trades+train-s1"
    assert names("digits-trades", overrides=["topology.enabled=true"], pair=True) == [
        "digits-trades-s1", "digits-trades+train-s1",
    ]  # fmt: skip


def test_pair_and_train_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        plan(["digits-trades"], pair=True, train=True)


def test_a_seed_that_was_set_and_seeds_exclude_each_other():
    with pytest.raises(UsageError, match=r"--seeds and --set run\.seed"):
        plan(["digits-trades"], overrides=["run.seed=3"], seeds="0")
    assert plan(["digits-trades"], overrides=["run.seed=3"])[0].name == "digits-trades-s3"


def test_nothing_named():
    with pytest.raises(UsageError, match="no recipe"):
        plan([])


@pytest.mark.parametrize("options", [{"pair": True}, {"train": True}])
def test_a_method_without_attack_has_no_twin(options):
    with pytest.raises(RecipeProblems) as caught:
        plan(["digits-standard"], **options)
    flag = f"--{next(iter(options))}"
    assert str(caught.value) == (
        f"{flag}: topology.enabled: method 'standard' makes no adversarial images, which L_TP needs "
        "(choose an adversarial method, or topology.enabled = false)"
    )


# ---- grid


def test_grid_is_a_cartesian_product():
    runs = plan(["digits-at"], grid=["optim.lr=0.1,1e-2", "schedule.milestones=[15, 18],[5]"])
    assert [run.name for run in runs] == [
        "digits-at optim.lr=0.1 schedule.milestones=[15, 18]-s1",
        "digits-at optim.lr=0.1 schedule.milestones=[5]-s1",
        "digits-at optim.lr=1e-2 schedule.milestones=[15, 18]-s1",
        "digits-at optim.lr=1e-2 schedule.milestones=[5]-s1",
    ]
    assert [(run.recipe.optim.lr, run.recipe.schedule.milestones) for run in runs] == [
        (0.1, [15, 18]), (0.1, [5]), (0.01, [15, 18]), (0.01, [5]),
    ]  # fmt: skip
    assert len({run.group for run in runs}) == 4
    assert runs[1].overrides == ("optim.lr=0.1", "schedule.milestones=[5]")


def test_grid_values_are_toml_or_bare():
    runs = plan(["digits-at"], grid=["model.arch='small-cnn',wrn-10-1", "attack.eps=8/255,0.1", 'data.root="a,b",c'])
    assert {run.recipe.model.arch for run in runs} == {"small-cnn", "wrn-10-1"}
    assert {run.recipe.attack.eps for run in runs} == {8 / 255, 0.1}
    assert {run.recipe.data.root for run in runs} == {"a,b", "c"}
    assert runs[0].name == "digits-at model.arch='small-cnn' attack.eps=8_255 data.root=\"a,b\"-s1"


def test_grid_wins_over_set():
    assert [run.recipe.optim.lr for run in plan(["digits-at"], overrides=["optim.lr=9"], grid=["optim.lr=1,2"])] == [
        1,
        2,
    ]


def test_a_grid_over_topology_runs_the_baseline_once():
    runs = plan(["digits-trades"], grid=["topology.weight=5,20"], pair=True, seeds="0,1")
    assert [run.name for run in runs] == [
        "digits-trades-s0",
        "digits-trades+train topology.weight=5-s0",
        "digits-trades-s1",
        "digits-trades+train topology.weight=5-s1",
        "digits-trades+train topology.weight=20-s0",
        "digits-trades+train topology.weight=20-s1",
    ]
    assert len({run.pair for run in runs}) == 1
    assert len({run.group for run in runs}) == 3


def test_a_grid_over_the_standard_network_runs_a_baseline_without_it_once():
    assert names("digits-at", grid=["standard.width=8,16"], pair=True) == [
        "digits-at-s1", "digits-at+train standard.width=8-s1", "digits-at+train standard.width=16-s1",
    ]  # fmt: skip
    assert len(names("digits-lbgat-at", grid=["standard.width=8,16"], pair=True)) == 4


def test_identical_runs_are_planned_once():
    assert names("digits-at", "digits-at", seeds="1,1") == ["digits-at-s1"]
    assert names("digits-at", grid=["optim.lr=0.1,0.10"]) == ["digits-at optim.lr=0.1-s1"]


def test_runs_that_are_carried_out_differently_are_repetitions_of_one_group():
    runs = plan(["digits-at"], grid=["run.threads=1,2"])
    assert len(runs) == 2 and len({run.group for run in runs}) == 1


def test_a_grid_over_seeds():
    assert names("digits-at", grid=["run.seed=4,5"]) == ["digits-at-s4", "digits-at-s5"]
    with pytest.raises(UsageError, match="exclude"):
        plan(["digits-at"], grid=["run.seed=4,5"], seeds="1")


@pytest.mark.parametrize(
    "grid, message",
    [
        (["optim.lr"], "--grid optim.lr: expected KEY=VALUE (as in --grid a.b=1,2,3)"),
        (["optim.lr=1,,2"], "--grid optim.lr=1,,2: optim.lr: a value is empty (--grid a.b=1,2,3)"),
        (["optim.lr=[1"], "--grid optim.lr=[1: optim.lr: not a TOML value: Unclosed array (quote the whole for the shell: --set 'a.b=[1, 2]')"),
        (["optim.lr=1,x"], "--grid optim.lr=1,x: optim.lr: 'x' is not allowed: expected a valid number"),
        (["optim.l=1,2"], "--grid optim.l=1,2: optim.l: unknown key (did you mean 'lr'?)"),
        (["optim.lr=1", "optim.lr=2"], "--grid names optim.lr twice"),
    ],
)  # fmt: skip
def test_bad_grid(grid, message):
    with pytest.raises(UsageError) as caught:
        plan(["digits-at"], grid=grid)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "options",
    [
        {"grid": [f"run.seed={','.join(map(str, range(101)))}", f"eval.seed={','.join(map(str, range(101)))}"]},
        {"seeds": "0-5000", "pair": True},
    ],
)
def test_too_many_runs_are_refused_before_they_are_made(options):
    with pytest.raises(UsageError, match="more than 10000"):
        plan(["digits-at"], **options)


def test_mistakes_of_all_recipes_and_options_come_together(folder):
    (folder / "bad.toml").write_text("[topology]\nenabled = 1\nweigth = 2\n")
    with pytest.raises(RecipeProblems) as caught:
        plan(["digits-trads", "bad.toml", "digits-at"], overrides=["optim.lr=x"], grid=["oops"], pair=True)
    assert str(caught.value).split("\n") == [
        "--grid oops: expected KEY=VALUE (as in --grid a.b=1,2,3)",
        "there is no recipe 'digits-trads' (did you mean 'digits-trades'?)",
        "bad.toml:2: topology.enabled: 1 is not allowed: expected a valid boolean",
        "bad.toml:3: topology.weigth: unknown key (did you mean 'weight'?)",
        "--set optim.lr=x: optim.lr: 'x' is not allowed: expected a valid number",
    ]


def test_pair_does_not_hide_a_topology_that_is_no_table(folder):
    (folder / "bad.toml").write_text("topology = 3\n")
    with pytest.raises(RecipeProblems, match=r"bad\.toml:1: topology: 3 is not allowed"):
        plan(["bad.toml"], pair=True)


# ---- names


def test_given_names():
    assert names("digits-at", name="try", seeds="0-1", pair=True) == [
        "try-s0",
        "try+train-s0",
        "try-s1",
        "try+train-s1",
    ]
    assert names("digits-at", name="try", grid=["optim.lr=1,2"]) == ["try optim.lr=1-s1", "try optim.lr=2-s1"]
    assert names("digits-at", "digits-trades", name="try") == ["try-digits-at-s1", "try-digits-trades-s1"]


def test_a_recipe_of_ones_own_gives_its_name(folder):
    (folder / "mine.toml").write_text('extends = "digits-at"\n')
    assert names("mine.toml", pair=True) == ["mine-s1", "mine+train-s1"]


@pytest.mark.parametrize("name", ["a/b", "a\nb", "\x1b[31m", "@last", "-d", " a", "x" * 120])
def test_names_that_cannot_be(name):
    with pytest.raises(UsageError, match="name"):
        plan(["digits-at"], name=name)


def test_the_longest_name():
    check_name("x" * 120)
    with pytest.raises(UsageError, match="121 characters"):
        check_name("x" * 121)


# ---- group and pair

BASE = {"optim": {"lr": 0.2}, "method": {"name": "at"}}


def both(changes):
    recipe = check({**BASE, **changes})
    return group_of(recipe, "r"), pair_of(recipe, "r")


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "x", "description": "y"},
        {"run": {"seed": 5}},
        {"run": {"device": "cpu", "threads": 3, "log_every": 1}},
        {"topology": {"weight": 99.0, "ramp": True}},
        {"standard": {"arch": "wrn-10-1"}},
    ],
)
def test_what_has_no_effect_does_not_change_the_group(changes):
    assert both(changes) == both({})


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": {"lr": 0.3}},
        {"run": {"precision": "float32"}},
        {"eval": {"attacks": ["pgd20"]}},
        {"data": {"crop": 1}},
        {"method": {"name": "trades"}},
        {"method": {"name": "trades", "beta": 5.0}},
    ],
)
def test_what_has_an_effect_changes_group_and_pair(changes):
    assert both(changes)[0] != both({})[0] and both(changes)[1] != both({})[1]


def test_the_standard_network_counts_where_it_is_used():
    lbgat = {"method": {"name": "lbgat"}}
    assert both({**lbgat, "standard": {"arch": "wrn-10-1"}}) != both(lbgat)
    twin = {"topology": {"enabled": True}}
    assert both({**twin, "standard": {"arch": "wrn-10-1"}})[0] != both(twin)[0]
    assert both({**twin, "standard": {"arch": "wrn-10-1"}})[1] == both(twin)[1] == both({})[0]


def test_group_is_stable_and_readable():
    group, pair = both({"topology": {"enabled": True}})
    assert group.startswith("r+train-") and len(group) == len("r+train-") + 8
    assert pair.startswith("r-") and set(pair[2:]) <= set("0123456789abcdef")
    assert group == both({"topology": {"enabled": True}})[0]


def test_seeds_do_not_touch_the_recipe_they_come_from():
    recipe = check(BASE)
    assert with_seed(recipe, 7).run.seed == 7 and recipe.run.seed == 1
