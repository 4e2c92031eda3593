"""What people do to runs: labels, beginning anew, acts on many at once, and the dialogs that ask before."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard import Watched, screen_text, told, until
from fake_trainctl import ENGINE, queue, starts, tidy
from fake_trainctl import until as wait
from folders import make_run
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from engine.rundir import RunDir
from trainctl.errors import MachineError, UsageError
from trainctl.home import Home
from trainctl.launch import again, folders, frozen, processes, scheduler
from trainctl.registry import ingest, labels, query
from trainctl.tui.feed import acts as feed
from trainctl.tui.screens import acts
from trainctl.tui.screens.confirm import ConfirmScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.screens.prompt import PromptScreen
from trainctl.tui.text import file_size

ROOT = Path(__file__).parent.parent


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """For runs that are only files; one of them at work is this very process."""
    return Home(tmp_path / "home").create()


@pytest.fixture
def tidied(home: Home) -> Iterator[Home]:
    """The same where engines are started: whatever is left at work is stopped."""
    with tidy(home) as place:
        yield place


# --- labels -------------------------------------------------------------------------------------------------


def test_labels_are_changed_one_by_one(home: Home) -> None:
    run = make_run(home, "aaaa", tags=["old", "first"])
    assert labels.read(run) == labels.Labels(("old", "first"), "", False)
    assert labels.change(run, add=["new", "first"], remove=["old"]).tags == ("new", "first")
    assert labels.change(run, archived=True) == labels.Labels(("new", "first"), "", True)
    run.write_json("labels.json", {**run.json("labels.json"), "colour": "red"})
    assert labels.change(run, note="why") == labels.read(run) == labels.Labels(("new", "first"), "why", True)
    assert labels.change(run, note="", archived=False) == labels.Labels(("new", "first"), "", False)
    assert run.json("labels.json")["colour"] == "red"  # written by whoever knows more
    run.write_json("labels.json", {"tags": "no list", "note": 3, "archived": "yes"})
    assert labels.read(run) == labels.Labels((), "", False)


def test_labels_that_cannot_be_are_refused(home: Home) -> None:
    run = make_run(home, "aaaa")
    for wrong in ("two words", "a,b", "", "x" * 61, "\x1b"):
        with pytest.raises(UsageError, match="cannot be a tag"):
            labels.change(run, add=[wrong])
    with pytest.raises(UsageError, match="more than 10000"):
        labels.change(run, note="x" * 10_001)
    assert not (run.path / "labels.json").exists()
    with pytest.raises(UsageError, match="run gone has gone"):
        labels.change(home.run("gone"), note="x")


def test_two_processes_lose_none_of_their_tags(home: Home) -> None:
    run = make_run(home, "aaaa")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; from engine.rundir import RunDir\n"
        "from trainctl.registry import labels\n"
        f"for n in range(40): labels.change(RunDir(Path({str(run.path)!r})), add=[sys.argv[1] + str(n)])\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert sorted(labels.read(run).tags) == sorted(name + str(n) for name in "abc" for n in range(40))


# --- beginning anew -----------------------------------------------------------------------------------------


def ended(home: Home, run_id: str = "aaaa", status: str = "done") -> RunDir:
    """An ended run with all that an engine leaves behind."""
    run = make_run(home, run_id, status=status)
    run.log.write_text("what it printed\n")
    for path in ("checkpoints/last.safetensors", "checkpoints/best.safetensors", "eval/best-pgd20.csv"):
        (run.path / path).parent.mkdir(exist_ok=True)
        (run.path / path).write_text(path)
    (run.path / "eval" / "best-pgd20.json").write_text("{}")
    (run.path / "eval" / "best-tsne.json").write_text("{}")
    run.attempts.write_text("{}\n")
    run.write_json("heartbeat.json", {"pid": 1, "start_time": 1.0, "host": "elsewhere"})
    labels.change(run, note="mine")
    return run


STAYS = ("recipe.toml", "attempts.jsonl", "labels.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_put_away(run: RunDir, before: dict[str, bytes]) -> None:
    """It is queued, has nothing to go on from, and nothing of it was lost."""
    assert run.status() == "queued"
    stays = {name: before[name] for name in STAYS}
    kept = {name: data for name, data in before.items() if name not in (*STAYS, "run.json")}
    now = {name: data for name, data in contents(run.path).items() if not name.endswith(".tmp")}
    about = json.loads(now.pop("run.json"))
    assert frozen.find(Home(run.path.parents[1]), about.pop("code")).is_dir()  # it begins anew with today's code
    assert about == json.loads(before["run.json"])
    assert now == {**stays, "stdout.log": b"", **{f"attempts/001/{name}": data for name, data in kept.items()}}


@pytest.mark.parametrize("status", ["done", "failed", "lost"])
def test_a_retry_keeps_what_was_there(home: Home, status: str) -> None:
    run = ended(home, status=status)
    if status == "lost":
        run.write_json("heartbeat.json", {**run.json("launch.json"), "start_time": 1.0, "ticks": 1})
    assert run.status() == status
    before = contents(run.path)
    folders.retry(run)
    check_put_away(run, before)
    with pytest.raises(UsageError, match="aaaa is queued"):
        folders.retry(run)


def test_attempts_are_counted_with_those_that_were_resumed(home: Home) -> None:
    run = make_run(home, "aaaa", status="failed")
    folders.requeue(run)
    processes.record_end(run, "failed", reason="once more")
    folders.retry(run)
    processes.record_end(run, "failed", reason="and again")
    folders.retry(run)
    assert sorted(path.name for path in (run.path / "attempts").iterdir()) == ["001-exit.json", "002", "003"]
    assert (run.path / "attempts" / "002" / "events.jsonl").exists()
    assert not (run.path / "attempts" / "003" / "events.jsonl").exists()


def test_a_retry_spares_who_is_at_work(home: Home) -> None:
    run = ended(home)
    before = contents(run.path)
    with processes.claim(run):  # it is being evaluated again, so its status is done
        for patience in (0.0, 0.1):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(folders, "PATIENCE", patience)
                with pytest.raises(processes.Busy):
                    folders.retry(run)
    assert contents(run.path) == before
    with pytest.raises(UsageError, match="is running"):
        folders.retry(make_run(home, "bbbb", status="running"))


KILLED_BEFORE_A_STEP = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine.rundir import RunDir
from trainctl.launch import folders
left = int(sys.argv[3])
def dying(real):
    def step(*given, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*given, **named)
    return step
for name in ("rename", "replace", "unlink", "mkdir"):
    setattr(Path, name, dying(getattr(Path, name)))
os.truncate, shutil.copyfile = dying(os.truncate), dying(shutil.copyfile)
folders.retry(RunDir(Path(sys.argv[2])))
"""


