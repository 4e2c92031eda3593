# ruff: noqa: E501 - a case stands on one line
"""What strangers may send: recipes, names, archives, pickles, images, checkpoints. Each is refused in our own words, in
little time and memory, and nothing happens outside. docs/security.md says what is promised; this shows it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from archives import write_cifar10, write_folder
from conftest import TINY, carry_out, merged, within, working
from folders import make_run
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import nn

from engine import checkpoint, timing, worker
from engine.checkpoint import CheckpointError, load
from engine.data import _pickled, _unpack
from engine.data.base import DataError, Splits
from engine.data.load import load as load_data
from engine.events import EventLog
from engine.machine import prepare
from engine.recipe import InvalidRecipe, check
from engine.rundir import RESERVE, RunDir
from engine.weights import load_weights
from trainctl.cli import app
from trainctl.cli import eval as evaluation
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.launch import again, slots
from trainctl.launch.follow import Tail
from trainctl.recipes.load import RecipeProblems, resolve
from trainctl.recipes.plan import plan

Made = Callable[..., RunDir]
MEMORY = 600 * 1024  # KiB that refusing something may take
PEAK = re.compile(r"VmHWM:\s*(\d+) kB")


@contextmanager
def quickly(seconds: float = 1.0) -> Iterator[None]:
    """Little time of the processor, as `within` has it, and far from gigabytes."""
    with suppress(OSError):  # a kernel that cannot
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of what follows, and not of an earlier test
    before, started = peak(), time.process_time()
    yield
    assert within(time.process_time() - started, seconds)
    assert peak() - before < MEMORY


def peak() -> int:
    """KiB of memory that this process has held at most."""
    found = PEAK.search(Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def test_a_bomb_is_noticed_also_after_a_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "MEMORY", 50 * 1024)
    assert len(b"x" * (300 << 20)) == 300 << 20
    with pytest.raises(AssertionError), quickly(60):
        assert len(b"x" * (100 << 20)) == 100 << 20
    with quickly(60):
        assert len(b"x" * (5 << 20)) == 5 << 20
    with pytest.raises(AssertionError), quickly(0.005):
        until = time.process_time() + 0.5
        while time.process_time() < until:
            pass


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINCTL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("TRAINCTL_PLUGINS", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path


def everything(folder: Path) -> dict[str, bytes | None]:
    """What lies in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }  # fmt: skip


# ---- recipes

