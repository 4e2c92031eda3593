"""A new user's first quarter of an hour, in a real terminal: an empty home, a pair, the comparison, an export."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_trainctl import tidy, until
from terminal import Terminal

from trainctl.home import Home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is the terminal"),
]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


@pytest.fixture
def terminal(home: Home, tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path, 120, 40, {"TRAINCTL_HOME": str(home.path), "PS1": "$ "})
    yield made
    made.close()


def change(terminal: Terminal, field: str, value: str) -> None:
    """On the settings: find a field by the filter and give it another value."""
    terminal.press("/")
    terminal.type(field)  # without waiting, as one types who knows the way
    terminal.press("Enter", "Enter", "C-u")
    terminal.type(value)
    terminal.press("Enter")
    terminal.wait(lambda screen: f"* {field.partition('.')[2]}" in screen and value in screen)
    terminal.press("/", "C-u", "Enter")


def test_from_an_empty_home_to_a_table_for_the_paper(home: Home, terminal: Terminal, tmp_path: Path) -> None:
    terminal.run()
    terminal.wait("No runs yet.")

    terminal.press("l")  # choose
    terminal.wait("TRADES (Zhang et al.")
    terminal.press("Enter")
    terminal.wait("as the recipe says")
    terminal.press("p")
    terminal.wait("baseline and +TRAIN twin")
    change(terminal, "schedule.epochs", "4")
    change(terminal, "eval.attacks", '["pgd20"]')
    terminal.press("C-s")
    screen = terminal.wait("2 runs: start at once")
    assert "digits-trades+train-s1" in screen and home.run_dirs() == []
    assert "trainctl run digits-trades --pair" in screen and "schedule.epochs=4" in screen

    terminal.press("Enter")  # launch
    terminal.wait(lambda screen: screen.count("digits-trades") >= 2 and "2 runs" in screen)
    terminal.wait("running", 120)
    terminal.press("Enter")  # watch it live
    terminal.wait(lambda screen: re.search("[\u2801-\u28ff]", screen), 120)
    terminal.press("q")  # leave in the middle: the runs go on
    terminal.wait(lambda screen: screen.rstrip().endswith(("$", "#")))
    until(lambda: all(run.status() not in ("failed", "lost") for run in home.run_dirs()))
    assert len(home.run_dirs()) == 2

    terminal.run()  # open again
    terminal.wait(lambda screen: len(re.findall("✔ done +digits", screen)) == 2, 240)
    terminal.press("c")
    terminal.wait(lambda screen: "+ TRAIN" in screen and "PGD-20" in screen and "Δ" in screen)
    terminal.press("2")  # its curves
    terminal.wait(lambda screen: re.search("[\u2801-\u28ff]", screen))
    terminal.press("1")
    terminal.press("e")
    terminal.wait("Export what is shown to a file")
    table = tmp_path / "table.tex"
    terminal.press("C-u")
    terminal.type(str(table))
    terminal.press("Enter")
    until(table.exists)
    assert "\\toprule" in table.read_text() and "TRADES" in table.read_text().upper()
    terminal.press("Escape")
    terminal.wait("done")
    terminal.press("q")
    terminal.wait(lambda screen: screen.rstrip().endswith(("$", "#")))
    assert [run.status() for run in home.run_dirs()] == ["done", "done"]
    commands = {run.json("run.json")["command"] for run in home.run_dirs()}
    assert len(commands) == 1 and next(iter(commands)).startswith("trainctl run digits-trades --pair")
