"""The shipped recipes: complete, free of mistakes, with the settings of the literature."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from engine.options import catalog
from engine.recipe import needs_standard
from trainctl.recipes.load import dump, resolve
from trainctl.recipes.locate import shipped, shipped_folder
from trainctl.recipes.plan import plan

FIVE = ["at", "lbgat-at", "lbgat-trades", "standard", "trades"]
SMALL, LARGE = ["digits", "fashion-mnist"], ["cifar10", "cifar100", "tiny-imagenet"]
# Methods with settings of their own, which their own tests look at.
OWN = [
    "alp", "mart", "at-awp", "trades-awp", "gairat", "fat", "fat-trades", "fat-mart", "sat", "ecas", "ecas-trades",
    "ecas-awp",
]  # fmt: skip
TABLE_7 = ["tiny-imagenet-alp", "tiny-imagenet-lbgat-alp"]  # beside those of FIVE
TABLE_3 = [f"{data}-at-{term}" for data in ("digits", "cifar10", "cifar100") for term in ("crd", "mca", "rkd")]
TABLE_12 = [f"{data}-{base}-mobilenetv3" for data in ("digits", "cifar100") for base in ("at", "trades")]
LBGAT_ALP = [f"{data}-lbgat-alp" for data in ("digits", "cifar10", "cifar100")]
LAS = [f"{data}-las-{base}" for data in ("digits", "cifar10", "cifar100") for base in ("at", "awp", "trades")]
FLAVOURS = [f"{data}-at-{code}" for data in ("cifar10", "cifar100") for code in ("bag-of-tricks", "rice")]
EXPECTED = sorted(
    [f"{data}-{name}" for data in SMALL + LARGE for name in FIVE]
    + [f"{data}-{name}-las" for data in LARGE for name in FIVE]
    + [f"{data}-lbgat-{base}-paper" for data in LARGE for base in ("at", "trades")]
    + [f"{data}-{name}" for data in ("digits", "cifar10", "cifar100") for name in OWN]
    + [f"{data}-{name}" for data in ("cifar10", "cifar100") for name in ("mart-resnet-18", "sat-steps")]
    + [*TABLE_3, *TABLE_7, *TABLE_12, *LBGAT_ALP, *LAS, *FLAVOURS, "tiny-imagenet-las-at"]
)
LBGAT_PROTOCOL = [f"{data}-{name}" for data in LARGE for name in [*FIVE, "lbgat-at-paper", "lbgat-trades-paper"]]
LBGAT_PROTOCOL += TABLE_7
LBGAT_PROTOCOL += [name for name in TABLE_3 + TABLE_12 + LBGAT_ALP if not name.startswith("digits")]
LAS_PROTOCOL = [f"{data}-{name}-las" for data in LARGE for name in FIVE]


def recipe(name):
    return resolve(name).recipe


def test_all_are_there():
    assert sorted(shipped()) == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_it_checks_and_says_what_it_is(name):
    found = resolve(name)
    text = found.recipe.title + found.recipe.description
    assert found.name == name and found.recipe.title and "\n" not in found.recipe.title
    assert name.startswith(found.recipe.data.dataset)
    assert "ours" in text or "et al." in text
    assert tomli.loads(dump(found.recipe))["method"]["name"] in catalog("Method")


@pytest.mark.parametrize("name", EXPECTED)
def test_every_adversarial_recipe_has_a_pair(name):
    seed = recipe(name).run.seed
    if recipe(name).method.name == "standard":
        assert [run.name for run in plan([name])] == [f"{name}-s{seed}"]
    else:
        assert [run.name for run in plan([name], pair=True)] == [f"{name}-s{seed}", f"{name}+train-s{seed}"]


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_vanilla_at_in_the_forms_of_other_codes(data):
    rice, tricks = recipe(f"{data}-at-rice"), recipe(f"{data}-at-bag-of-tricks")
    assert (rice.schedule.epochs, rice.schedule.milestones, rice.attack.batchnorm) == (200, [101, 151], "train")
    assert (tricks.schedule.epochs, tricks.schedule.milestones, tricks.attack.batchnorm) == (110, [101, 106], "eval")
    assert (rice.method.code, tricks.method.code) == ("rice", "bag-of-tricks")
    for found in (rice, tricks):
        assert found.attack.eps == 8 / 255 and found.attack.start == "uniform" and found.model.mean
        assert (found.optim.lr, found.optim.weight_decay) == (0.1, 5e-4)
    assert recipe("cifar10-at-rice").data.padding == "reflect"


def test_titles_are_unique():
    titles = [recipe(name).title for name in EXPECTED]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_title_says_what_is_our_reading(name):
    r = recipe(name)
    assert r.title.endswith(" (our reading)") == bool(r.our_reading)
    assert r.our_reading or "our reading" not in r.description.replace("\n", " ")
    assert "\n" not in r.our_reading and not r.our_reading.endswith(".")


def test_every_file_is_a_recipe_or_is_extended_by_one():
    used = {Path(file).resolve() for name in EXPECTED for file in resolve(name).files}
    assert {file.resolve() for file in shipped_folder().rglob("*.toml")} == used


@pytest.mark.parametrize("name", LBGAT_PROTOCOL)
def test_lbgat_protocol(name):
    r = recipe(name)
    official = r.method.name == "lbgat" and r.method.form == "official"
    assert (r.attack.eps, r.attack.step_size, r.attack.steps) == (0.031, 0.007, 10)
    assert (r.attack.batchnorm, r.eval.protocol, r.eval.select) == ("eval", "lbgat", "test")
    assert (r.schedule.epochs, r.schedule.gamma) == (100, 0.1)
    assert r.schedule.milestones == ([76, 91] if official else [75, 90])
    assert r.schedule.first_epoch_lr == (0.02 if official else 0.0)
    assert r.standard.strides == ("lbgat" if official else "standard")
    assert (r.optim.lr, r.optim.momentum, r.optim.weight_decay, r.optim.batch_size) == (0.1, 0.9, 2e-4, 128)


@pytest.mark.parametrize("name", LAS_PROTOCOL)
def test_las_protocol(name):
    r = recipe(name)
    assert (r.attack.eps, r.attack.step_size, r.attack.steps) == (8 / 255, 2 / 255, 10)
    assert (r.attack.batchnorm, r.eval.protocol, r.eval.select) == ("eval", "las", "test")
    assert (r.schedule.epochs, r.schedule.milestones, r.schedule.gamma) == (110, [100, 105], 0.1)
    assert r.schedule.first_epoch_lr == 0.0
    assert (r.optim.lr, r.optim.momentum, r.optim.weight_decay, r.optim.batch_size) == (0.1, 0.9, 5e-4, 128)
    assert r.attack.start == ("uniform" if r.method.name == "at" else "auto")


@pytest.mark.parametrize("name", LBGAT_PROTOCOL + LAS_PROTOCOL)
def test_both_protocols(name):
    r = recipe(name)
    special = "resnet-18" if r.method.name == "standard" else "mobilenetv3-large" if name in TABLE_12 else ""
    assert r.model.arch == (special or "wrn-34-10")
    assert r.standard.arch == "resnet-18" and r.run.seed == 1
    assert (r.eval.eps, r.eval.step_size) == (0.0, 0.0)  # the protocol's own
    assert r.eval.best_by == ("natural" if r.method.name == "standard" else "pgd10")
    tiny = r.data.dataset == "tiny-imagenet"
    assert (r.data.crop, r.data.padding, r.data.flip) == (4, "zeros", not tiny)
    assert r.eval.attacks == (["pgd20", "cw20"] if tiny else ["pgd20", "cw20", "aa"])
    assert (r.topology.weight, r.topology.ramp) == ((5.0, False) if r.data.dataset == "cifar10" else (20.0, True))
    assert (r.topology.ramp_period, r.topology.ramp_form) == (100, "dann")
    assert not r.topology.enabled


@pytest.mark.parametrize("name", SMALL)
def test_small_sets_evaluate_at_the_radius_they_train_with(name):
    for kind in FIVE:
        r = recipe(f"{name}-{kind}")
        assert r.eval.eps == r.attack.eps
        assert r.eval.step_size == 0.0  # the protocol's own proportion to eps; a step set here would weaken PGD-10
        assert r.eval.select == "validation" and r.model.arch == r.standard.arch == "small-cnn"
        assert r.topology.ramp_period == 0 and r.schedule.milestones[-1] < r.schedule.epochs


@pytest.mark.parametrize("name", [name for name in EXPECTED if "trades" in name and name not in LAS])
def test_trades_has_beta_6(name):
    assert recipe(name).method.beta == 6.0


def test_logit_pairing_has_weight_1_and_climbs_the_cross_entropy_from_a_gaussian_start():
    alp = recipe("tiny-imagenet-alp")
    assert (alp.method.form, alp.method.weight, alp.attack.loss, alp.attack.start) == ("mixed", 1.0, "ce", "gaussian")
    for name in (*LBGAT_ALP, "tiny-imagenet-lbgat-alp"):
        r = recipe(name)
        assert (r.method.base, r.method.form, r.method.alpha, r.method.gamma) == ("alp", "official", 1.0, 1.0)
        assert (r.attack.loss, r.attack.start) == ("auto", "auto")  # the method's own, see test_methods


@pytest.mark.parametrize("name", TABLE_3)
def test_the_terms_of_table_3_stand_on_vanilla_at(name):
    data, _, term = name.rsplit("-", 2)
    r, base = recipe(name), recipe(f"{data}-at")
    small = data == "digits"
    settings = {
        "rkd": {"weight": 25.0, "form": "cosine", "distance": 1.0, "angle": 2.0, "source": "adversarial"},
        "crd": {
            "weight": 0.8, "negatives": 512 if small else 16384, "dim": 128, "temperature": 0.07, "momentum": 0.5
        },
        "mca": {"weight": 1.0, "temperature": 0.1, "negatives": 512 if small else 4096},
    }  # fmt: skip
    own = {"title", "description", "our_reading", "terms"}
    assert r.terms.model_dump() == {term: settings[term]}
    assert r.model_dump(exclude=own) == base.model_dump(exclude=own)
    assert r.our_reading == catalog("Term")[term].constants["inferred"]  # so that a table says it once
    assert needs_standard(r) == (term != "mca")


@pytest.mark.parametrize("name", TABLE_12)
def test_table_12_has_its_own_network(name):
    data, base, _ = name.rsplit("-", 2)
    r, other = recipe(name), recipe(f"{data}-{base}")
    assert (r.model.arch, r.model.stem) == ("mobilenetv3-large", "cifar" if data == "digits" else "imagenet")
    assert (r.standard, r.method) == (other.standard, other.method)
    assert data == "digits" or r.model_dump()["optim"] == other.model_dump()["optim"]


# ---- trainctl recipes, as a program


def trainctl(folder, *arguments):
    command = [sys.executable, "-m", "trainctl", "recipes", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, env=environment)


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_list(tmp_path, arguments):
    done = trainctl(tmp_path, *arguments)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["name", "data", "set", "method", "epochs", "title"]
    assert [line.split()[0] for line in lines[1:]] == EXPECTED
    assert any(
        line.split() == ["cifar100-trades", "cifar100", "trades", "100", "TRADES", "on", "CIFAR-100"] for line in lines
    )


def test_list_json(tmp_path):
    rows = json.loads(trainctl(tmp_path, "--json").stdout)
    assert rows == json.loads(trainctl(tmp_path, "list", "--json").stdout)
    assert [row["name"] for row in rows] == EXPECTED
    row = next(row for row in rows if row["name"] == "digits-lbgat-at")
    assert (row["dataset"], row["method"], row["epochs"]) == (
        "digits",
        "lbgat",
        recipe("digits-lbgat-at").schedule.epochs,
    )


def test_show_prints_a_recipe_that_stands_alone(tmp_path):
    done = trainctl(tmp_path, "show", "digits-trades", "--set", "optim.lr=0.5", "--origin")
    assert done.returncode == 0 and "\x1b" not in done.stdout
    (tmp_path / "again.toml").write_text(done.stdout)
    again = resolve(str(tmp_path / "again.toml"))
    assert again.recipe.model_dump() == resolve("digits-trades", ["optim.lr=0.5"]).recipe.model_dump()
    lines = done.stdout.splitlines()
    assert "lr = 0.5  # --set optim.lr=0.5" in lines
    assert 'root = ""  # default' in lines
    assert any(line.startswith("beta = 6.0  # ") and "digits/trades.toml:" in line for line in lines)


def test_show_is_coloured_on_a_terminal(tmp_path):
    master, slave = pty.openpty()
    code = "from trainctl.cli.recipes import recipes; recipes(['show', 'digits-trades'])"
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm-256color"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    with subprocess.Popen([sys.executable, "-c", code], stdout=slave, env=environment, cwd=tmp_path) as process:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while part := os.read(master, 65536):
                shown += part
        os.close(master)
    assert process.returncode == 0
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", shown)
    assert b"\x1b[" in shown and b'arch = "small-cnn"' in plain


def test_show_json(tmp_path):
    shown = json.loads(trainctl(tmp_path, "show", "digits-at", "--set", "optim.lr=0.5", "--json").stdout)
    assert shown["name"] == "digits-at" and shown["recipe"]["optim"]["lr"] == 0.5
    assert shown["origins"]["optim.lr"] == "--set optim.lr=0.5"
    assert shown["files"][0].endswith("digits/at.toml")


def test_check(tmp_path):
    (tmp_path / "bad.toml").write_text("[optim]\nlr = 'x'\nmomentm = 1\n")
    done = trainctl(tmp_path, "check", "digits-at", "bad.toml", "digits-ta")
    assert done.returncode == 2
    assert done.stdout == "ok  digits-at\n"
    assert done.stderr.splitlines() == [
        "error: bad.toml:2: optim.lr: 'x' is not allowed: expected a valid number",
        "bad.toml:3: optim.momentm: unknown key (did you mean 'momentum'?)",
        "there is no recipe 'digits-ta' (did you mean 'digits-at'?)",
    ]
    assert trainctl(tmp_path, "check", "digits-at").returncode == 0


def test_check_json(tmp_path):
    (tmp_path / "bad.toml").write_text("[optim]\nlr = 'x'\n")
    done = trainctl(tmp_path, "check", "digits-at", "bad.toml", "--json")
    assert done.returncode == 2
    checked = json.loads(done.stdout)
    assert [(row["recipe"], row["ok"]) for row in checked["recipes"]] == [("digits-at", True), ("bad.toml", False)]
    (problem,) = checked["recipes"][1]["problems"]
    assert (problem["file"], problem["line"], problem["key"]) == ("bad.toml", 2, "optim.lr")


@pytest.mark.parametrize("base", ["digits-lbgat-at", "digits-at-rkd"])
def test_new(tmp_path, base):
    done = trainctl(tmp_path, "new", "mine", "--from", base)
    assert done.returncode == 0 and done.stdout == "" and "trainctl run mine.toml" in done.stderr
    assert trainctl(tmp_path, "check", "mine.toml").stdout == "ok  mine.toml\n"
    before = (tmp_path / "mine.toml").read_text()
    assert resolve(str(tmp_path / "mine.toml")).recipe.model_dump() == recipe(base).model_dump() | {"title": "mine"}
    refused = trainctl(tmp_path, "new", "mine")
    assert refused.returncode == 2 and "mine.toml exists already" in refused.stderr
    assert (tmp_path / "mine.toml").read_text() == before


@pytest.mark.parametrize("base", ["digits-trades", "digits-at-crd"])
def test_every_line_of_a_new_recipe_may_be_switched_on(tmp_path, base):
    trainctl(tmp_path, "new", "mine", "--from", base, "--path", "sub")
    file = tmp_path / "sub" / "mine.toml"
    head, *settings = file.read_text().split("\n\n[")
    file.write_text(head + "\n\n[" + "\n\n[".join(settings).replace("\n# ", "\n"))
    assert resolve(str(file)).recipe.model_dump() == recipe(base).model_dump() | {"title": "mine"}
    terms = "[terms.crd]\nweight = 0.8  # weight of the loss\nnegatives = 512  # "
    assert (terms in file.read_text()) == (base == "digits-at-crd")


def test_new_names_a_file_that_can_be_copied(tmp_path):
    assert "trainctl run 'a b.toml'" in trainctl(tmp_path, "new", "a b").stderr


def test_new_from_a_path_works_from_anywhere(tmp_path):
    (tmp_path / "base.toml").write_text("optim.lr = 0.3\n")
    assert trainctl(tmp_path, "new", "mine", "--from", "base.toml", "--path", "deep/er/own.toml").returncode == 0
    assert resolve(str(tmp_path / "deep/er/own.toml")).recipe.optim.lr == 0.3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["show", "digits-ta"], "error: there is no recipe 'digits-ta' (did you mean 'digits-at'?)"),
        (["new", "a/b"], "error: 'a/b' cannot be the name of a recipe"),
        (["new", ""], "error: '' cannot be the name of a recipe"),
        (["--json", "check", "digits-at"], "error: --json stands before the command"),
    ],
)
def test_wrong_usage(tmp_path, arguments, message):
    done = trainctl(tmp_path, *arguments)
    assert done.returncode == 2 and done.stderr.startswith(message) and not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = trainctl(tmp_path, "new", "mine", "--path", "file/sub")
    assert done.returncode == 3 and "cannot write file/sub/mine.toml" in done.stderr
