"""The code of a run is frozen when it is queued: one copy for all who share it, whole or not there, and told truly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TINY
from fake_trainctl import ROOT, cli, queue, tidy, until

from engine import options, source
from engine.rundir import RunDir
from trainctl.errors import MachineError
from trainctl.home import Home, find_home
from trainctl.launch import folders, frozen, processes
from trainctl.recipes.plan import plan

SMALL = """
import json, os, sys
from pathlib import Path
from engine.words import WORD
plugins = [p for p in os.environ["TRAINCTL_PLUGINS"].split(":") if p]
said = WORD + "".join(Path(p, "own.py").read_text() for p in plugins)
folder = Path(sys.argv[1])
(folder / "said").open("a").write(said + "\\n")
(folder / "exit.json").write_text(json.dumps({"status": "failed", "reason": "as it was meant to", "code": 1}))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with an engine of three files, which writes down the word that it was made with."""
    package = tmp_path / "checkout" / "engine"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SMALL)
    (package / "words.py").write_text('WORD = "old"')
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "words.py").touch()
    theirs = SimpleNamespace(PACKAGE=package, plugin_folders=options.plugin_folders)
    monkeypatch.setattr(frozen, "options", theirs)  # recipes are still checked against all methods
    monkeypatch.delenv("TRAINCTL_PLUGINS", raising=False)
    return package


def copies(home: Home) -> list[str]:
    return sorted(path.name for path in (home.path / "code").iterdir())


def said(run: RunDir) -> list[str]:
    """What the engine of each start has said, after one more."""
    child = processes.start(run)
    assert child is not None and child.wait() == 0
    return (run.path / "said").read_text().split()


def test_a_thousand_runs_share_one_copy(home: Home) -> None:
    runs = folders.create(home, plan(["digits-trades"], seeds="0-2"))
    runs += folders.create(home, plan(["digits-trades"], seeds="3"))
    [name] = {run.json("run.json")["code"] for run in runs}
    assert copies(home) == [name] and frozen.NAME.fullmatch(name)
    copy = frozen.find(home, name)
    there = {str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    note = json.loads(there.pop(source.NOTE))
    assert there == {f"engine/{path.relative_to(ROOT / 'engine')}": path.read_bytes()
                     for path in (ROOT / "engine").rglob("*.py")}  # fmt: skip
    assert note["git"] == source.commit(ROOT) and note["plugins"] == []


def test_a_run_goes_on_with_the_code_that_it_was_queued_with(home: Home, small: Path) -> None:
    [run] = folders.create(home, plan(["digits-trades"]))
    (small / "words.py").write_text('WORD = "new"')  # before it has even started
    assert said(run) == ["old"]
    folders.requeue(run)
    assert said(run) == ["old"] * 2
    folders.requeue(run, new_code=True)
    assert said(run) == ["old", "old", "new"] and len(copies(home)) == 2
    (small / "words.py").write_text('WORD = "newest"')
    folders.requeue(run)
    assert said(run)[-1] == "new"
    folders.retry(run)
    assert said(run)[-1] == "newest" and run.json("run.json")["code"] in copies(home)
    about = run.json("run.json")
    del about["code"]
    run.write_json("run.json", about)  # as trainctl wrote it before it froze code
    folders.requeue(run)
    run.recipe.unlink()
    child = processes.start(run)
    assert child is not None and child.wait() == 2
    assert "holds no recipe.toml" in run.log.read_text()  # said by the engine of this very repository


def test_plugins_are_frozen_too(home: Home, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / "p", tmp_path / "nothing here", tmp_path / "q"]
    for place in (places[0], places[2]):
        (place / "helpers").mkdir(parents=True)
        (place / "helpers" / "__init__.py").touch()
        (place / "notes.txt").write_text("not code")
        (place / "loop").symlink_to(place)
        (place / "own.py").write_text(f"+{place.name}")
    monkeypatch.setenv("TRAINCTL_PLUGINS", os.pathsep.join(map(str, places)))
    [run] = folders.create(home, plan(["digits-trades"]))
    copy = frozen.find(home, run.json("run.json")["code"])
    assert sorted(str(path.relative_to(copy)) for path in (copy / "plugins").rglob("*.py")) == [
        "plugins/0/helpers/__init__.py", "plugins/0/own.py", "plugins/1/helpers/__init__.py", "plugins/1/own.py",
    ]  # fmt: skip
    assert not list(copy.rglob("notes.txt"))
    assert source.origin(copy)["plugins"] == [str(places[0]), str(places[2])]
    (places[0] / "own.py").write_text("+changed")
    monkeypatch.setenv("TRAINCTL_PLUGINS", "/elsewhere")  # the scheduler may be somebody else's
    assert said(run) == ["old+p+q"]
    [plain] = folders.create(home, plan(["digits-trades"]))
    monkeypatch.setenv("TRAINCTL_PLUGINS", str(places[0]))
    assert said(plain) == ["old"]


def test_the_real_engine_tells_the_truth_about_its_code(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs frozen, and env.json has the commit of the checkout and where the plug-in came from."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text((ROOT / "engine/methods/standard.py").read_text().replace(
        "class Standard(", "class Mine("))  # fmt: skip
    monkeypatch.setenv("TRAINCTL_PLUGINS", str(tmp_path / "plugins"))
    tiny = {f"{part}.{key}": value for part, keys in TINY.items() for key, value in keys.items()}
    tiny |= {"method.name": "mine", "schedule.epochs": 1, "eval.attacks": [], "schedule.milestones": []}
    given = [f"{key}={json.dumps(value)}" for key, value in tiny.items()]
    [run] = folders.create(home, plan(["digits-standard"], overrides=given))
    child = processes.start(run)
    assert child is not None
    (tmp_path / "plugins" / "mine.py").unlink()
    assert child.wait() == 0, run.log.read_text()
    env = run.json("env.json")
    assert env["code"] == run.json("run.json")["code"]
    noted = source.origin(home.path / "code" / env["code"])["git"]  # the checkout may have been edited since
    assert env["git"] == noted and (noted or {}).get("commit") == (source.commit(ROOT) or {}).get("commit")
    [plugin] = env["plugins"]
    assert plugin["path"] == str(tmp_path / "plugins" / "mine.py")
    assert source.origin(ROOT)["code"] is None


def test_a_damaged_copy_is_never_run(home: Home, small: Path) -> None:
    [run] = folders.create(home, plan(["digits-trades"]))
    name = run.json("run.json")["code"]
    copy = home.path / "code" / name

    def damage(kind: str) -> None:
        if kind == "changed":
            (copy / "engine" / "words.py").write_text('WORD = "bad"')
        elif kind == "emptied":
            (copy / "engine" / "words.py").write_bytes(b"")  # as after a power cut
        elif kind == "added":
            (copy / "engine" / "more.py").touch()
        elif kind == "unnoted":
            (copy / source.NOTE).unlink()
        elif kind == "gone":
            shutil.rmtree(copy)

    for kind in ("changed", "emptied", "added", "unnoted", "gone"):
        damage(kind)
        assert frozen.find(home, name) == copy  # today's code is the same, so it is mended
        assert (copy / "engine" / "words.py").read_text() == 'WORD = "old"' and source.origin(copy)["code"] == name
        assert sorted(path.name for path in (copy / "engine").iterdir()) == ["__init__.py", "__main__.py", "words.py"]
        damage(kind)
        assert frozen.freeze(home) == name and frozen._intact(copy)
    assert said(run) == ["old"]
    (small / "words.py").write_text('WORD = "new"')
    for kind in ("changed", "gone"):
        damage(kind)
        if kind == "gone":
            with pytest.raises(MachineError, match="gone or was changed") as caught:
                folders.check_requeue(run)
            assert "--new-code" in caught.value.hint and "retry" in caught.value.hint
            continue
        folders.requeue(run)
        with pytest.raises(MachineError, match="gone or was changed"):
            processes.start(run)
        assert run.status() == "queued"
        processes.record_end(run, "failed", reason="its code has gone")
    folders.requeue(run, new_code=True)
    assert said(run) == ["old", "new"]


@pytest.mark.parametrize("name", ["../../elsewhere", "0" * 12, "", 5, ["a"], "A" * 12])
def test_a_strangers_name_of_a_copy_leads_nowhere(home: Home, small: Path, name: object) -> None:
    [run] = folders.create(home, plan(["digits-trades"]))
    run.write_json("run.json", {**run.json("run.json"), "code": name})
    shutil.copytree(small.parent, home.path.parent / "elsewhere")
    with pytest.raises(MachineError, match="gone or was changed"):
        processes.start(run)
    assert not (run.path / "said").exists() and frozen.unused(home) == []


KILLED_BEFORE_A_STEP = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine import options
from trainctl.home import Home
from trainctl.launch import frozen
options.PACKAGE = Path(sys.argv[2])
left = int(sys.argv[4])
def dying(real):
    def step(*given, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*given, **named)
    return step
Path.mkdir, Path.open, Path.rename, Path.unlink = map(dying, (Path.mkdir, Path.open, Path.rename, Path.unlink))
os.fsync = dying(os.fsync)
print(frozen.freeze(Home(Path(sys.argv[3]))))
"""