def test_a_retry_that_is_killed_at_any_step_is_completed_and_loses_nothing(home: Home) -> None:
    frozen.freeze(home)  # else each of them would be killed in that; tests/test_frozen.py does it
    for step in range(40):
        run = ended(home, f"r{step:02d}")
        before = contents(run.path)
        command = [sys.executable, "-c", KILLED_BEFORE_A_STEP, str(ROOT), str(run.path), str(step)]
        if subprocess.run(command, check=False, timeout=300).returncode == 0:
            break
        now = contents(run.path)
        kept = {name.removeprefix("attempts/001/"): data for name, data in now.items()} | now
        replaced = ("exit.json", "stdout.log", "run.json")
        assert all(kept.get(name) == data for name, data in before.items() if name not in replaced)
        assert before["stdout.log"] in (now["stdout.log"], now.get("attempts/001/stdout.log"))
        if run.status() == "done":
            assert step == 0 or {name: now[name] for name in before} == before  # not touched yet
            folders.retry(run)
        else:
            assert run.status() == "killed"
            assert run.json("exit.json")["before"].encode() == before["exit.json"]
            assert "trainctl retry" in run.json("exit.json")["reason"]
            (folders.requeue if step % 2 else folders.retry)(run)
        check_put_away(run, before)
    assert step > 12
    check_put_away(run, before)