K = 64 * 1024
BOMBS: dict[str, str | bytes] = {
    "dotted keys, depth 10 000": ".".join("a" * 10_000) + " = 1",
    "a header, depth 10 000": "[" + ".".join("a" * 10_000) + "]",
    "many deep keys": "\n".join(".".join([f"b{i}", *"a" * 250]) + " = 1" for i in range(K // 520)),
    "many deep headers": "\n".join("[" + ".".join([f"b{i}", *"a" * 250]) + "]" for i in range(K // 520)),
    "an array of a million": "[schedule]\nmilestones = [" + "1," * 1_000_000 + "]",
    "as large an array as fits": "[schedule]\nmilestones = [" + "1," * (K // 2 - 50) + "]",
    "as many attacks as fit": "[eval]\nattacks = [" + "'x'," * (K // 4 - 50) + "]",
    "arrays in arrays": "[model]\nmean = " + "[" * 400 + "]" * 400,
    "inline tables in inline tables": "terms = " + "{a = " * 400 + "1" + "}" * 400,
    "arrays of tables": "[[terms.x]]\n" * (K // 13),
    "50 000 wrong keys": "".join(f"k{i} = 1\n" for i in range(50_000)),
    "1000 wrong keys": "".join(f"k{i} = 1\n" for i in range(1000)),
    "1000 wrong keys of a section": "[optim]\n" + "".join(f"momentu{i} = 1\n" for i in range(998)),
    "as many wrong sections": "".join(f"[method{i}]\n" for i in range(1000)),
    "10 000 digits": "[run]\nseed = " + "9" * 10_000,
    "10 000 hexadecimal digits": "[run]\nseed = 0x" + "f" * 10_000,
    "a key as long as the file": "a" * (K - 10) + " = 1",
    "a value as long as the file": "[method]\nname = '" + "a" * (K - 30) + "'",
    "gigabytes": b"#" * (K + 1),
    "keys twice": "[optim]\nlr = 1.0\n[optim]\nlr = 2.0\n",
    "no UTF-8": b"title = '\xff\xfe'",
    "halves of characters": b"title = '\xed\xa0\x80'",
    "half a character, escaped": 'title = "\\ud800"',
    "NUL": b"title = 'a\x00b'",
    "dates": "[optim]\nlr = 1979-05-27T07:32:00Z\n[run]\nseed = 07:32:00\n",
    "not finite": "[optim]\nlr = nan\n[attack]\neps = inf\n[topology]\nweight = -inf",
    "not finite as a fraction": "[attack]\neps = '1e308/1e-308'\n[method]\nname = 'trades'\nbeta = 'nan/1'",
    "a thousand bases": "extends = [" + "'a'," * 1000 + "]",
    "a base with a long name": "extends = '" + "a" * 100_000 + "'",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_recipe_that_is_a_bomb(bomb: str) -> None:
    text = BOMBS[bomb]
    Path("r.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with quickly(), pytest.raises(RecipeProblems) as caught:
        plan(["r.toml"], pair=True)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(("r.toml", "and ")) and line.isprintable() for line in lines)
    assert len(lines) <= 51 and len(str(caught.value)) < 40_000


def test_thousands_of_mistakes_are_cut_short_for_people_only() -> None:
    Path("r.toml").write_text("".join(f"k{i} = 1\n" for i in range(1000)))
    with pytest.raises(RecipeProblems) as caught:
        resolve("r.toml")
    assert len(caught.value.problems) == 1000
    assert str(caught.value).split("\n")[-1] == "and 950 more mistakes"


def test_bases_do_not_multiply_what_one_file_may_not() -> None:
    for number in range(20):
        Path(f"_{number}.toml").write_text("#" * 10_000 + f"\nextends = '_{number + 1}'\n")
    with quickly(), pytest.raises(RecipeProblems, match="larger than 64 KiB"):
        resolve("_0.toml")
    for number in range(20):
        keys = "".join(f"k{number}x{key} = 1\n" for key in range(100))
        Path(f"_{number}.toml").write_text(f"extends = '_{number + 1}'\n" + keys)
    with quickly(), pytest.raises(RecipeProblems) as caught:
        resolve("_0.toml")
    assert any(problem.message == "more than 1000 keys" for problem in caught.value.problems)


def test_what_a_recipe_extends_is_a_file_and_is_never_quoted(here: Path) -> None:
    secret = "SECRET-4711"
    Path("secret.toml").write_text(f"{secret}\n[{secret}\n")
    Path("passwd").write_text(f"root:{secret}:0:0\n")
    Path("passwd.toml").symlink_to(here / "passwd")
    Path("keys.toml").write_text(f"[credentials]\ntoken = '{secret}'\n")
    os.mkfifo("pipe.toml")
    Path("zero.toml").symlink_to("/dev/zero")
    Path("folder.toml").mkdir()
    Path("circle.toml").symlink_to("circle.toml")
    Path("sub").mkdir()
    for name in ("../secret", "../passwd.toml", "../keys", "../pipe", "../zero", "../folder", "../circle", "/etc/passwd",
                 "../../../../../../etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/environ", "~", "..", ".", "", "\\u0000",
                 str(here / "secret.toml")):  # fmt: skip
        Path("sub/r.toml").write_text(f'extends = "{name}"\n')
        with quickly(), pytest.raises(RecipeProblems) as caught:
            resolve("sub/r.toml")
        assert secret not in str(caught.value) and "root:" not in str(caught.value), name
    for name in ("pipe.toml", "zero.toml", "folder.toml", "circle.toml", "/dev/zero", "/dev/stdin", "passwd"):
        with quickly(), pytest.raises(RecipeProblems) as caught:
            resolve(name)
        assert secret not in str(caught.value)


def test_a_file_that_says_it_is_empty_is_not_read_for_ever() -> None:
    with quickly(), pytest.raises(RecipeProblems):
        resolve("/proc/self/smaps")  # of size 0, says stat


def test_a_key_cannot_pretend_to_be_a_message() -> None:
    Path("r.toml").write_text('"x\\nerror: all is lost\\u001b[2J" = 1\n"" = 2\n"a.b" = 3\n')
    with pytest.raises(RecipeProblems) as caught:
        resolve("r.toml")
    lines = str(caught.value).split("\n")
    assert len(lines) == 3 and all(line.isprintable() for line in lines)
    assert lines[1].startswith('r.toml:2: "": unknown key') and lines[2].startswith('r.toml:3: "a.b": unknown key')


# ---- names

ELSEWHERE = (
    "../../x", "../outside", "/etc/passwd", "@last/../..", "@last/../../outside", "aaaaaaaa/../../../outside", "..", ".", "./", "/",
    "\x00", "a\x00b", "x" * 5000, "tag:../../outside", "recipe:../../x", "group:/", "name:x", "~", "~root", "\udcff", "aaaaaaaa\n",
    "*", "aaaa*", "[a]", "%2e%2e%2f", "aaaaaaaa/", "runs/aaaaaaaa", "\N{FULLWIDTH FULL STOP}" * 2, "link/../../outside",
)  # fmt: skip
COMMANDS: tuple[list[str], ...] = (
    ["show"], ["logs"], ["stop"], ["resume"], ["retry"], ["rm", "-y"], ["rm", "-y", "-f"], ["tag", "TAG"], ["note", "NOTE"],
    ["archive"], ["eval", "--attacks", "pgd20"], ["plot", "-o", "figure.png"], ["compare"],
)  # fmt: skip


def typed(home: Home, command: list[str], selector: str) -> list[str]:
    """What is typed for `command` on `selector`; a word in capitals comes behind it."""
    options, words = [part for part in command[1:] if not part.isupper()], [part for part in command if part.isupper()]
    return [command[0], "--home", str(home.path), *options, "--", selector, *words]


@pytest.fixture
def home(here: Path) -> Home:
    """A home with a run, and beside it a folder that looks like one."""
    place = Home(here / "home").create()
    make_run(place, "aaaaaaaa")
    make_run(Home(here / "other").create(), "outside").path.rename(here / "outside")
    return place


def test_no_selector_leads_out_of_the_home(home: Home, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(here / "outside"), everything(home.runs)
    for command in COMMANDS:
        for selector in ELSEWHERE:
            if selector in ("aaaaaaaa\n", "..", "."):  # blanks around a selector are cut; a dot may mean any name
                continue
            code = app._run(typed(home, command, selector))
            told = capsys.readouterr()
            assert code == 2 and "error:" in told.err and "Traceback" not in told.err, (command, selector, told)
            assert "No such option" not in told.err and "Missing argument" not in told.err
            assert "\x00" not in told.err and len(told.err) < 20_000
    assert (everything(here / "outside"), everything(home.runs)) == before
    assert sorted(path.name for path in here.iterdir()) == ["data", "home", "other", "outside"]


@pytest.mark.parametrize("attacks", ["../../x", "pgd20,../x", "\x00", "x" * 5000])
def test_attacks_are_names_of_attacks(home: Home, attacks: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app._run(["eval", "--home", str(home.path), "--attacks", attacks, "aaaaaaaa"]) == 2
    assert "there is no attack" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "\x1b[2J", "a\nb", "x" * 500, " x", "@last", "-x", "\udcff"])
def test_names_that_a_run_cannot_have(name: str) -> None:
    with pytest.raises(UsageError):
        plan(["digits-trades"], name=name)


def test_a_run_folder_that_is_a_link_is_read_and_only_the_link_is_deleted(home: Home, here: Path) -> None:
    (home.runs / "link").symlink_to(here / "outside")
    before = everything(here / "outside")
    assert app._run(["show", "--home", str(home.path), "link"]) == 0
    app._run(["retry", "--home", str(home.path), "link"])
    app._run(["resume", "--home", str(home.path), "link"])
    assert app._run(["rm", "-y", "--home", str(home.path), "link"]) == 0
    assert everything(here / "outside") == before and not (home.runs / "link").is_symlink()


@pytest.mark.parametrize("inside", ["stdout.log", "events.jsonl", "checkpoints", "eval", "attempts"])
def test_nothing_is_written_through_a_link_inside_a_run(home: Home, here: Path, inside: str) -> None:
    precious = here / "precious"
    precious.mkdir()
    (precious / "kept").write_text("mine")
    run = home.run("aaaaaaaa")
    run.write_json("exit.json", {"status": "failed", "code": 1})
    target = precious if inside in ("checkpoints", "eval", "attempts") else precious / "kept"
    (run.path / inside).unlink(missing_ok=True)
    (run.path / inside).symlink_to(target)
    before = everything(precious)
    app._run(["retry", "--home", str(home.path), "aaaaaaaa"])
    app._run(["stop", "--home", str(home.path), "aaaaaaaa"])
    assert everything(precious) == before


def test_the_engine_writes_through_no_link(make_folder: Made, here: Path) -> None:
    run, kept = make_folder(), here / "kept"
    kept.write_text("mine")
    run.checkpoints.mkdir()
    names = ("heartbeat.json", "exit.json", "checkpoints/last.safetensors")
    unfinished = [(run.path / name).with_name(f".{Path(name).name}.{os.getpid()}.tmp") for name in names]
    for link in (run.path / ".reserve", *unfinished):
        link.symlink_to(kept)
    with working(run) as life:
        assert (run.path / ".reserve").stat().st_size == RESERVE
        checkpoint.save(run.checkpoint("last"), {}, {})
        assert life.end("done", 0) == 0
    assert kept.read_text() == "mine" and run.status() == "done"
    assert not any(path.is_symlink() for path in run.path.rglob("*"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "codes"), [("stdout.log", [3, 1, 2]), ("events.jsonl", [0, 1, 2]), ("recipe.toml", [0, 1, 2])]
)
def test_a_pipe_in_place_of_a_file_blocks_nobody(
    home: Home, capsys: pytest.CaptureFixture[str], name: str, codes: list[int]
) -> None:
    run = home.run("aaaaaaaa")
    run.write_json("exit.json", {"status": "preempted"})
    run.checkpoints.mkdir(exist_ok=True)
    checkpoint.save(run.checkpoint("best"), {}, {})
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    commands = (["logs"], ["watch"], ["eval", "--attacks", "pgd20"])
    assert [app._run([*command, "--home", str(home.path), run.id]) for command in commands] == codes
    told = capsys.readouterr().err
    assert str(run.path / name) in told and "Traceback" not in told
    assert Tail(run.path / name).read() == (False, [])
    if name == "recipe.toml":
        assert slots.need(run, []) == slots.asked("auto", 0, 1.0, None, []) and not again.due(run)
        with pytest.raises(CheckpointError, match="no regular file"):
            worker.read_recipe(run)
        with pytest.raises(OSError, match="no regular file"):
            timing.Timed(run.recipe, *[None] * 3)  # type: ignore[arg-type]


def test_what_a_strangers_run_says_of_itself_is_shown_and_not_obeyed(
    home: Home, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home.run("aaaaaaaa")
    about = {"id": "../../outside", "name": "../../outside\x1b[2J\n", "recipe": "/etc/passwd", "group": "..", "pair": "\x00",
             "seed": 10**400, "cwd": "/nowhere/\x00", "created": "x", "tags": ["../x", 3, "\x1b"], "code": "../../outside",
             "share": -1}  # fmt: skip
    run.write_json("run.json", about)
    with run.events.open("a") as events:
        for checkpoint_, metric in (
            ("../../outside/best", "pgd20"),
            ("best", "../../../outside/x"),
            ("\x00", "\x1b[2J"),
        ):
            line = {
                "t": 1.0,
                "event": "eval",
                "checkpoint": checkpoint_,
                "metric": metric,
                "value": 1.0,
                "n": 3,
                "file": "/etc/passwd",
            }
            events.write(json.dumps(line) + "\n")
    before = everything(here / "outside")
    for command in (
        ["ls"],
        ["show", "aaaaaaaa"],
        ["compare"],
        ["logs", "aaaaaaaa"],
        ["tag", "aaaaaaaa", "x"],
        ["reindex"],
    ):
        assert app._run([command[0], "--home", str(home.path), *command[1:]]) == 0, command
        told = capsys.readouterr()
        assert "\x1b[2J" not in told.out + told.err and "root:" not in told.out
    assert everything(here / "outside") == before
    assert app._run(["show", "--home", str(home.path), "../../outside"]) in (
        0,
        2,
    )  # a name of the run by now, and no path


# ---- pickles


class Gadget:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def op(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


BIG = struct.pack("<q", 1 << 40)
PICKLES: dict[str, Callable[[Path], bytes]] = {
    "a shell": lambda mark: pickle.dumps({"data": Gadget(os.system, f"touch {mark}")}),
    "eval": lambda mark: pickle.dumps({"data": Gadget(eval, f"open({str(mark)!r}, 'w')")}),
    "a module": lambda mark: op(named("builtins", "__import__"), b"(U\x02os\x85R"),
    "by memo and stack": lambda mark: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "instance": lambda mark: b"(S'touch x'\nios\nsystem\n.",
    "an object": lambda mark: b"(cos\nsystem\nS'touch x'\no.",
    "numpy's own loader": lambda mark: op(named("numpy", "load"), b"X\x01\x00\x00\x00a\x85R"),
    "numpy's test runner": lambda mark: op(named("numpy.testing._private.utils", "runstring"), b"U\x01a}\x86R"),
    "dots in names": lambda mark: b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
    "an array of objects": lambda mark: pickle.dumps({"data": np.array([Gadget(os.mkdir, str(mark))]), "labels": [0]}),
    "the type of objects": lambda mark: op(named("numpy", "dtype"), b"U\x01OK\x00K\x01\x87R"),
    "fields that overlap": lambda mark: pickle.dumps({"data": np.zeros(3, [("a", "u1"), ("b", "O")])}),
    "a huge shape": lambda mark: op(named("numpy", "ndarray"), b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86\x85R"),
    "reconstructed hugely": lambda mark: op(
        b"}U\x04data", named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"),
        b"\x8a\x06" + struct.pack("<q", 1 << 44)[:6], b"\x85U\x01b\x87R", b"sU\x06labels]K\x00as",
    ),
    "a state of another shape": lambda mark: op(
        b"}U\x04data", named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), b"K\x00\x85U\x01b\x87R",
        b"(K\x01\x8a\x06" + struct.pack("<q", 1 << 44)[:6] + b"\x85", named("numpy", "dtype"), b"U\x02u1K\x00K\x01\x87R",
        b"\x89U\x03abctb", b"sU\x06labels]K\x00as",
    ),
    "a codec that packs": lambda mark: op(named("_codecs", "encode"), b"X\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R"),
    "doubled again and again": lambda mark: op(
        b"".join([named("_codecs", "encode")] * 60), b"X\x04\x00\x00\x00aaaa", b"X\x03\x00\x00\x00hex\x86R" * 60
    ),
    "built upon a function": lambda mark: op(named("_codecs", "encode"), b"}U\x08__code__K\x01sb"),
    "built upon a class": lambda mark: op(named("numpy", "dtype"), b"}U\x08__init__K\x01sb"),
    "a persistent id": lambda mark: b"Pabc\n.",
    "a persistent object": lambda mark: op(b"K\x01Q"),
    "a registered extension": lambda mark: op(b"\x82\x01"),
    "a buffer from outside": lambda mark: b"\x80\x05\x97.",
    "a memo of a terabyte": lambda mark: op(b"K\x01r\xff\xff\xff\x7f"),
    "bytes of a terabyte": lambda mark: b"\x80\x04\x8e" + BIG + b".",
    "text of a terabyte": lambda mark: b"\x80\x04\x8d" + BIG + b".",
    "an array of bytes of a terabyte": lambda mark: b"\x80\x05\x96" + BIG + b".",
    "a frame of a terabyte": lambda mark: b"\x80\x04\x95" + BIG + b"N.",
    "a negative frame": lambda mark: b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "a number of 100 000 digits": lambda mark: b"I" + b"9" * 100_000 + b"\n.",
    "as deep as the file": lambda mark: op(b"]" * 100_000 + b"a" * 99_999),
    "without end": lambda mark: op(b"]0" * 3_000_000),
    "labels that multiply": lambda mark: op(
        b"}U\x04dataK\x00sU\x06labels]q\x00K\x01a" + b"".join(b"]q" + bytes([i]) + (b"h" + bytes([i - 1]) + b"a") * 10 for i in range(1, 60)) + b"s"
    ),
    "labels beyond any class": lambda mark: pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10**30]}),
    "labels that are rows": lambda mark: pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": np.zeros((1, 9))}),
    "no images": lambda mark: pickle.dumps({"data": np.zeros((1, 3072), np.int16), "labels": [1]}),
    "nothing": lambda mark: b"",
}  # fmt: skip


@pytest.mark.parametrize("gadget", PICKLES)
def test_a_pickled_batch_runs_nothing(here: Path, gadget: str) -> None:
    from engine.data._cifar import _batch

    mark = here / "executed"
    file = here / "batch"
    file.write_bytes(PICKLES[gadget](mark))
    before = sorted(path.name for path in here.iterdir())
    dispatch, allowed = dict(_pickled._Machine.dispatch), dict(_pickled._Machine.names)
    with quickly(4.0 if gadget == "without end" else 1.0), pytest.raises(DataError) as caught:
        _batch(file, "labels")
    assert str(caught.value).startswith(f"{file}: ") and caught.value.hint and len(str(caught.value)) < 1000
    assert sorted(path.name for path in here.iterdir()) == before and not mark.exists()
    assert (dispatch, allowed) == (_pickled._Machine.dispatch, _pickled._Machine.names)
    assert _pickled._Dtype("u1").code == "u1"  # nothing was built upon what is ours


def test_a_whole_data_set_of_pickles_that_is_hostile_in_one_place(here: Path) -> None:
    written = write_cifar10(here / "data")
    (written.folder / "test_batch").write_bytes(PICKLES["a shell"](here / "executed"))
    with pytest.raises(DataError, match=r"posix\.system, which is no part of an array"):
        data("cifar10")
    assert not (here / "executed").exists()


# ---- data sets


def data(dataset: str, **options: Any) -> Splits:
    return load_data(check({"data": {"dataset": dataset, "verify": False, "download": False, **options}}))


def member(name: str, content: bytes = b"x", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in values.items():
        setattr(entry, key, value)
    return entry, content


INNER = "cifar-10-batches-py"
TARS: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "out by dots": ([member(f"{INNER}/../../escaped")], "would leave the folder"),
    "out by root": ([member("/tmp/trainctl-escaped")], "would leave the folder"),
    "a link out": ([member(f"{INNER}/a", b"", type=tarfile.SYMTYPE, linkname="/etc")], "link"),
    "through a link": ([member("a", b"", type=tarfile.SYMTYPE, linkname=".."), member("a/escaped")], "link"),
    "a hard link": ([member(f"{INNER}/a", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "link"),
    "a device": ([member(f"{INNER}/a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5)], "device"),
    "a pipe": ([member(f"{INNER}/data_batch_1", b"", type=tarfile.FIFOTYPE)], "device"),
    "a folder that is a link": ([member(INNER, b"", type=tarfile.SYMTYPE, linkname="/etc")], "link"),
    "another name of the terminal": ([member(f"{INNER}/\x1b[2J")], "would leave the folder"),
    "too many": ([member(f"{INNER}/{i}", b"") for i in range(60)], "too much"),
}


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for entry, content in members:
            archive.addfile(entry, io.BytesIO(content))


def refused_archive(here: Path, dataset: str, archive: Path, reason: str) -> None:
    from torchvision import datasets

    assert datasets  # takes seconds to import
    before = everything(here)
    with quickly(), pytest.raises(DataError) as caught:
        data(dataset)
    assert str(archive) in str(caught.value) and reason in str(caught.value), caught.value
    after = everything(here)
    assert {name for name in after if name not in before} <= {"data/.lock"}  # nothing is left of it


@pytest.mark.parametrize("kind", TARS)
def test_a_tar_is_looked_at_before_it_is_unpacked(here: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unpack, "MAX_MEMBERS", 50)
    members, reason = TARS[kind]
    archive = here / "data" / "cifar-10-python.tar.gz"
    write_tar(archive, [member(f"{INNER}/fine"), *members])
    refused_archive(here, "cifar10", archive, reason)
    assert not Path("/tmp/trainctl-escaped").exists()


def zeros(size: int) -> bytes:
    """`size` zeros, packed with gzip, without ever being there."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return packed.getvalue()


def header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.GNU_FORMAT)


def test_a_tar_that_claims_to_be_gigabytes(here: Path) -> None:
    archive = here / "data" / "cifar-10-python.tar.gz"
    huge, _ = member(f"{INNER}/data_batch_1")
    huge.size = 8 << 30
    archive.write_bytes(gzip.compress(header(huge)) + zeros(1 << 24))
    refused_archive(here, "cifar10", archive, "would be too much")
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        long, _ = member("x", type=kind)
        long.size = 8 << 30
        archive.write_bytes(gzip.compress(header(long)) + zeros(1 << 24))
        refused_archive(here, "cifar10", archive, "one of its headers is too long")
    archive.write_bytes(gzip.compress(b"nothing of a tar" * 100))
    refused_archive(here, "cifar10", archive, "cannot be unpacked")


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("tiny-imagenet-200/../../escaped", 0o100644, "would leave the folder"),
        ("/etc/escaped", 0o100644, "would leave the folder"),
        ("tiny-imagenet-200\\..\\escaped", 0o100644, "would leave the folder"),
        ("tiny-imagenet-200/link", 0o120777, "is a link"),
    ],
)
def test_a_zip_is_looked_at_before_it_is_unpacked(here: Path, name: str, mode: int, reason: str) -> None:
    archive = here / "data" / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("tiny-imagenet-200/wnids.txt", "n1\n")
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        zipped.writestr(entry, "/etc")
    refused_archive(here, "tiny-imagenet", archive, reason)


def test_a_zip_bomb(here: Path) -> None:
    archive = here / "data" / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        zipped.writestr("tiny-imagenet-200/wnids.txt", bytes(1 << 20))
    content = archive.read_bytes()
    size, claimed = struct.pack("<I", 1 << 20), struct.pack("<I", 0xF0000000)
    assert content.count(size) == 2
    archive.write_bytes(content.replace(size, struct.pack("<I", 100)))  # it would unpack to more than it says
    refused_archive(here, "tiny-imagenet", archive, "cannot be unpacked")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for number in range(2):
            zipped.writestr(f"tiny-imagenet-200/{number}", bytes(1 << 20))
    archive.write_bytes(archive.read_bytes().replace(size, claimed))
    refused_archive(here, "tiny-imagenet", archive, "would be too much")


def npy(shape: tuple[int, ...], descr: str, content: bytes = b"") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def write_npz(path: Path, **arrays: bytes) -> None:
    given = {"x_train": npy((1,), "|u1", b"a"), "y_train": npy((1,), "|u1", b"a"), **arrays}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for name, content in {"x_test": given["x_train"], "y_test": given["y_train"], **given}.items():
            zipped.writestr(f"{name}.npy", content)


NPZ: dict[str, bytes] = {
    "a huge shape": npy((1 << 20, 3, 1 << 10, 1 << 10), "|u1", bytes(1000)),
    "a shape beyond 64 bits": npy((1 << 62, 1 << 62), "|u1"),
    "a negative shape": npy((-1, -1), "|u1", b"a"),
    "objects": npy((1,), "|O", pickle.dumps([Gadget(os.mkdir, "executed")])),
    "fields of objects": npy((1,), "|O8", bytes(8)),
    "a header of a program": b"\x93NUMPY\x01\x00\x40\x00" + b"__import__('os').mkdir('executed')".ljust(64),
    "a header without end": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
    "a header nested deeply": b"\x93NUMPY\x02\x00" + struct.pack("<I", 9000) + b"[" * 9000,
    "another version": b"\x93NUMPY\x09\x00\x00\x00",
    "a bomb": npy((150 << 20,), "|u1", bytes(150 << 20)),
}


@pytest.mark.parametrize("kind", NPZ)
def test_an_npz_is_looked_at_before_it_is_unpacked(here: Path, kind: str) -> None:
    path = here / "data" / "mine.npz"
    write_npz(path, x_train=NPZ[kind])
    with quickly(5.0 if kind == "a bomb" else 1.0), pytest.raises(DataError) as caught:
        data("npz", path="mine.npz")
    assert str(path) in str(caught.value) and not Path("executed").exists()


def test_an_npz_that_is_no_file(here: Path) -> None:
    os.mkfifo(here / "data" / "pipe.npz")
    for path in ("pipe.npz", "/dev/zero", "/dev/stdin", "../../../../../../../../etc/passwd", "nowhere"):
        with quickly(), pytest.raises(DataError):
            data("npz", path=path)


def picture(width: int, height: int) -> bytes:
    """A PNG that claims to be so large."""
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    found = content.getvalue()
    import zlib

    ihdr = b"IHDR" + struct.pack(">II", width, height) + found[24:29]
    return found[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + found[33:]


def test_images_that_are_none(here: Path) -> None:
    write_folder(here / "data" / "mine", train=2, test=2)
    image = here / "data" / "mine" / "train" / "class0" / "000.png"
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(executed) (w) file closefile\nshowpage\n"
    for content in (
        picture(50_000, 50_000),
        picture(9000, 9000),
        picture(1, 2**31 - 1),
        picture(0, 0),
        postscript,
        b"",
        b"\x89PNG\r\n\x1a\n",
    ):
        image.write_bytes(content)
        with quickly(), pytest.raises(DataError, match="cannot be read as an image"):
            data("folder", path="mine")
    image.unlink()
    os.mkfifo(image)
    with quickly(), pytest.raises(DataError, match="no file"):
        data("folder", path="mine")
    image.unlink()
    image.symlink_to("/etc/passwd")
    with quickly(), pytest.raises(DataError) as caught:
        data("folder", path="mine")
    assert "root:" not in str(caught.value) and not Path("executed").exists()


def test_links_do_not_make_a_folder_of_images_endless(here: Path) -> None:
    write_folder(here / "data" / "mine", train=2, test=2)
    for name in ("a", "b"):  # two links back are 2^40 paths
        (here / "data" / "mine" / "train" / "class0" / name).symlink_to(here / "data" / "mine" / "train" / "class0")
    with quickly(), pytest.raises(DataError, match="is a link to a folder"):
        data("folder", path="mine")


def test_idx_files_that_claim_too_much(here: Path) -> None:
    folder = here / "data" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 0))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(zeros(130 << 20))
    with quickly(2.0), pytest.raises(DataError, match="bytes when unpacked"):
        data("fashion-mnist")
    for sizes in ((0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), (1 << 31, 1 << 31, 4), (0xFFFFFFFF, 0xFFFFFFFF, 1)):
        (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", *sizes)))
        with quickly(), pytest.raises(DataError, match="not an IDX file"):
            data("fashion-mnist")


# ---- weights of other people


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 2)
        self.head = nn.BatchNorm1d(2)


def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Net()


WRITERS: dict[str, Callable[[dict[str, torch.Tensor], Path], Any]] = {
    "safetensors": lambda tensors, path: path.write_bytes(to_safetensors(tensors)),
    "torch": torch.save,
    "torch, in a checkpoint": lambda tensors, path: torch.save({"epoch": 3, "state_dict": tensors, "lr": 0.1}, path),
    "torch, as it was": lambda tensors, path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod.module."])
@pytest.mark.parametrize("writer", WRITERS)
def test_weights_of_others_are_taken(here: Path, writer: str, prefix: str) -> None:
    path = here / ("weights.safetensors" if writer == "safetensors" else "weights.pt")
    WRITERS[writer]({prefix + name: tensor + 1 for name, tensor in net().state_dict().items()}, path)
    network = Net()
    if path.suffix == ".pt":
        with pytest.raises(CheckpointError, match="is a pickle, and a pickle can run code: convert it"):
            load_weights(network, path, pickled=False)
    load_weights(network, path, pickled=path.suffix == ".pt")
    for name, tensor in net().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor + 1)


def test_our_own_checkpoint_gives_its_model(here: Path) -> None:
    path = here / "best.safetensors"
    tensors = checkpoint.put(net().state_dict(), "model.") | {
        "standard.x": torch.ones(1),
        "optimizer.model.y": torch.ones(1),
    }
    checkpoint.save(path, tensors, {})
    network = Net()
    load_weights(network, path, pickled=False)
    assert torch.equal(network.body.weight, net().body.weight)


def huge_storage(path: Path) -> None:
    """A tensor of a few numbers that claims to be a trillion."""
    torch.save({"body.weight": torch.zeros(1).expand(1 << 40)}, path)


def packed_torch(path: Path) -> None:
    """torch's zip with its zeros packed."""
    torch.save({"body.weight": torch.zeros(20 << 20, dtype=torch.uint8)}, path)
    with zipfile.ZipFile(path) as stored:
        members = {entry.filename: stored.read(entry) for entry in stored.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "a gadget": lambda path: torch.save({"body.weight": Gadget(os.mkdir, "executed")}, path),
    "a plain pickle": lambda path: path.write_bytes(pickle.dumps(Gadget(os.mkdir, "executed"))),
    "a gadget, as it was": lambda path: torch.save(Gadget(os.mkdir, "executed"), path, _use_new_zipfile_serialization=False),
    "eval": lambda path: torch.save(Gadget(eval, "__import__('os').mkdir('executed')"), path),
    "a network": lambda path: torch.save(net(), path),
    "no tensors": lambda path: torch.save([1, 2], path),
    "other tensors": lambda path: torch.save({"a": torch.ones(3)}, path),
    "another shape": lambda path: torch.save({**net().state_dict(), "body.weight": torch.ones(9)}, path),
    "claims": huge_storage,
    "a bomb": packed_torch,
    "torn": lambda path: path.write_bytes(b"PK\x03\x04" + b"x" * 100),
    "nothing": lambda path: path.write_bytes(b""),
    "no file": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "nobody": lambda path: None,
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_that_are_something_else(here: Path, kind: str, pickled: bool, name: str) -> None:
    path = here / name
    FOREIGN[kind](path)
    with quickly(), pytest.raises(CheckpointError) as caught:
        load_weights(Net(), path, pickled=pickled)
    message = str(caught.value)
    assert str(path) in message and "weights_only=False" not in message and len(message) < 600
    assert not Path("executed").exists()


def test_a_recipe_asks_for_it(make_folder: Made, here: Path) -> None:
    star = {"topology.enabled": True, "topology.variant": "star", "standard.weights": str(here / "m.pt")}
    recipe = check(merged(TINY, star))
    setup = prepare(recipe.run, recipe.model)
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        worker._load(recipe, setup)
    _, networks = worker._load(check(merged(TINY, {**star, "standard.weights": ""})), setup)
    assert networks.standard is not None
    torch.save(
        {name: torch.full_like(tensor, 2) for name, tensor in networks.standard.state_dict().items()}, here / "m.pt"
    )
    with pytest.raises(CheckpointError, match=r"set standard\.torch_weights = true"):
        worker._load(recipe, setup)
    _, networks = worker._load(check(merged(TINY, {**star, "standard.torch_weights": True})), setup)
    assert networks.standard is not None and all(
        (tensor == 2).all() for tensor in networks.standard.state_dict().values()
    )


# ---- checkpoints


def safetensors(about: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(about) if length is None else length) + about + body


def tensor(start: int, end: int, shape: str = "[1]", dtype: str = "F32") -> str:
    return f'{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{start}, {end}]}}'


SAFETENSORS: dict[str, bytes] = {
    "a header as long as memory": safetensors(b"{}", length=1 << 62),
    "a header as long as is let through": safetensors(b"{}", b" " * 100, length=(4 << 20) - 1),
    "a long header": safetensors(b"{" + b" " * (5 << 20) + b"}"),
    "overlapping": safetensors(f'{{"a": {tensor(0, 4)}, "b": {tensor(0, 4)}}}'.encode(), bytes(4)),
    "a hole": safetensors(f'{{"a": {tensor(4, 8)}}}'.encode(), bytes(8)),
    "backwards": safetensors(f'{{"a": {tensor(4, 0)}}}'.encode(), bytes(4)),
    "beyond the file": safetensors(f'{{"a": {tensor(0, 1 << 50, f"[{1 << 48}]")}}}'.encode(), bytes(4)),
    "a shape beyond 64 bits": safetensors(f'{{"a": {tensor(0, 4, f"[{1 << 63}, {1 << 63}]")}}}'.encode(), bytes(4)),
    "a negative shape": safetensors(f'{{"a": {tensor(0, 4, "[-1]")}}}'.encode(), bytes(4)),
    "another type": safetensors(f'{{"a": {tensor(0, 4, dtype="F4096")}}}'.encode(), bytes(4)),
    "NaN": safetensors(b'{"a": NaN}'),
    "deep": safetensors(b'{"a": ' + b"[" * 100_000),
    "deep state": safetensors(json.dumps({"__metadata__": {"state": "[" * 100_000}}).encode()),
    "NaN in the state": safetensors(b'{"__metadata__": {"state": "{\\"a\\": NaN}"}}'),
    "a number of 10 000 digits": safetensors(json.dumps({"__metadata__": {"state": "9" * 10_000}}).encode()),
    "a state that is no object": safetensors(json.dumps({"__metadata__": {"state": "[1]"}}).encode()),
    "no text": safetensors(b"\xff\xfe{}"),
    "no JSON": safetensors(b"{'a': 1}"),
    "short": b"\x02\x00",
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_a_hostile_header(here: Path, kind: str) -> None:
    path = here / "last.safetensors"
    path.write_bytes(SAFETENSORS[kind])
    with quickly(), pytest.raises(CheckpointError, match=r"last\.safetensors: damaged checkpoint"):
        load(path)


STATES: dict[str, tuple[str, Any]] = {
    "no progress": ("progress", None), "a list": ("progress", []), "no events": ("events", None), "events": ("events", "x"),
    "before the first byte": ("events", -1), "huge events": ("events", 10**300), "events of truth": ("events", True),
    "a rule": ("rule", 3), "a stage": ("progress.stage", "deploy"), "epoch 0": ("progress.epoch", 0),
    "a negative batch": ("progress.batch", -3), "half a batch": ("progress.batch", 1.5), "a huge step": ("progress.step", 10**30),
    "time backwards": ("progress.seconds", -1.0), "sums": ("progress.sums", [1]), "a sum": ("progress.sums", {"loss": "x"}),
    "a huge sum": ("progress.sums", {"loss": 10**400}), "the best": ("progress.best", {"epoch": 1}),
    "the key of the best": ("progress.best", {"epoch": 1, "value": 3.0, "key": ["x", 1]}),
    "something unknown": ("progress.shell", "true"), "no epoch": ("progress.epoch", None),
}  # fmt: skip


def test_resuming_from_a_hostile_checkpoint(make_folder: Made) -> None:
    rundir = make_folder()
    carry_out(rundir, until=2)
    path = rundir.checkpoint("last")
    tensors, state = load(path)
    with working(rundir) as life:
        recipe = worker.read_recipe(rundir)
        log = EventLog(rundir.events)
        trainer = worker.make_trainer(recipe, prepare(recipe.run, recipe.model), life, log, state["recipe"])

        def refused(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> str:
            checkpoint.save(path, tensors, state)
            with quickly(), pytest.raises(CheckpointError) as caught:
                trainer.resume()
            return str(caught.value)

        for kind, (key, value) in STATES.items():
            changed = json.loads(json.dumps(state))
            table = changed["progress"] if "." in key else changed
            table[key.rpartition(".")[2]] = value
            if value is None:
                del table[key.rpartition(".")[2]]
            assert str(path) in refused(tensors, changed), kind
        weight = next(name for name in tensors if name.startswith("optimizer."))
        for odd in ({**tensors, weight: torch.ones(1)}, {**tensors, weight: torch.ones(7, 7)}, {}):
            assert str(path) in refused(odd, state)
        checkpoint.save(path, tensors, state)
        assert trainer.resume() == state["events"] and trainer.progress.step == 2  # the honest one is gone on with


def test_evaluating_a_hostile_checkpoint(make_folder: Made) -> None:
    rundir = make_folder()
    (rundir.path / "recipe.toml").write_text(tomli_w.dumps(TINY))
    recipe = check(TINY)
    rundir.checkpoints.mkdir()
    _, networks = worker._load(recipe, prepare(recipe.run, recipe.model))
    states: list[dict[str, Any]] = [{}, {"progress": {"stage": "train"}, "rule": "x"}, {"progress": 3}]
    for state in states:
        checkpoint.save(rundir.checkpoint("best"), networks.tensors(), state)
        with pytest.raises(CheckpointError, match="not a checkpoint of a run"):
            worker._restore(networks, recipe, rundir, "best")


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 5000,
        b"a = " + b"[" * 5000,
        b"\xff",
        b"run.seed = " + b"9" * 5000,
        b"eval = 3",
        b"[eval]\nattacks = 3",
        b"[run]\nthreads = 'x'",
        b"[model]\nwidth = 9223372036854775807",
        b"",
    ],
)
def test_the_recipe_of_a_strangers_run(home: Home, text: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    run = home.run("aaaaaaaa")
    run.recipe.write_bytes(text)
    if text:
        with quickly(), pytest.raises((CheckpointError, InvalidRecipe)):
            worker.read_recipe(run)
    run.checkpoints.mkdir()
    checkpoint.save(run.checkpoint("best"), {}, {})
    for command in (["show"], ["ls"], ["compare"]):
        assert app._run([*command, "--home", str(home.path)] + ["aaaaaaaa"] * (command == ["show"])) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_attacks_and_threads_of_a_strangers_recipe_are_read_or_refused(home: Home) -> None:
    run = home.run("aaaaaaaa")
    for text in ("eval = 3", "[eval]\nattacks = 3", "run = 3\n", "a = " + "[" * 5000):
        run.recipe.write_text(text)
        with quickly(), pytest.raises(UsageError, match=r"recipe\.toml: cannot be read"):
            evaluation._own_attacks(run)