def freezer(home: Home, small: Path, step: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED_BEFORE_A_STEP, str(ROOT), str(small), str(home.path), str(step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_copy_appears_whole_however_its_writer_is_killed(home: Home, small: Path) -> None:
    name = frozen._digest(frozen._read(small, []))
    for step in range(2, 60, 3):
        child = freezer(home, small, step)
        if child.wait() == 0:
            break
        assert child.returncode == -signal.SIGKILL
        assert not (home.path / "code" / name).exists() or frozen._intact(home.path / "code" / name)
    assert step > 9 and frozen._intact(home.path / "code" / name)
    left = [path for path in (home.path / "code").iterdir() if path.name != name]
    assert left and frozen.unused(home) == []
    for path in (home.path / "code").iterdir():
        os.utime(path, (1.0, 1.0))
    assert frozen.unused(home) == sorted([*left, home.path / "code" / name])


def test_racing_freezers_make_one_copy(home: Home, small: Path) -> None:
    children = [freezer(home, small, 10**6) for _ in range(5)]
    assert len({child.communicate()[0] for child in children}) == 1
    assert all(child.returncode == 0 for child in children)
    assert copies(home) == [frozen.freeze(home)]


def test_only_what_nobody_needs_is_unused(home: Home, small: Path) -> None:
    assert frozen.unused(home) == []
    first, second = folders.create(home, plan(["digits-trades"], seeds="0-1"))
    (small / "words.py").write_text('WORD = "new"')
    other = frozen.freeze(home)
    (home.path / "code" / "something else").mkdir()
    (home.path / "code" / "f00000000000").symlink_to(home.path)
    folder = home.path / "code"
    for path in folder.iterdir():
        os.utime(path, (1.0, 1.0), follow_symlinks=False)
    assert frozen.unused(home) == [folder / other]
    frozen.freeze(home)  # somebody is about to queue a run with it
    assert frozen.unused(home) == []
    folders.remove(home, first)
    assert frozen.unused(home) == []
    folders.remove(home, second)
    assert len(frozen.unused(home)) == 1
    home.runs.rename(home.path / "away")  # on a disk that is not there: who knows
    assert frozen.unused(home) == []
    (home.path / "away").rename(home.runs)


def test_a_home_that_no_code_can_be_run_from(tmp_path: Path) -> None:
    for name, shown in (("a:b", "a:b"), (os.fsdecode(b"a\xff"), r"a\\udcff")):
        with pytest.raises(MachineError, match=shown) as told:
            find_home(str(tmp_path / name))
        assert "--home" in told.value.hint and str(told.value).isprintable()


def test_resume_and_retry_say_which_code(home: Home) -> None:
    [run] = queue(home, "quick")
    processes.record_end(run, "failed", reason="to be resumed")
    run.write_json("run.json", {**run.json("run.json"), "code": "0" * 12})
    refused = cli(home, "resume", run.id, "-d")
    assert refused.returncode == 3 and "--new-code" in refused.stderr and run.status() == "failed"
    done = cli(home, "resume", run.id, "-d", "--new-code")
    assert done.returncode == 0, done.stderr
    until(lambda: run.status() == "done")
    assert frozen.find(home, run.json("run.json")["code"]).is_dir()