def test_a_full_disk_is_told_and_leaves_what_can_be_completed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ended(home)
    before = contents(run.path)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folders.shutil, "copyfile", full)
        with pytest.raises(MachineError, match="No space left") as caught:
            folders.retry(run)
    assert "nothing is lost" in caught.value.hint
    assert run.status() == "killed"
    folders.retry(run)
    check_put_away(run, before)


def test_a_retried_run_begins_at_epoch_0(home: Home, tidied: Home) -> None:
    [run] = queue(home, "sleep")
    child = processes.start(run, engine=ENGINE)
    assert child is not None
    wait(run.checkpoint("last").exists)
    processes.stop([run], grace=10)
    child.wait()
    ingest.refresh(home)
    assert query.runs(home)[0].epoch > 0
    folders.retry(run)
    ingest.refresh(home)
    assert (query.runs(home)[0].epoch, query.runs(home)[0].status) == (0, "queued")
    again = processes.start(run, engine=ENGINE)
    assert again is not None
    wait(run.checkpoint("last").exists)
    processes.stop([run], grace=10)
    again.wait()
    assert len(starts(run)) == 2
    assert (run.path / "attempts" / "001" / "checkpoints" / "last.safetensors").exists()


# --- acts on several runs -----------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Home]:
    """Homes whose scheduler was called; none is started."""
    called: list[Home] = []
    monkeypatch.setattr(scheduler, "ensure", called.append)
    return called


def test_acts_go_on_after_one_that_refuses(home: Home, served: list[Home]) -> None:
    for run in ("base1", "base2"):
        make_run(home, run)
    for run in ("f1", "f2"):
        make_run(home, run, status="failed")
    make_run(home, "waiting", status="queued")
    assert feed.stop(home, ["base1", "waiting"]) == "waiting was cancelled; base1 has ended already: done"
    due = make_run(home, "due", status="preempted", recipe_table={"run": {"retries": 1}})
    assert feed.stop(home, ["due"]) == "due was kept from a retry" and not again.due(due)
    assert home.run("waiting").status() == "killed"
    assert feed.resume(home, ["f1", "base1", "f2"]) == "2 queued again; base1 is done"
    assert served == [home]
    assert feed.retry(home, ["base1", "f1"]) == "base1 was queued from epoch 0; f1 is queued"
    assert feed.tag(home, ["f1", "f2", "nobody"], ["a", "b"], ["c"]) == "2 tagged a b -c; nobody has gone"
    assert labels.read(home.run("f2")).tags == ("a", "b")
    assert feed.note(home, ["f1"], "why") == "f1 was given the note"
    assert feed.note(home, ["f1"], "") == "f1 was left without a note"
    assert feed.archive(home, ["f1", "f2"]) == "2 archived"
    assert feed.archive(home, ["f1"], undo=True) == "f1 was brought back"
    assert labels.read(home.run("f2")).archived and not labels.read(home.run("f1")).archived


def test_an_act_that_nobody_lets_happen_is_an_error(home: Home, served: list[Home]) -> None:
    for number in range(5):
        make_run(home, f"base{number}")
    with pytest.raises(UsageError, match="run base0 is done"):
        feed.resume(home, ["base0"])
    with pytest.raises(UsageError) as caught:
        feed.stop(home, [f"base{number}" for number in range(5)])
    ended = "; ".join(f"base{number} has ended already: done" for number in range(3))
    assert str(caught.value) == f"{ended}; and 2 more"
    with pytest.raises(UsageError, match="base0 has ended already"):
        feed.kill(home, ["base0"])
    assert served == []


