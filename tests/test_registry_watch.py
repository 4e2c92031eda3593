"""Whoever looks all the time sees what is new at once, and a look at nothing new costs next to nothing."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from folders import append, evaluation, make_run, training

from engine import events
from engine.rundir import RunDir, me, process, replace
from trainctl.errors import MachineError
from trainctl.home import Home
from trainctl.launch.follow import Follower
from trainctl.registry import events as event_files
from trainctl.registry import ingest, query, watch
from trainctl.registry.watch import Watch


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """No full refresh but the first, and no look whether processes are alive."""
    monkeypatch.setattr(watch, "PERIOD", 1000.0)


def epoch(number: int) -> list[tuple[str, dict[str, object]]]:
    return [("epoch", {"epoch": number, "epochs": 9, "step": 10 * number, "stage": "train", "loss": 0.5})]


def ids(home: Home) -> list[str]:
    return [row.id for row in query.runs(home)]


def test_the_first_look_takes_the_index_as_it_is(home: Home) -> None:
    make_run(home, "aaaa")
    assert Watch(home).look() == 1  # there is no index yet
    assert ids(home) == ["aaaa"]
    make_run(home, "bbbb", created=2000.0)
    watcher = Watch(home)
    assert watcher.look() == 1 and ids(home) == ["aaaa"]
    assert watcher.look() == 2 and ids(home) == ["aaaa", "bbbb"]
    assert watcher.look() == 2


def test_an_index_of_an_older_version_is_brought_up_at_once(home: Home) -> None:
    make_run(home, "aaaa")
    ingest.refresh(home)
    with closing(sqlite3.connect(home.index)) as connection:
        connection.execute("PRAGMA user_version = 3")
    assert Watch(home).look() == 1
    assert query.stamp(home) and ids(home) == ["aaaa"]


def test_an_empty_home_is_watched_too(home: Home) -> None:
    watcher = Watch(home)
    assert watcher.look() == 1 == watcher.look()
    make_run(home, "aaaa")
    watcher.wake()
    assert watcher.look() == 2 and ids(home) == ["aaaa"]


@pytest.mark.usefixtures("rarely")
def test_each_look_sees_what_changed(home: Home) -> None:
    live, ended = make_run(home, "live", status="running", epochs=9), make_run(home, "ended")
    watcher = Watch(home)
    watcher.look()
    append(live, epoch(9), 50.0)
    assert watcher.look() == 2 and query.runs(home, ["live"])[0].epoch == 9
    assert query.points(home, "live", "loss")[-1].step == 90

    folder = home.run("born")  # a run's folder is there before its run.json
    folder.path.mkdir()
    assert watcher.look() == 2
    shutil.copyfile(ended.recipe, folder.recipe)
    folder.write_json("run.json", {"id": "born", "created": 3000.0})
    assert watcher.look() == 3 and "born" in ids(home)
    folder.write_json("heartbeat.json", me())
    assert watcher.look() == 4 and query.runs(home, ["born"])[0].status == "running"
    append(folder, epoch(1), 60.0)
    assert watcher.look() == 5

    shutil.rmtree(folder.path)
    shutil.rmtree(ended.path)
    assert watcher.look() == 6 and ids(home) == ["live"]
    live.write_json("exit.json", {"status": "done"})
    assert watcher.look() == 7 and query.runs(home)[0].status == "done"
    live.write_json("labels.json", {"note": "seen by a full refresh"})  # of a run that ended
    assert watcher.look() == 7
    watcher.wake()
    assert watcher.look() == 8 == watcher.look()


@pytest.mark.usefixtures("rarely")
def test_what_another_process_reads_into_the_index_counts(home: Home) -> None:
    folder = make_run(home, "aaaa")
    watcher = Watch(home)
    watcher.look()
    folder.write_json("labels.json", {"tags": ["x"]})
    assert watcher.look() == 1
    ingest.refresh(home)
    assert watcher.look() == 2
    ingest.rebuild(home)
    assert watcher.look() == 3 == watcher.look()
    make_run(home, "bbbb")
    for path in home.path.glob("index.db*"):
        path.unlink()
    assert watcher.look() == 4 and ids(home) == ["aaaa", "bbbb"]


@pytest.mark.usefixtures("rarely")
def test_an_index_that_is_deleted_is_built_again_at_the_next_look(home: Home) -> None:
    make_run(home, "aaaa")
    watcher = Watch(home)
    watcher.look()
    for path in home.path.glob("index.db*"):
        path.unlink()
    assert watcher.look() == 2 and ids(home) == ["aaaa"]
    assert watcher.look() == 2


def test_everything_is_looked_at_now_and_then(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PERIOD", 0.05)
    monkeypatch.setattr(watch, "SHARE", 0)
    folder = make_run(home, "aaaa")
    watcher = Watch(home)
    watcher.look()
    folder.write_json("labels.json", {"tags": ["x"]})
    time.sleep(0.06)
    assert watcher.look() == 2 and query.runs(home)[0].tags == ("x",)


def test_a_process_that_dies_is_noticed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(home, "aaaa", status="running")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        folder.write_json("heartbeat.json", {**process(child.pid), "t": 5.0})
        watcher = Watch(home)
        watcher.look()
        watcher._full_due = float("inf")
        child.kill()
    monkeypatch.setattr(watch, "PERIOD", 0.0)
    watcher._alive_due = 0.0
    assert watcher.look() == 2 and query.runs(home)[0].status == "lost"


@pytest.mark.usefixtures("rarely")
def test_a_look_at_nothing_new_opens_no_run_and_writes_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "ended")
    make_run(home, "live", status="running")
    watcher = Watch(home)
    watcher.look()
    watcher.look()
    monkeypatch.setattr(ingest, "refresh", lambda *rest: pytest.fail("read again"))
    looked_at = []
    real = ingest._signature
    monkeypatch.setattr(ingest, "_signature", lambda folder, run: looked_at.append(run) or real(folder, run))
    assert watcher.look() == 1 and looked_at == ["live"]


@pytest.mark.usefixtures("rarely")
def test_a_writer_in_the_way_delays_and_loses_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "aaaa")
    gone = make_run(home, "bbbb")
    watcher = Watch(home)
    watcher.look()
    monkeypatch.setattr(ingest, "WAIT", 0.05)
    with ingest.schema.writing(home, 0):
        make_run(home, "cccc")
        shutil.rmtree(gone.path)
        assert watcher.look() == 1
    assert watcher.look() == 2 and ids(home) == ["aaaa", "cccc"]


def test_after_an_error_the_next_look_tries_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "aaaa")
    watcher = Watch(home)
    (home.path / "index.lock").mkdir()
    with pytest.raises(MachineError):
        watcher.look()
    (home.path / "index.lock").rmdir()
    assert watcher.look() == 1 and ids(home) == ["aaaa"]


@pytest.mark.usefixtures("rarely")
def test_threads_share_it(home: Home) -> None:
    folder = make_run(home, "live", status="running")
    watcher = Watch(home)
    versions: list[int] = []

    def looks() -> None:
        for _ in range(30):
            versions.append(watcher.look())

    threads = [threading.Thread(target=looks) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10, 20):
        append(folder, epoch(number), 50.0)
    for thread in threads:
        thread.join()
    assert len(versions) == 90
    watcher.look()
    assert query.points(home, "live", "loss")[-1].epoch == 19


# --- progress -----------------------------------------------------------------------------------------------


def same_progress(home: Home, folder: RunDir, follower: Follower) -> None:
    follower.poll()
    ingest.refresh(home)
    assert query.progress(home, [folder.id]) == {folder.id: follower.progress}


def test_the_index_knows_the_progress_as_a_follower_does(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "CHUNK", 300)  # a line or two
    make_run(home, "other")
    folder = make_run(home, "aaaa", status="running", epochs=9)
    start = ("start", {"epochs": 9, "steps_per_epoch": 10})
    pretrain = [(kind, {**fields, "stage": "pretrain"}) for kind, fields in training(3, 9, 1.0)]
    step = ("step", {"step": 34, "epoch": 4, "stage": "train", "loss": 0.7, "l_tp": "inf", "images_per_second": 12})
    log = [
        start,
        ("stage", {"stage": "pretrain"}),
        *pretrain,
        ("stage", {"stage": "train"}),
        *training(3, 9, 2.5),
        step,
    ]
    log += [
        ("stage", {"stage": "evaluate"}),
        *evaluation("last", {"natural": 91.0, "aa": float("nan")}, {}, 360, 9, ""),
    ]
    content = b"".join(events.encode(kind, 10.0 + t, fields) for t, (kind, fields) in enumerate(log))
    content = content.replace(b'"loss": 0.7', b'"loss": ' + b"9" * 400 + b', "odd": [1]')

    folder.events.write_bytes(b"")
    follower = Follower(folder)
    for end in (*range(0, len(content), 173), len(content)):  # torn lines
        with open(folder.events, "ab") as file:
            file.write(content[folder.events.stat().st_size : end])
        follower.poll()
        ingest.refresh(home)
        found = query.progress(home, ["aaaa"])["aaaa"]
        assert repr(found) == repr(follower.progress)  # NaN is not equal to itself
    assert (found.stage, found.step, found.steps_per_epoch, found.epochs) == ("evaluate", 0, 10, 9)
    assert found.latest["l_tp"] == float("inf") and "odd" not in found.latest
    assert set(query.progress(home, ["aaaa", "other", "nobody"])) == {"aaaa", "other"}

    lines = content.splitlines(keepends=True)
    for kept in (13, 20, 1):  # resumed: the file is replaced by a shorter one, and grows again
        replace(folder.events, b"".join(lines[:kept]))
        same_progress(home, folder, follower)
        append(folder, epoch(kept), 90.0)
        same_progress(home, folder, follower)
        assert follower.progress.epoch == kept
    folder.events.unlink()
    ingest.refresh(home)
    assert query.progress(home, ["aaaa"])["aaaa"].t == 0.0
