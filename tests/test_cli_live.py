"""The live view: what stands in it at 80 columns, and a real terminal to the end of a run."""

from __future__ import annotations

import io
import os
import pty
import re
from pathlib import Path
from typing import Any

import pytest
from fake_trainctl import COMMAND, environment, tidy
from rich.console import Console
from rich.text import Text

from engine.rundir import RunDir
from trainctl.cli import words
from trainctl.cli.live import LiveView
from trainctl.home import Home
from trainctl.launch.follow import Follower, Progress


def follower(folder: Path, name: str, status: str, reason: str = "", **progress: Any) -> Follower:
    """A followed run that stands as described."""
    run = RunDir(folder / name.replace("/", ""))
    run.path.mkdir()
    run.write_json("run.json", {"name": name})
    if reason:
        run.write_json("exit.json", {"status": status, "reason": reason, "hint": "put it there"})
    found = Follower(run)
    found.status, found.progress = status, Progress(**progress)
    return found


def picture(runs: list[Follower], monkeypatch: pytest.MonkeyPatch, height: int = 30) -> list[str]:
    """The lines of the view on a terminal of 80 columns."""
    screen = Console(
        width=80, height=height, markup=False, highlight=False, emoji=False, force_terminal=True, no_color=True
    )
    monkeypatch.setattr("trainctl.cli.live.console", lambda stderr: screen)
    view = LiveView()
    with screen.capture() as capture:
        screen.print(view.render(runs))
    view.close()
    return Text.from_ansi(capture.get()).plain.splitlines()


LATEST = {
    "loss": 2.345, "loss_robust": 2.1, "loss_topology": 0.245, "validation_natural": 58.1, "validation_pgd10": 33.2,
    "train_natural": 60.2, "train_adversarial": 35.5, "images_per_second": 1234.0,
}  # fmt: skip


def test_each_state_at_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        follower(tmp_path, "cifar100-trades+train-s1", "running", stage="train", epoch=34, epochs=100, into_epoch=0.5,
                 seconds=[130.0], latest=LATEST),
        follower(tmp_path, "b-s1", "running", stage="evaluate", evals={"best": {"pgd20": 33.3, "natural": 60.1}}),
        follower(tmp_path, "c-s1", "failed", reason="no such data"),
        follower(tmp_path, "d\x1b[2J-s1", "queued"),
    ]  # fmt: skip
    lines = picture(runs, monkeypatch)
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    for shown in (
        "cifar100-trades+train-s1", "training", "34/100 eta 2:21:55", "evaluating", "best: natural 60.1 · pgd20 33.3",
        "loss 2.345 = robust 2.100 + topology 0.245 · val 58.1/33.2 · train 60.2/35.5", "no such data; put it there",
        "queued", "1/4 runs", "d\\x1b[2J-s1",
    ):  # fmt: skip
        assert shown in text, text


def test_many_runs_on_a_low_terminal_show_those_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [follower(tmp_path, f"q{n}-s1", "queued") for n in range(20)]
    runs.append(follower(tmp_path, "busy-s1", "running", stage="train"))
    lines = picture(runs, monkeypatch, height=14)
    assert len(lines) <= 14
    text = "\n".join(lines)
    assert "busy-s1" in text and "q0-s1" in text and "q19-s1" not in text and "… and 16 more" in text


def test_words() -> None:
    assert [words.duration(seconds) for seconds in (-1, 31.4, 725, 13200)] == ["0:00", "0:31", "12:05", "3:40:00"]
    assert words.losses({"loss_standard": 0.5}) == "loss 0.500" and words.losses({}) == ""
    assert words.losses({"loss": 1.0, "loss_robust": 1.0}) == "loss 1.000"
    with_term = {"loss": 1.5, "loss_robust": 1.0, "loss_ce": 1.0, "loss_rkd": 0.5}
    assert words.losses(with_term) == "loss 1.500 = robust 1.000 + rkd 0.500"
    assert words.training({"train_standard": 91.0}) == "train 91.0" and words.training({}) == ""
    assert words.selection({"test_natural": 90.0, "test_pgd20": 40.0}) == "test 90.0/40.0" and words.selection({}) == ""
    assert words.state("running", Progress(stage="pretrain")) == "pretraining M"


def test_the_end_is_drawn_though_it_is_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(width=80, height=30, force_terminal=True, no_color=True, file=io.StringIO())
    monkeypatch.setattr("trainctl.cli.live.console", lambda stderr: screen)
    view, run = LiveView(), follower(tmp_path, "a-s1", "running", epoch=1, epochs=1)
    view._terminal = False  # the tests' stderr is none
    view.show([run], [])
    run.status = "done"
    view.show([run], [])
    view.close()
    assert "1/1 runs" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_sees_the_run_end(tmp_path: Path) -> None:
    with tidy(Home(tmp_path / "home").create()) as home:
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(environment(home))
            os.execv(COMMAND[0], [*COMMAND, "run", "digits-trades", "--name", "quick"])
        shown = b""
        try:
            while data := os.read(terminal, 65536):
                shown += data
        except OSError:
            pass  # how Linux says that the other side has closed
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert b"1/1 runs" in shown and b"best: natural 95" in shown and b"warning: this is a fake" in shown
        assert re.search(
            rb"53\.25\s+\x1b\[2mnatural, pgd20: 360 images\x1b\[0m\s*$", shown
        )  # the table of results is last
        os.close(terminal)