def test_only_who_was_asked_to_stop_is_killed(home: Home, tidied: Home) -> None:
    [run, waits] = queue(home, "deaf", "quick")
    child = processes.start(run, engine=ENGINE)
    assert child is not None
    wait(run.checkpoint("last").exists)
    with pytest.raises(UsageError, match="is running"):
        feed.kill(home, [run.id])
    assert feed.stop(home, [run.id, waits.id]) == f"{waits.id} was cancelled; {run.id} was asked to stop"
    with pytest.raises(UsageError, match="is stopping already"):
        feed.stop(home, [run.id])
    assert feed.kill(home, [run.id]) == f"{run.id} was killed"
    assert child.wait() == -signal.SIGKILL and run.status() == "killed"


def test_what_deleting_would_lose(home: Home) -> None:
    make_run(home, "atwork", status="running")
    run = ended(home)
    run.log.write_bytes(b"x" * 100_000)
    (run.path / "elsewhere").symlink_to("/usr")  # what a link leads to stays
    ingest.refresh(home)
    lost = feed.loss(home, ["aaaa", "atwork"])
    assert (lost.runs, lost.at_work, lost.epochs, lost.checkpoints, lost.evaluations) == (2, 1, 3 + 2, 2, 1)
    assert 100_000 <= lost.size < 300_000 and lost.exact
    hurried = feed.loss(home, ["aaaa", "atwork"], patience=-1)
    assert (hurried.exact, hurried.runs, hurried.epochs, hurried.size) == (False, 2, 5, 0)
    assert feed.delete(home, ["aaaa", "atwork"]) == "aaaa was deleted; atwork is at work"
    assert [left.id for left in home.run_dirs()] == ["atwork"]


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (1.5e9, "1.5 GB"), (2e15, "2e+03 TB")]
)
def test_sizes_are_told_in_words(size: float, shown: str) -> None:
    assert file_size(size) == shown


# --- dialogs ------------------------------------------------------------------------------------------------


class Acting(LiveScreen):
    """A screen that has nothing but the acts."""

    def compose(self) -> ComposeResult:
        yield Static("acts")

    def question(self) -> Callable[[], Any]:
        return lambda: None

    def show(self, answer: Any) -> None:
        """Nothing."""


class App(Watched):
    def get_default_screen(self) -> Screen[None]:
        return Acting()


def rows(home: Home, *ids: str) -> list[query.RunRow]:
    ingest.refresh(home)
    return query.runs(home, ids)


async def test_stopping_asks_and_enter_means_no(home: Home, tidied: Home) -> None:
    [run, waits] = queue(home, "sleep", "quick")
    child = processes.start(run, engine=ENGINE)
    assert child is not None
    wait(run.checkpoint("last").exists)
    make_run(home, "base1", name="[b]base[/b]")
    app = App(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Acting))
        here = app.screen
        assert isinstance(here, LiveScreen)
        acts.ask_to_stop(here, home, rows(home, "base1"))
        await until(pilot, lambda: "[b]base[/b] has ended already: done" in told(pilot))
        acts.ask_to_stop(here, home, rows(home, "base1", run.id, waits.id))
        await until(pilot, lambda: "Stop 2 runs (sleep-s1, quick-s1)?" in screen_text(pilot))
        assert "1 of them has not started yet and will be cancelled" in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is here)
        assert (run.status(), waits.status()) == ("running", "queued")
        acts.ask_to_stop(here, home, rows(home, waits.id))
        await until(pilot, lambda: "Cancel quick-s1?" in screen_text(pilot))
        await pilot.press("escape")
        acts.ask_to_stop(here, home, rows(home, run.id, waits.id))
        await pilot.press("y")
        await until(pilot, lambda: f"{waits.id} was cancelled; {run.id} was asked to stop" in told(pilot))
    assert child.wait() == 143 and run.json("exit.json")["signal"] == "SIGTERM"


