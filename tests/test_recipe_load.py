# ruff: noqa: E501 - what a person reads stands on one line here as there
"""Reading recipes: what they extend, what is laid over them, and every mistake with its place."""

import os
import time
from pathlib import Path

import pytest
import tomli
from conftest import within
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.recipe import check
from trainctl.errors import USAGE, UsageError
from trainctl.recipes import locate
from trainctl.recipes.lines import key_lines
from trainctl.recipes.load import Origin, RecipeProblems, dump, resolve


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAINCTL_PLUGINS", raising=False)
    return tmp_path


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def mistakes(name="r.toml", overrides=()):
    with pytest.raises(RecipeProblems) as caught:
        resolve(name, overrides)
    return str(caught.value).split("\n")


# ---- one mistake each: the file's text, and the one line that is said about it

BAD = {
    "unknown-key": (
        "[optim]\nlr = 0.1\nmomentm = 0.9\n",
        "r.toml:3: optim.momentm: unknown key (did you mean 'momentum'?)",
    ),
    "unknown-section": ("[data]\n\n[modl]\narch = 'x'\n", "r.toml:3: modl: unknown key (did you mean 'model'?)"),
    "wrong-type": ("[optim]\nlr = 'fast'\n", "r.toml:2: optim.lr: 'fast' is not allowed: expected a valid number"),
    "bool-for-number": (
        "attack.steps = true\n",
        "r.toml:1: attack.steps: true is not allowed: expected a valid integer",
    ),
    "unlike-its-pattern": (
        "run.device = 'gpu'\n",
        "r.toml:1: run.device: 'gpu' is not allowed: expected auto, cpu, cuda or cuda:N",
    ),
    "no-batch": (
        "data.train_examples = 2\n",
        "r.toml:1: data.train_examples: 2 is not allowed: a batch is 3 images or more (0 trains on all)",
    ),
    "number-for-bool": (
        "[topology]\nenabled = 1\n",
        "r.toml:2: topology.enabled: 1 is not allowed: expected a valid boolean",
    ),
    "impossible": (
        "[schedule]\n\nepochs = 0\n",
        "r.toml:3: schedule.epochs: 0 is not allowed: expected greater than or equal to 1",
    ),
    "too-large": ("[attack]\neps = 2\n", "r.toml:2: attack.eps: 2 is not allowed: expected less than or equal to 1"),
    "bad-fraction": ("[attack]\neps = '8/O'\n", "r.toml:2: attack.eps: '8/O' is not allowed: expected a valid number"),
    "unknown-choice": (
        "[eval]\nattacks = [\n  'pgd20',\n  'cw2',\n]\n",
        "r.toml:2: eval.attacks: 'cw2' is not allowed: expected 'pgd10', 'pgd20', 'cw20' or 'aa' (did you mean 'cw20'?)",
    ),
    "unknown-method": (
        "[method]\nname = 'trads'\n",
        "r.toml:2: method.name: there is no method 'trads' (did you mean 'trades'?)",
    ),
    "unknown-data": (
        "[data]\ndataset = 'cifar-10'\n",
        "r.toml:2: data.dataset: there is no data set 'cifar-10' (did you mean 'cifar10'?)",
    ),
    "other-methods-option": (
        "[method]\nname = 'at'\nbeta = 6.0\n",
        "r.toml:3: method.beta: unknown key (known: name, forwards, code)",
    ),
    "architecture": (
        "model = { arch = 'resnet-81' }\n",
        "r.toml:1: model.arch: 'resnet-81' is not allowed: no such architecture; did you mean 'resnet-18'?",
    ),
    "depth": (
        "model.arch = 'wrn-35-10'\n",
        "r.toml:1: model.arch: 'wrn-35-10' is not allowed: a wrn-D-W has depth D = 10, 16, 22, 28, 34, 40, … "
        "and width W of at least 1",
    ),
    "descending": (
        "[schedule]\nmilestones = [90,\n 75]\n",
        "r.toml:2: schedule.milestones: [90, 75] is not allowed: milestones must ascend",
    ),
    "no-table": ("optim = 0.1\n", "r.toml:1: optim: 0.1 is not allowed: expected a table, written [optim]"),
    "together": (
        "[method]\nname = 'standard'\n[topology]\nenabled = true\n",
        "r.toml:4: topology.enabled: method 'standard' makes no adversarial images, which L_TP needs "
        "(choose an adversarial method, or topology.enabled = false)",
    ),
    "infinite": ("[optim]\nlr = inf\n", "r.toml:2: optim.lr: inf is not allowed: expected a finite number"),
    "not-64-bits": ("[run]\nseed = 9223372036854775808\n", "r.toml:2: run.seed: the number does not fit in 64 bits"),
    "control": ('title = "a\\u001b[31m"\n', "r.toml:1: title: the text has control characters in it"),
    "deep-array": (f"title = {'[' * 50}{']' * 50}\n", "r.toml:1: title: nested deeper than 16 levels"),
    "deep-table": (f"a = 1\n[{'.'.join('b' * 50)}]\n", "r.toml:2: tables nested deeper than 16 levels"),
    "syntax": ("[optim]\nlr = \n", "r.toml:2:6: not TOML: invalid value"),
    "twice": ("[optim]\nlr = 1.0\nlr = 2.0\n", "r.toml:3:9: not TOML: cannot overwrite a value"),
    "not-utf8": (b"title = 'a'\n# \xff\n", "r.toml:2: not UTF-8: byte 0xff (save the file as UTF-8)"),
    "nul": (b"title = 'a'\n\x00\n", "r.toml:2:1: not TOML: invalid statement"),
    "many-digits": ("\nrun.seed = " + "9" * 5000 + "\n", "r.toml:2: a number has too many digits"),
    "many-keys": ("".join(f"k{i} = 1\n" for i in range(1001)), "r.toml: more than 1000 keys (is this a recipe?)"),
    "huge": ("#" * 300_000, "r.toml: larger than 64 KiB (is this a recipe?)"),
    "extends-number": (
        "\nextends = 3\n",
        'r.toml:2: extends: expected the name of a recipe, or a list of names (as in extends = "_base")',
    ),
    "extends-unknown": (
        'extends = "digits-trads"\n',
        "r.toml:1: extends: there is no recipe 'digits-trads' to extend (did you mean 'digits-trades'?)",
    ),
    "extends-itself": (
        'extends = "r"\n',
        "r.toml:1: extends: the recipes extend each other in a circle: r.toml → r.toml (take one `extends` away)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_one_mistake(name):
    text, expected = BAD[name]
    write("r.toml", text)
    started = time.process_time()
    assert mistakes() == [expected]
    assert within(time.process_time() - started, 1.0)


@pytest.mark.parametrize("opening, closing", [("[", "]"), ("{a=", "}")])
def test_nesting_that_the_parser_refuses(opening, closing):
    write("r.toml", f"a = {opening * 10_000}1{closing * 10_000}")
    assert mistakes() == ["r.toml: nested too deeply to be read"]


def test_all_mistakes_of_all_files_at_once():
    write("_base.toml", "[optim]\nlr = 'fast'\n[sched]\n")
    write("r.toml", 'extends = ["_base", "nowhere"]\n[data]\ncrop = -1\n')
    assert mistakes(overrides=["model.arhc=wrn-10-1", "attack.eps=[1", "oops", "optim.momentum=2"]) == [
        "_base.toml:2: optim.lr: 'fast' is not allowed: expected a valid number",
        "_base.toml:3: sched: unknown key (did you mean 'schedule'?)",
        f"r.toml:1: extends: there is no recipe 'nowhere' to extend ({locate.LIST_HINT})",
        "--set model.arhc=wrn-10-1: model.arhc: unknown key (did you mean 'arch'?)",
        "--set optim.momentum=2: optim.momentum: 2 is not allowed: expected less than 1",
        "--set attack.eps=[1: attack.eps: not a TOML value: Unclosed array (quote the whole for the shell: --set 'a.b=[1, 2]')",
        "--set oops: expected KEY=VALUE (as in --set a.b=v)",
    ]


def test_typo_wrong_type_and_impossible_value_have_file_line_and_exit_code():
    write("r.toml", "[optim]\nlr = 'x'\nmomentun = 0.9\n[schedule]\nepochs = -3\n")
    with pytest.raises(RecipeProblems) as caught:
        resolve("r.toml")
    assert [(p.file, p.line, p.key) for p in caught.value.problems] == [
        ("r.toml", 2, "optim.lr"),
        ("r.toml", 3, "optim.momentun"),
        ("r.toml", 5, "schedule.epochs"),
    ]
    assert caught.value.code == USAGE and isinstance(caught.value, UsageError)


def test_a_key_nobody_set_is_placed_at_its_table_or_file():
    write("r.toml", "\n[model]\nmean = [0.5]\n[data]\nvalidation = 0.0\n")
    assert mistakes() == [
        "r.toml:2: model.std: 0 values, but model.mean has 1 (one of each per channel, or none)",
        'r.toml:5: data.validation: 0.0 leaves nothing to choose `best` on (hold out a share, or set eval.select = "test")',
    ]


# ---- extends


def test_later_wins_and_tables_are_merged():
    write("_a.toml", "title = 'a'\n[optim]\nlr = 0.5\nmomentum = 0.5\n")
    write("_b.toml", "[optim]\nlr = 0.4\n[schedule]\nmilestones = [1, 2, 3]\n")
    write("r.toml", "extends = ['_a', '_b']\n[schedule]\nmilestones = [4]\n")
    resolved = resolve("r.toml", ["optim.nesterov=true"])
    assert resolved.recipe.title == "a"
    assert (resolved.recipe.optim.lr, resolved.recipe.optim.momentum) == (0.4, 0.5)
    assert resolved.recipe.schedule.milestones == [4]
    assert resolved.files == ("r.toml", "_a.toml", "_b.toml")
    assert resolved.name == "r"
    places = {key: str(origin) for key, origin in resolved.provenance.items()}
    assert places["title"] == "_a.toml:1"
    assert places["optim.lr"] == "_b.toml:2"
    assert places["optim.momentum"] == "_a.toml:4"
    assert places["schedule.milestones"] == "r.toml:3"
    assert resolved.provenance["optim.nesterov"] == Origin("--set optim.nesterov=true")
    assert "optim.weight_decay" not in places


def test_extends_by_name_by_path_and_under_the_same_name():
    write("sub/one.toml", 'extends = "digits-trades"\n[optim]\nlr = 0.3\n')
    write("digits-trades.toml", 'extends = "digits-trades"\n[schedule]\nepochs = 3\n')
    write("r.toml", f'extends = ["sub/one", "{Path.cwd()}/digits-trades.toml"]\n')
    recipe = resolve("r.toml").recipe
    assert (recipe.data.dataset, recipe.optim.lr, recipe.schedule.epochs) == ("digits", 0.1, 3)
    assert resolve("sub/one.toml").recipe.optim.lr == 0.3
    assert resolve("./digits-trades.toml").recipe.schedule.epochs == 3
    assert resolve("digits-trades").recipe.schedule.epochs == 20


def test_a_circle_is_reported_once():
    write("a.toml", 'extends = "b"\n')
    write("b.toml", '\nextends = "c"\n')
    write("c.toml", 'extends = "b"\n')
    assert mistakes("a.toml") == [
        "c.toml:1: extends: the recipes extend each other in a circle: b.toml → c.toml → b.toml (take one `extends` away)"
    ]


def test_bases_that_would_multiply_are_each_read_once():
    for level in range(25):
        write(f"_{level}.toml", f'extends = ["_{level + 1}", "_{level + 1}"]\n')
    write("_25.toml", "optim.lr = 0.7\n")
    started = time.process_time()
    assert resolve("_0.toml").recipe.optim.lr == 0.7
    assert within(time.process_time() - started, 1.0)


def test_a_chain_without_end_is_cut():
    for level in range(40):
        write(f"_{level}.toml", f'extends = "_{level + 1}"\n')
    assert mistakes("_0.toml") == ["_31.toml:1: extends: more than 32 recipes one above the other, or 200 in all"]


def test_a_broken_base_does_not_hide_the_recipes_own_mistakes():
    write("_base.toml", "[optim\n")
    write("r.toml", 'extends = "_base"\n[method]\nmaybe_of_a_method = 1\n[eval]\nevry = 2\n')
    assert mistakes() == [
        "_base.toml:1:7: not TOML: expected ']' at the end of a table declaration",
        "r.toml:5: eval.evry: unknown key (did you mean 'every'?)",
    ]


def test_a_missing_base_does_not_hide_what_is_wrong_with_a_choice_made_here():
    write("r.toml", 'extends = "nowhere"\n[method]\nname = "trads"\n[data]\ndataset = "digits"\nflop = true\n')
    assert mistakes()[1:] == [
        "r.toml:3: method.name: there is no method 'trads' (did you mean 'trades'?)",
        "r.toml:6: data.flop: unknown key (did you mean 'flip'?)",
    ]


def test_a_missing_base_and_a_section_that_is_no_table():
    write("r.toml", 'extends = "nowhere"\nmethod = 3\n')
    assert mistakes()[1:] == ["r.toml:2: method: 3 is not allowed: expected a table, written [method]"]


# ---- files and names


@pytest.mark.parametrize(
    "name, expected",
    [
        ("digits-trads", "there is no recipe 'digits-trads' (did you mean 'digits-trades'?)"),
        ("qqq", f"there is no recipe 'qqq' ({locate.LIST_HINT})"),
        ("mine", "there is no recipe 'mine' (did you mean 'mine.toml'?)"),
        ("mine.tml.toml", "there is no file mine.tml.toml (did you mean 'mine.toml'?)"),
        ("./", "./ is a folder, and a recipe is a file (it holds mine.toml)"),
        ("pipe.toml", f"pipe.toml is no regular file ({locate.LIST_HINT})"),
        ("a/\x00.toml", f"there is no file a/\\x00.toml ({locate.LIST_HINT})"),
        ("x" * 5000 + ".toml", f"there is no file {'x' * 483}… ({locate.LIST_HINT})"),
    ],
)
def test_no_such_recipe(name, expected):
    write("mine.toml", "")
    os.mkfifo("pipe.toml")
    assert mistakes(name) == [expected]


def test_unreadable(folder, monkeypatch):
    write("r.toml", "")

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert mistakes() == ["r.toml: cannot be read: Permission denied"]


def test_names():
    shipped = locate.shipped()
    assert shipped["digits-trades"] == locate.shipped_folder() / "digits" / "trades.toml"
    assert not [name for name in shipped if "_" in name]
    assert locate.recipe_name(shipped["cifar100-trades-las"]) == "cifar100-trades-las"
    assert resolve(str(shipped["cifar10-at"])).name == "cifar10-at"
    write("my.toml", "")
    assert resolve("my.toml").name == "my"


def test_paths_outside_the_working_directory_are_shown_whole(tmp_path, monkeypatch):
    write("r.toml", "oops = 1\n")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir("deep")
    assert mistakes("../r.toml")[0].startswith(f"{tmp_path}/r.toml:1: oops: unknown key")


def test_byte_order_mark_and_windows_line_ends():
    write("r.toml", b"\xef\xbb\xbftitle = 'a'\r\n[optim]\r\nlr = 'x'\r\n")
    assert mistakes() == ["r.toml:3: optim.lr: 'x' is not allowed: expected a valid number"]


def test_a_plugin_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write("plugins/broken.py", "class Broken(Method)\n")
    write("r.toml", "")
    monkeypatch.setenv("TRAINCTL_PLUGINS", str(tmp_path / "plugins"))
    with pytest.raises(UsageError, match=r"cannot be read: .*\(broken\.py, line 1\)"):
        resolve("r.toml")


# ---- --set


@pytest.mark.parametrize(
    "text, value",
    [
        ("model.arch=wrn-10-1", "wrn-10-1"),
        ('model.arch="wrn-10-1"', "wrn-10-1"),
        ("attack.eps=8/255", 8 / 255),
        ("optim.lr=1", 1.0),
        ("optim.lr = 2e-3", 0.002),
        ("schedule.milestones=[3, 4]", [3, 4]),
        ("data.root=", ""),
        ("data.root=/a=b c", "/a=b c"),
        ("eval.topology=false", False),
        ("optim={lr = 0.7}", None),
    ],
)
def test_set(text, value):
    recipe = resolve("digits-trades", [text]).recipe
    if value is None:
        assert (recipe.optim.lr, recipe.optim.momentum) == (0.7, 0.9)
    else:
        section, _, key = text.partition("=")[0].strip().partition(".")
        assert getattr(getattr(recipe, section), key) == value


@pytest.mark.parametrize(
    "text, expected",
    [
        ("model.arhc", "--set model.arhc: expected KEY=VALUE (as in --set a.b=v)"),
        ("=3", "--set =3: expected KEY=VALUE (as in --set a.b=v)"),
        ("a..b=3", "--set a..b=3: expected KEY=VALUE (as in --set a.b=v)"),
        ("title.x=3", "--set title.x=3: title: {'x': 3} is not allowed: expected a valid string"),
        ("data=3", "--set data=3: data: 3 is not allowed: expected a table, written [data]"),
        ("optim={l = 1}", "--set optim={l = 1}: optim.l: unknown key (did you mean 'lr'?)"),
        (f"run.seed={'9' * 5000}", f"--set run.seed={'9' * 485}…: run.seed: a number of 5000 digits does not fit in 64 bits (give a smaller one)"),
    ],
)  # fmt: skip
def test_bad_set(text, expected):
    assert mistakes("digits-trades", [text]) == [expected]


def test_a_value_of_several_lines_sets_one_key_only():
    text = "description=1\nmethod.name = 'at'"
    assert resolve("digits-trades", [text]).recipe.description == "1\nmethod.name = 'at'"


# ---- dump

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    title=TEXTS,
    lr=st.floats(min_value=0.0, exclude_min=True, allow_infinity=False),
    seed=st.integers(0, 2**63 - 1),
    milestones=st.lists(st.integers(1, 1000), max_size=4).map(sorted),
)
def test_dump_loads_back_to_an_equal_recipe(title, lr, seed, milestones):
    table = {
        "title": title,
        "description": title[::-1],
        "optim": {"lr": lr},
        "run": {"seed": seed},
        "schedule": {"milestones": milestones},
        "method": {"name": "lbgat", "base": "at", "beta": 3},
    }
    recipe = check(table)
    again = check(tomli.loads(dump(recipe)))
    assert again.model_dump() == recipe.model_dump()
    assert recipe.title == title and recipe.optim.lr == lr and recipe.run.seed == seed


def test_dump_is_whole_and_stands_alone():
    write("_base.toml", "optim.lr = 0.25\n")
    write("r.toml", 'extends = ["digits-lbgat-at", "_base"]\n')
    recipe = resolve("r.toml").recipe
    write("elsewhere/recipe.toml", dump(recipe))
    Path("_base.toml").unlink()
    again = resolve("elsewhere/recipe.toml")
    assert again.recipe.model_dump() == recipe.model_dump()
    assert again.files == ("elsewhere/recipe.toml",)
    written = {".".join(key) for key in key_lines(dump(recipe))}
    assert {"method.gamma", "optim.lr", "run.seed", "standard.arch", "topology.weight"} <= written


# ---- strangers' files


@settings(max_examples=150, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([
        "[", "]", "{", "}", "=", ".", ",", "\n", '"', "'", '"""', "#", "a", "data", "method", "name", "extends", "topology",
        "1", "-1", "1e9", "nan", "true", '"trades"', '"x"', "[[", "]]", "2024-01-01", "\x00", "\r", "é", "[model]", "eps = ",
    ]), max_size=12).map(lambda parts: " ".join(parts).encode()),
    st.recursive(
        st.sampled_from(["1", "true", "nan", "'x'", "[]", "{}", "2024-01-01", "07:32:00", "0xffffffffffffffffffff"]),
        lambda inner: st.one_of(inner.map(lambda v: f"[{v}, {v}]"), inner.map(lambda v: f"{{ name = {v} }}")),
        max_leaves=5,
    ).flatmap(lambda value: st.sampled_from([
        "title", "data", "method", "method.name", "data.dataset", "topology.enabled", "schedule.milestones", "model.mean",
        "eval.attacks", "attack.eps", "extends", "run.device",
    ]).map(lambda key: f"{key} = {value}\n".encode())),
))  # fmt: skip
def test_any_file_is_a_recipe_or_a_list_of_mistakes(data):
    write("r.toml", data)
    try:
        dump(resolve("r.toml").recipe)
    except RecipeProblems as error:
        assert str(error).startswith("r.toml")
