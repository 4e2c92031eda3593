"""`ls`, `show`, `compare` and `reindex` as they are typed."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from folders import PGD, THREATS, append, make_run

from trainctl.cli.app import run
from trainctl.cli.ls import age
from trainctl.home import Home
from trainctl.registry import ingest, schema, select

ROOT = Path(__file__).parent.parent
Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def sh(home: Home, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Run a command line; give its exit code, stdout and stderr."""
    monkeypatch.setenv("TRAINCTL_HOME", str(home.path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(list(arguments))
        sys.stdout.flush()
        out, err = capfd.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call


def three(home: Home) -> None:
    make_run(home, "aaaa", created=1000.0, tags=["x"], metrics={"natural": 95.0, "pgd20": 53.0})
    make_run(home, "bbbb", created=2000.0, topology=True, metrics={"natural": 96.0, "pgd20": 59.0})
    make_run(home, "cccc", created=3000.0, seed=1, status="running")


def test_ls_json_has_the_keys_of_the_contract(home: Home, sh: Shell) -> None:
    three(home)
    code, out, err = sh("ls", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [one["id"] for one in found] == ["aaaa", "bbbb", "cccc"]
    promised = "id name recipe method topology dataset model seed group pair status epoch epochs created started"
    assert {*promised.split(), "finished", "metrics", "tags"} <= set(found[0])
    assert found[1]["topology"] is True
    assert [one["id"] for one in json.loads(sh("ls", "--json", "tag:x", "@last")[1])] == ["aaaa", "cccc"]
    assert json.loads(sh("ls", "natural>99", "--json")[1]) == []


def test_ls_json_is_the_same_after_reindex(home: Home, sh: Shell) -> None:
    three(home)
    before = sh("ls", "--json")[1]
    assert sh("reindex") == (0, "", f"3 runs in {home.index}\n")
    assert sh("ls", "--json")[1] == before
    home.index.unlink()
    assert sh("reindex")[0] == 0
    assert sh("ls", "--json")[1] == before


def test_ls_shows_the_newest_first_and_how_many_more(home: Home, sh: Shell) -> None:
    three(home)
    code, out, err = sh("ls")
    lines = out.splitlines()
    assert code == 0 and err == ""
    assert re.match(r"id +name +status +epoch +natural +PGD-20 +age$", lines[0])
    assert [line.split()[0] for line in lines[2:5]] == ["cccc", "bbbb", "aaaa"]
    assert re.search(r"aaaa digits-trades-s0 #x +done +3/3 +95.00 +53.00 +\d+d", lines[4])
    assert re.search(r"cccc digits-trades-s1 +running +2/3 +– +– ", lines[2])
    assert all(len(line) <= 80 for line in lines)
    code, out, err = sh("ls", "-n", "2")
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["cccc", "bbbb", "natural:"]
    assert err == "… and 1 more; --all shows all 3\n"
    assert sh("ls", "-n", "2", "method=trades")[2] == "… and 1 more; --all shows all 3\n"
    assert [line.split()[0] for line in sh("ls", "-n", "1", "--all")[1].splitlines()[2:5]] == ["cccc", "bbbb", "aaaa"]


def test_ls_looks_closely_at_what_it_lists(home: Home, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "TICK", 0)
    for name, created in (("aaaa", 1000.0), ("bbbb", 2000.0)):
        make_run(home, name, created=created).write_json("labels.json", {"tags": ["first"]})
    assert sh("ls")[1].count("#first") == 2
    for name in ("aaaa", "bbbb"):  # with an editor that does not replace files
        (home.run(name).path / "labels.json").write_text('{"tags": ["second"]}')
    assert sh("ls", "-n", "1")[1].count("#second") == 1
    assert sh("ls")[1].count("#second") == 2


def test_ls_waits_for_another_writer_only_once(home: Home, sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "aaaa")
    ingest.refresh(home)
    make_run(home, "bbbb")
    waited: list[float] = []

    def writing(home: Home, wait: float) -> AbstractContextManager[bool]:
        waited.append(wait)
        return schema_writing(home, 0.0)

    schema_writing = schema.writing
    monkeypatch.setattr(schema, "writing", writing)
    with schema_writing(home, 0.0) as alone:
        assert alone
        out = sh("ls")[1]
        assert "aaaa" in out and "bbbb" not in out
    assert waited == [ingest.WAIT]
    assert "bbbb" in sh("ls")[1]
    assert len(waited) == 3  # two looks, if nobody is in the way


def test_options_are_converted_and_defaults_are_not_lost(home: Home, sh: Shell) -> None:
    three(home)
    assert sh("ls", "-n", "2")[1].count("digits-trades") == 2
    code, _, err = sh("ls", "-n", "zero")
    assert code == 2 and "integer" in err
    code, _, err = sh("ls", "-n", "0")
    assert code == 2 and "'-n'" in err
    assert sh("compare", "--format", "word")[0] == 2
    assert sh("compare", "--format", "csv")[1] == sh("compare", "runs", "--format", "csv", "--checkpoint", "best")[1]


def test_ls_shows_no_number_without_its_threat_model(home: Home, sh: Shell) -> None:
    three(home)
    make_run(
        home, "dddd", created=4000.0, metrics={"natural": 95.0, "pgd20": 80.0, "aa": 40.0},
        threats={"pgd20": {**PGD, "eps": 0.05}, "aa": {**THREATS["aa"], "n": 100}},
    )  # fmt: skip
    lines = sh("ls")[1].splitlines()
    assert re.search(r"^dddd .* 95\.00 +80\.00ᵃ +40\.00 ", lines[2])
    assert re.search(r"^aaaa .* 95\.00 +53\.00 +– ", lines[5])
    assert lines[-1] == "ᵃ eps 0.05 instead of 0.25"
    assert re.sub(r"\s+", " ", " ".join(lines[6:-1])) == (
        "natural: 360 of 360 images, engine.evaluate 1; "
        "PGD-20: linf, ε 0.25, step 0.025, 20 steps, uniform start, 360 of 360 images, engine.attacks.pgd 1; "
        "AA: linf, ε 0.25, uniform start, 100 of 360 images, pyautoattack 0.2.0 standard"
    )
    assert all(len(line) <= 80 for line in lines)
    found = {one["id"]: one["threats"] for one in json.loads(sh("ls", "--json")[1])}
    assert found["cccc"] == {} and found["dddd"]["pgd20"]["eps"] == 0.05 and found["dddd"]["aa"]["n"] == 100
    assert len(sh("ls", "cccc")[1].splitlines()) == 3  # nothing to explain


def test_infinity_is_null_in_json(home: Home, sh: Shell) -> None:
    folder = make_run(home, "aaaa", metrics={"natural": float("inf")})
    folder.write_json("run.json", {**folder.json("run.json"), "created": float("inf")})
    for found in (json.loads(sh("ls", "--json")[1])[0], json.loads(sh("show", "aaaa", "--json")[1])):
        assert (found["created"], found["metrics"]) == (None, {"natural": None})


def test_ls_keeps_long_names_whole(home: Home, sh: Shell) -> None:
    name = "cifar100-trades-las+train topology.weight=20 optim.batch_size=256 [red]x[/red]-s0"
    make_run(home, "aaaaaaaa", name=name)
    out = sh("ls")[1]
    assert all(len(line) <= 80 for line in out.splitlines())
    body = "".join(line[9:40].strip() for line in out.splitlines()[2:])
    assert name.replace(" ", "")[:20] in body.replace(" ", "")
    assert "[red]" in out.replace("\n", "")


def test_ls_sorts(home: Home, sh: Shell) -> None:
    three(home)

    def order(*options: str) -> list[str]:
        return [one["id"] for one in json.loads(sh("ls", "--json", *options)[1])]

    assert order("--sort", "natural") == ["aaaa", "bbbb", "cccc"]
    assert order("--sort=-pgd20") == ["bbbb", "aaaa", "cccc"]  # a run without it comes last either way
    assert order("--sort", "-created") == ["cccc", "bbbb", "aaaa"]
    assert sh("ls", "--sort=-natural", "-n", "1")[1].splitlines()[2].startswith("bbbb")
    code, out, err = sh("ls", "--sort", "natrual")
    assert (code, out) == (2, "")
    assert "no run has the key 'natrual'" in err


def test_ls_of_nothing(home: Home, sh: Shell) -> None:
    assert sh("ls") == (0, "", "no runs yet; start one with `trainctl run RECIPE`\n")
    assert sh("ls", "--json") == (0, "[]\n", "")
    assert not home.path.exists()
    home.path.write_text("")
    code, out, err = sh("ls")
    assert (code, out) == (3, "")
    assert f"{home.path} is not a folder" in err and "hint: set TRAINCTL_HOME or --home" in err
    assert sh("--home", str(home.path / "inside"), "ls")[0] == 0  # what is not there yet has no runs
    home.path.unlink()
    make_run(home, "aaaa")
    assert sh("ls", "natural>99") == (0, "", "no run fits\n")
    code, out, err = sh("ls", "zzz")
    assert (code, out) == (2, "")
    assert "there is no run 'zzz'" in err


def test_age() -> None:
    assert [age(0.0, then) for then in (5, 100, 7300, 200_000, -5)] == ["5s", "2m", "2h", "2d", "0s"]
    assert age(None, 5.0) == "–"


def test_show(home: Home, sh: Shell) -> None:
    folder = make_run(
        home, "aaaa", topology=True, tags=["x"], recipe_table={"optim": {"lr": 0.05}, "title": "A title"},
        metrics={"natural": 95.0, "pgd20": 53.0, "aa": float("nan")},
    )  # fmt: skip
    folder.write_json("labels.json", {"tags": ["x"], "note": "look [here]"})
    folder.checkpoints.mkdir()
    folder.checkpoint("best").touch()
    folder.attempts.write_text("{}\n{}\n")
    code, out, err = sh("show", "aa")
    assert (code, err) == (0, "")
    for expected in (
        r"digits-trades\+train-s0 A title", r"status +done", r"epoch +3 of 3", r"s/epoch +2.00",
        r"tags +x", r"note +look \[here\]",
        r"checkpoints +best", r"attempts +2", r"torch +2.14.1", r"optim.lr +0.05",
        r"topology.enabled +true", r"device +Some CPU on box",
        r"command +trainctl run digits-trades --seeds 0",
        r"best \(best pgd10 on validation; epoch 2\)", r"last \(last epoch; epoch 3\)",
        r"pgd20 +53.000 +linf, ε 0.25, step 0.025, 20 steps, uniform start, 360 +of 360", r"natural +95.000", r"aa +– ",
    ):  # fmt: skip
        assert re.search(expected, re.sub(r"\n {2,}", " ", out)) or re.search(expected, out), expected
    assert "momentum" not in out  # a default
    found = json.loads(sh("show", "aa", "--json")[1])
    assert found["settings"]["optim.lr"] == 0.05
    assert "optim.momentum" not in found["settings"]
    assert [one["metric"] for one in found["evals"]["best"]] == ["natural", "pgd20", "aa"]
    assert found["evals"]["best"][1]["eps"] == 0.25
    assert (found["checkpoints"], found["attempts"], found["path"]) == (["best"], 2, str(folder.path))
    assert found["exit"]["status"] == "done"
    assert found["environment"]["packages"]["torch"] == "2.14.1"


def test_show_of_runs_that_are_not_finished_or_damaged(home: Home, sh: Shell) -> None:
    three(home)
    folder = make_run(home, "dddd", status="failed")
    folder.write_json(
        "exit.json", {"status": "failed", "code": 1, "reason": "no such file", "hint": "look", "t": 1e300}
    )
    home.run("odd").path.mkdir()
    (home.run("odd").path / "run.json").write_text('{"created": 5}')
    assert re.search(r"validation_natural +84", sh("show", "cccc")[1])
    out = sh("show", "dddd")[1]
    assert "failed: no such file" in out and "hint" in out and "1e+300" in out
    assert sh("show", "odd")[0] == 0
    assert json.loads(sh("show", "odd", "--json")[1])["settings"] == {}
    code, _, err = sh("show", "method=trades")
    assert code == 2 and "means 4 runs" in err
    (folder.recipe).write_text('[method]\nname = "gone"\nbeta = 3.0\n')
    assert json.loads(sh("show", "dddd", "--json")[1])["settings"] == {"method.name": "gone", "method.beta": 3.0}


def test_show_tells_the_warnings_of_an_evaluation(home: Home, sh: Shell) -> None:
    folder = make_run(home, "aaaa", metrics={"natural": 90.0})
    more = {
        "metric": "aa",
        "value": 5.0,
        "n": 10,
        "checkpoint": "best",
        "warnings": ["zero gradient"],
        "implementation": "x",
        "version": "1",
    }
    append(folder, [("eval", more)], 9.0)
    assert "x 1, warnings: zero gradient" in re.sub(r"\s+", " ", sh("show", "@last")[1])


def test_compare_in_every_format(home: Home, sh: Shell) -> None:
    three(home)
    code, out, err = sh("compare")
    assert (code, err) == (0, "")
    assert "+ TRAIN" in out and "+6.00" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert sh("compare", "runs")[1] == out
    found = json.loads(sh("compare", "--json")[1])
    assert found["pairs"][0]["delta"]["pgd20"] == {"mean": 6.0, "low": None, "high": None, "n": 1}
    assert json.loads(sh("compare", "--format", "json")[1]) == found
    assert next(csv.DictReader(io.StringIO(sh("compare", "--format", "csv")[1])))["pair"] == "digits-trades"
    assert sh("compare", "--format", "markdown")[1].startswith("**digits")
    assert r"\toprule" in sh("compare", "--format", "latex")[1]
    assert sh("compare", "--format", "html")[0] == 2
    assert json.loads(sh("compare", "--checkpoint", "last", "--json")[1])["checkpoint"] == "last"


def test_compare_of_named_runs(home: Home, sh: Shell) -> None:
    three(home)
    found = json.loads(sh("compare", "--json", "aaaa", "cccc")[1])
    assert found["pairs"] == []
    assert [one["runs"] for one in found["runs"]] == [["aaaa", "cccc"]]
    assert "not done: cccc is running" in found["runs"][0]["notes"]
    assert sh("compare", "natural>99") == (0, "", "nothing to compare yet; `trainctl run RECIPE --pair` makes a pair\n")
    assert sh("compare", "zzz")[0] == 2


@pytest.mark.parametrize(("command", "allowed"), [("ls --json", ""), ("compare --json", ""), ("ls", "rich.table")])
def test_lists_need_nothing_heavy(home: Home, command: str, allowed: str) -> None:
    three(home)
    home.run("cccc").write_json("exit.json", {"status": "done"})  # psutil is for processes that may live
    ingest.refresh(home)
    code = (
        "import sys; from trainctl.cli.app import run\n"
        f"try: run([*{command.split()!r}, '--home', {str(home.path)!r}])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "heavy = ('sqlite_utils', 'numpy', 'textual', 'rich.table', 'torch', 'engine.recipe', 'psutil')\n"
        f"print([name for name in heavy if name in sys.modules and name != {allowed!r}], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stderr == "[]\n"
    assert ended.stdout if allowed else json.loads(ended.stdout)


def test_a_damaged_folder_does_not_break_the_lists(home: Home, sh: Shell) -> None:
    three(home)
    (home.run("odd").path).mkdir()
    (home.run("odd").path / "run.json").write_text("{")
    assert "odd" in sh("ls")[1]
    assert sh("compare", "odd")[0] == 0
    assert len(select.resolve(home, ["status=queued"])) == 1