async def test_who_does_not_stop_is_killed_when_asked_again(home: Home, tidied: Home) -> None:
    [run] = queue(home, "deaf")
    child = processes.start(run, engine=ENGINE)
    assert child is not None
    wait(run.checkpoint("last").exists)
    processes.request_stop(run)
    app = App(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Acting))
        acts.ask_to_stop(app.screen, home, rows(home, run.id))  # type: ignore[arg-type]
        await until(pilot, lambda: "Kill deaf-s1 at once?" in screen_text(pilot))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: f"{run.id} was killed" in told(pilot))
    assert child.wait() == -signal.SIGKILL


async def test_resume_and_retry_from_the_dashboard(home: Home, served: list[Home]) -> None:
    run, failed = ended(home), make_run(home, "broken", status="failed")
    make_run(home, "waiting", status="queued")
    app = App(home)
    woken: list[bool] = []
    app.watcher.wake = lambda: woken.append(True)  # type: ignore[method-assign,attr-defined]
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Acting))
        here: Any = app.screen
        acts.resume(here, home, rows(home, "broken", "aaaa"))
        await until(pilot, lambda: "broken was queued again; aaaa is done" in told(pilot))
        assert served == [home] and woken == [True] and failed.status() == "queued"
        acts.resume(here, home, rows(home, "aaaa"))
        await until(pilot, lambda: "run aaaa is done\n`trainctl retry aaaa`" in told(pilot))
        acts.retry(here, home, rows(home, "waiting"))
        await until(pilot, lambda: "only what has ended can be retried" in told(pilot))
        acts.retry(here, home, rows(home, "aaaa", "waiting"))
        await until(pilot, lambda: "Train digits-trades-s0 anew from epoch 0?" in screen_text(pilot))
        assert "It is done." in screen_text(pilot)
        await pilot.press("y")
        await until(pilot, lambda: "aaaa was queued from epoch 0" in told(pilot))
        assert run.status() == "queued" and (run.path / "attempts" / "001" / "exit.json").exists()
        acts.resume(here, home, [])
        await until(pilot, lambda: "no run under the cursor" in told(pilot))


async def test_tags_are_checked_as_one_types(home: Home) -> None:
    make_run(home, "aaaa", tags=["[red]x", "old"])
    make_run(home, "bbbb", seed=1)
    app = App(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Acting))
        here: Any = app.screen
        acts.ask_tags(here, home, rows(home, "aaaa", "bbbb"))
        await until(pilot, lambda: "Tags of 2 runs" in screen_text(pilot) and "now: [red]x old" in screen_text(pilot))
        await pilot.press(*"a,b")
        await until(pilot, lambda: "'a,b' cannot be a tag" in screen_text(pilot))
        await pilot.press("enter")
        assert isinstance(app.screen, PromptScreen)
        await pilot.press("ctrl+u", *"lr-test -old", "enter")
        await until(pilot, lambda: "2 tagged lr-test -old" in told(pilot))
        assert labels.read(home.run("aaaa")).tags == ("[red]x", "lr-test")
        acts.ask_tags(here, home, rows(home, "aaaa"))
        await pilot.press("x", "escape")
        await until(pilot, lambda: app.screen is here)
        acts.ask_tags(here, home, rows(home, "aaaa"))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is here)
        assert labels.read(home.run("aaaa")).tags == ("[red]x", "lr-test")


