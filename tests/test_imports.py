"""Law 4: a command imports only what it needs. Each case is a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from folders import make_run

from trainctl.home import Home

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "torchvision", "sklearn", "numpy", "textual", "sqlite_utils", "matplotlib"}
SCRIPT = """
import atexit, json, sys
names = lambda: sorted({name.split(".")[0] for name in sys.modules})
atexit.register(lambda: print("\\n" + json.dumps(names()), file=sys.stderr))
sys.argv = ["trainctl", *sys.argv[1:]]
from trainctl.__main__ import main
main()
"""


def imported(home: Path, *arguments: str) -> set[str]:
    """Top-level modules that a command has imported when it ends."""
    env = {**os.environ, "TRAINCTL_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["ls"], ["ls", "--json"], ["compare"], ["compare", "--json"], ["run", "--help"]],
)
def test_no_heavy_import(tmp_path: Path, arguments: list[str]) -> None:
    home = tmp_path / "home"
    imported(home, "ls")  # makes the index, for which sqlite_utils is welcome
    assert imported(home, *arguments) & HEAVY == set()


@pytest.mark.parametrize("command", ["ls", "compare", "queue", "queue continue"])
def test_no_schema_is_made_to_show_runs(tmp_path: Path, command: str) -> None:
    """Neither the recipe's nor one by which Typer would convert what nobody has typed."""
    home = Home(tmp_path / "home")
    make_run(home, "aaaa")
    make_run(home, "bbbb", topology=True)
    imported(home.path, "ls")
    assert imported(home.path, *command.split()) & (HEAVY | {"pydantic", "psutil"}) == set()


def test_version_needs_nothing(tmp_path: Path) -> None:
    assert imported(tmp_path, "--version") & (HEAVY | {"typer", "rich", "pydantic", "psutil"}) == set()


def test_help_loads_no_command(tmp_path: Path) -> None:
    found = "print(sorted(name for name in sys.modules if 'trainctl.cli.' in name))"
    script = f"import sys; from trainctl.cli.app import _run; _run(['--help']); {found}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['trainctl.cli.app', 'trainctl.cli.common']"