async def test_a_note_is_written_only_when_it_was_changed(home: Home) -> None:
    run = make_run(home, "aaaa")
    labels.change(run, note="two\nlines [b]\x1b[31m")
    make_run(home, "bbbb", seed=1)
    app = App(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Acting))
        here: Any = app.screen
        acts.ask_note(here, home, rows(home, "aaaa"))
        await until(pilot, lambda: "two ⏎ lines [b]\\x1b[31m" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is here)
        assert labels.read(run).note == "two\nlines [b]\x1b[31m"
        labels.change(run, note="old")
        acts.ask_note(here, home, rows(home, "aaaa"))
        await until(pilot, lambda: "old" in screen_text(pilot))
        await pilot.press(*"+new", "enter")  # behind what stands there
        await until(pilot, lambda: labels.read(run).note == "old+new")
        acts.ask_note(here, home, rows(home, "aaaa", "bbbb"))
        await until(pilot, lambda: "different notes" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is here)
        acts.ask_note(here, home, rows(home, "aaaa", "bbbb"))
        await until(pilot, lambda: isinstance(app.screen, PromptScreen))
        await pilot.press(*"same", "enter")
        await until(pilot, lambda: "2 given the note" in told(pilot))
        assert labels.read(run).note == "same"
        acts.ask_note(here, home, rows(home, "aaaa"))
        await until(pilot, lambda: isinstance(app.screen, PromptScreen))
        await pilot.press("ctrl+u", "enter")
        await until(pilot, lambda: "aaaa was left without a note" in told(pilot))
        acts.archive(here, home, rows(home, "aaaa", "bbbb"))
        await until(pilot, lambda: "2 archived" in told(pilot))
        acts.archive(here, home, rows(home, "aaaa"))
        await until(pilot, lambda: "aaaa was brought back" in told(pilot))


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_deleting_says_what_is_lost_and_enter_means_no(home: Home, size: tuple[int, int]) -> None:
    run = ended(home)
    make_run(home, "bbbb", seed=1, status="failed")
    app = App(home)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Acting))
        here: Any = app.screen
        acts.ask_to_delete(here, home, rows(home, "aaaa", "bbbb"))
        await until(pilot, lambda: "There is no way back" in screen_text(pilot))
        said = " ".join(screen_text(pilot).replace("│", " ").split())
        lost = "Delete 2 runs (digits-trades-s0, digits-trades-s1)? There is no way back. "
        lost += "This is lost: 5 epochs 2 checkpoints 1 evaluation "
        assert re.search(re.escape(lost) + r"\d+(\.\d+)? kB on disk", said)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is here)
        assert run.path.exists()
        acts.ask_to_delete(here, home, rows(home, "aaaa"))
        await until(pilot, lambda: "There is no way back" in screen_text(pilot))
        assert "Delete digits-trades-s0 (aaaa)?" in screen_text(pilot)
        await pilot.press("y")
        await until(pilot, lambda: "aaaa was deleted" in told(pilot))
    assert not run.path.exists() and home.run("bbbb").path.exists()


async def test_there_is_no_yes_before_the_loss_is_known(home: Home) -> None:
    app = App(home)
    answers: list[bool | None] = []
    known: list[str] = []

    def warning() -> str:
        wait(lambda: known)
        return known[0]

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Acting))
        app.push_screen(ConfirmScreen("Delete [b]it[/b]?", warning), answers.append)
        await until(pilot, lambda: "Delete [b]it[/b]?" in screen_text(pilot))
        await pilot.press("y")
        assert isinstance(app.screen, ConfirmScreen) and answers == []
        known.append("all [i]gone[/i]")
        await until(pilot, lambda: "all [i]gone[/i]" in screen_text(pilot))
        await pilot.press("y")
        await until(pilot, lambda: answers == [True])

        def broken() -> str:
            raise OSError(5, "Input/output error")

        app.push_screen(ConfirmScreen("Delete?", broken), answers.append)
        await until(pilot, lambda: "Input/output error" in screen_text(pilot))
        await pilot.press("y", "n")
        await until(pilot, lambda: answers == [True, False])


async def test_a_long_name_leaves_room_for_the_buttons(home: Home) -> None:
    long = make_run(home, "aaaa", name="n" * 200)
    app = App(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, Acting))
        here: Any = app.screen
        acts.ask_to_delete(here, home, rows(home, long.id))
        await until(pilot, lambda: "No (n)" in screen_text(pilot) and "Yes (y)" in screen_text(pilot))
