"""The index follows the run folders: incrementally, whole again after any damage, and never from half a file."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from folders import THREATS, append, evaluation, make_run, training

from engine import events
from engine.rundir import me, process, replace
from trainctl.errors import MachineError
from trainctl.home import Home
from trainctl.registry import events as event_files
from trainctl.registry import ingest, query, schema


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def listed(home: Home) -> str:
    """What `ls --json` prints."""
    ingest.refresh(home)
    return json.dumps([row.json() for row in query.runs(home)])


def row(home: Home, run: str = "aaaa") -> query.RunRow:
    ingest.refresh(home)
    return query.runs(home, [run])[0]


def test_a_finished_run_is_read_whole(home: Home) -> None:
    make_run(home, "aaaa", topology=True, seed=3, metrics={"pgd20": 53.0, "natural": 95.0}, tags=["x"], created=10.0)
    found = row(home).json()
    assert found == {
        "id": "aaaa", "name": "digits-trades+train-s3", "recipe": "digits-trades", "method": "trades", "topology": True,
        "dataset": "digits", "model": "small-cnn", "seed": 3, "group": "digits-trades+train-00000000",
        "pair": "digits-trades-00000000", "status": "done", "epoch": 3, "epochs": 3, "created": 10.0, "started": 11.0,
        "finished": 70.0, "metrics": {"natural": 95.0, "pgd20": 53.0}, "tags": ["x"], "note": "", "title": "",
        "our_reading": "",
        "device": "cpu", "seconds_per_epoch": 2.0,
        "threats": {
            "natural": {
                "norm": "none", "eps": 0.0, "step_size": 0.0, "steps": 0, "start": "none", "n": 360, "of": 360,
                "protocol": "lbgat", "implementation": "engine.evaluate", "version": "1", "checkpoint": "best",
            },
            "pgd20": {
                "norm": "linf", "eps": 0.25, "step_size": 0.025, "steps": 20, "start": "uniform", "n": 360, "of": 360,
                "protocol": "lbgat", "implementation": "engine.attacks.pgd", "version": "1", "checkpoint": "best",
            },
        },
        "archived": False,
    }  # fmt: skip
    assert [point.value for point in query.points(home, "aaaa", "validation_natural")] == [83.0, 84.0, 85.0]
    assert [point.step for point in query.points(home, "aaaa", "loss", "step")] == [5, 10, 15, 20, 25, 30]
    assert query.metrics(home, "aaaa")["epoch"] == ["loss", "seconds", "train_natural", "validation_natural"]
    assert [(e.checkpoint, e.metric, e.value, e.n) for e in query.evals(home, "aaaa")] == [
        ("best", "natural", 95.0, 360), ("best", "pgd20", 53.0, 360),
        ("last", "natural", 95.0, 360), ("last", "pgd20", 53.0, 360),
    ]  # fmt: skip
    assert query.evals(home, "aaaa")[1].settings["eps"] == 0.25


def test_runs_are_ordered_by_creation_then_id(home: Home) -> None:
    assert query.count(home) == 0
    for run, created in (("cccc", 5.0), ("bbbb", 9.0), ("aaaa", 9.0)):
        make_run(home, run, created=created)
    ingest.refresh(home)
    assert [found.id for found in query.runs(home)] == ["cccc", "aaaa", "bbbb"]
    assert [found.id for found in query.runs(home, newest=2)] == ["aaaa", "bbbb"]
    assert [found.id for found in query.runs(home, ["bbbb", "cccc"])] == ["cccc", "bbbb"]
    assert query.count(home) == 3


def test_reading_in_pieces_gives_the_same_as_reading_at_once(home: Home, tmp_path: Path) -> None:
    folder = make_run(home, "aaaa")
    content = folder.events.read_bytes()
    folder.events.write_bytes(b"")
    for end in (*range(0, len(content), 97), len(content)):  # also in the middle of lines
        with open(folder.events, "ab") as file:
            file.write(content[folder.events.stat().st_size : end])
        ingest.refresh(home)
    in_pieces, points = listed(home), query.points(home, "aaaa", "loss", "step")
    ingest.rebuild(home)
    assert (listed(home), query.points(home, "aaaa", "loss", "step")) == (in_pieces, points)
    assert len(points) == 6


def test_new_bytes_alone_are_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(home, "aaaa")
    ingest.refresh(home)
    sizes = []
    real = events.read
    monkeypatch.setattr(event_files.events, "read", lambda data: sizes.append(len(data)) or real(data))
    before = folder.events.stat().st_size
    append(folder, [("epoch", {"epoch": 4, "step": 40, "stage": "train", "loss": 0.1})], 99.0)
    assert row(home).epoch == 4
    assert sizes == [folder.events.stat().st_size - before]


def test_a_torn_last_line_waits_for_its_rest(home: Home) -> None:
    folder = make_run(home, "aaaa", status="running")
    line = events.encode("epoch", 5.0, {"epoch": 3, "step": 30, "stage": "train", "loss": 0.5})
    with open(folder.events, "ab") as file:
        file.write(line[:20])
    assert row(home).epoch == 2
    with open(folder.events, "ab") as file:
        file.write(line[20:])
    assert row(home).epoch == 3


@pytest.mark.parametrize("same_inode", [True, False])
def test_a_log_cut_back_by_a_resume_is_read_again(home: Home, same_inode: bool) -> None:
    folder = make_run(home, "aaaa", status="killed", epochs=9)
    assert row(home).epoch == 8
    lines = folder.events.read_bytes().splitlines(keepends=True)
    shorter = b"".join(lines[: 1 + 3 * 4])  # start and four epochs
    if same_inode:
        folder.events.write_bytes(shorter)
    else:
        replace(folder.events, shorter)
    assert row(home).epoch == 4
    assert [point.epoch for point in query.points(home, "aaaa", "loss")] == [1, 2, 3, 4]


def test_a_log_cut_back_and_grown_beyond_its_old_end_is_read_again(home: Home) -> None:
    folder = make_run(home, "aaaa", status="killed", epochs=4)
    ingest.refresh(home)
    old = folder.events.read_bytes()
    with open(folder.events, "r+b") as file:  # the same inode, as an inode number may be used again
        file.truncate(len(old.splitlines(keepends=True)[0]))
    append(folder, training(3, 9, 2.0)[:3] + training(9, 9, 7.0)[3:], 5000.0)
    assert folder.events.stat().st_size > len(old)
    found = row(home)
    assert (found.epoch, found.seconds_per_epoch) == (9, 7.0)
    assert query.points(home, "aaaa", "loss", "step")[0].t == 5000.0


def test_a_missing_log_forgets_its_points(home: Home) -> None:
    folder = make_run(home, "aaaa")
    ingest.refresh(home)
    folder.events.unlink()
    found = row(home)
    assert (found.epoch, found.started, found.metrics) == (0, None, {})
    assert query.evals(home, "aaaa") == []


def test_a_folder_that_vanished_is_forgotten(home: Home) -> None:
    make_run(home, "aaaa")
    folder = make_run(home, "bbbb")
    ingest.refresh(home)
    shutil.rmtree(folder.path)
    ingest.refresh(home, ["aaaa"])  # asked about another run
    assert len(query.runs(home)) == 2
    ingest.refresh(home)
    assert [found.id for found in query.runs(home)] == ["aaaa"]
    assert query.points(home, "bbbb", "loss") == []
    shutil.rmtree(home.runs)
    ingest.refresh(home)
    assert query.runs(home) == []


def test_status_follows_the_processes(home: Home) -> None:
    for status in ("queued", "running", "lost", "done", "failed", "killed", "diverged"):
        make_run(home, f"run-{status}", status=status)
    ingest.refresh(home)
    assert all(found.id == f"run-{found.status}" for found in query.runs(home))
    folder = home.run("run-running")
    assert row(home, "run-running").finished is None
    folder.write_json("launch.json", {**me(), "t": 1.0, "stop_requested": 5.0})
    assert row(home, "run-running").status == "stopping"
    folder.write_json("exit.json", {"status": "killed", "code": 143, "t": 77.0})
    assert (row(home, "run-running").status, row(home, "run-running").finished) == ("killed", 77.0)
    assert row(home, "run-lost").finished == 1002.0  # its last heartbeat


def test_a_process_that_dies_is_noticed_without_any_file_changing(home: Home) -> None:
    folder = make_run(home, "aaaa", status="running")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        folder.write_json("heartbeat.json", {**process(child.pid), "t": 5.0})
        assert row(home).status == "running"
        child.kill()
    assert row(home).status == "lost"


def test_an_ended_and_unchanged_run_is_not_opened_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "aaaa")
    make_run(home, "bbbb", status="lost")
    ingest.refresh(home)
    monkeypatch.setattr(ingest, "_update", lambda *rest: pytest.fail("read again"))
    monkeypatch.setattr(ingest, "status_of", lambda *rest: pytest.fail("status derived again"))
    ingest.refresh(home)


def test_metrics_are_best_else_last_else_the_last_epoch(home: Home) -> None:
    folder = make_run(home, "aaaa", status="running")
    assert row(home).metrics == {"loss": 1.0, "train_natural": 82.0, "validation_natural": 84.0, "seconds": 2.0}
    append(folder, evaluation("last", {"natural": 91.0, "pgd20": 50.0}, {}, 360, 3, "last epoch"), 50.0)
    assert row(home).metrics == {"natural": 91.0, "pgd20": 50.0}
    append(folder, evaluation("best", {"natural": 92.0}, {}, 360, 2, "best pgd10"), 60.0)
    assert row(home).metrics == {"natural": 92.0}
    append(folder, evaluation("best", {"natural": 93.0}, {}, 100, 2, "best pgd10"), 70.0)  # evaluated again
    assert [e.n for e in query.evals(home, "aaaa") if e.checkpoint == "best"] == [360]
    assert row(home).metrics == {"natural": 93.0}


def test_epochs_of_m_alone_are_kept_apart(home: Home) -> None:
    folder = make_run(home, "aaaa", status="running", epochs=2)
    append(folder, [("epoch", {"epoch": 9, "step": 10, "stage": "pretrain", "loss": 7.0, "seconds": 50.0})], 1.0)
    found = row(home)
    assert (found.epoch, found.seconds_per_epoch, found.metrics["loss"]) == (1, 2.0, 2.0)
    assert [point.value for point in query.points(home, "aaaa", "loss", "pretrain-epoch")] == [7.0]
    assert [point.value for point in query.points(home, "aaaa", "loss")] == [2.0]


def test_labels_and_renames_show_up(home: Home) -> None:
    folder = make_run(home, "aaaa", tags=["old"])
    assert row(home).tags == ("old",)
    assert not row(home).archived
    folder.write_json("labels.json", {"tags": ["new", 3, "b"], "note": "lr too\nhigh \x1b[2J", "archived": True})
    assert row(home).archived
    assert (row(home).tags, row(home).note) == (("new", "b"), "lr too\nhigh \ufffd[2J")


def test_reindex_gives_the_same_bytes(home: Home) -> None:
    statuses = ("done", "queued", "lost", "failed", "done", "diverged")
    for index, status in enumerate(statuses):
        metrics = {"natural": 100 / 3 + index, "pgd20": 0.1 * index, "l_tp": float("nan")}
        folder = make_run(home, f"run{index}", status=status, seed=index, metrics=metrics, created=100.1 - index)
        if index % 2:
            folder.write_json("labels.json", {"tags": [f"t{index}"], "note": "ü"})
    before = listed(home)
    assert ingest.rebuild(home) == len(statuses)
    assert listed(home) == before
    home.index.unlink()
    assert listed(home) == before
    assert "NaN" not in before


@pytest.mark.parametrize("content", [b"", b"no database at all, and long enough to look like one" * 99])
def test_a_damaged_index_is_set_aside_and_built_again(home: Home, content: bytes) -> None:
    make_run(home, "aaaa")
    before = listed(home)
    home.index.write_bytes(content)
    assert listed(home) == before
    assert len(list(home.path.glob("index.db.damaged-*"))) == bool(content)


def test_an_index_with_a_torn_page_is_built_again(home: Home) -> None:
    for index in range(20):
        make_run(home, f"run{index:02d}", created=float(index))
    before = listed(home)
    with closing(sqlite3.connect(home.index)) as connection:
        root, size = connection.execute(
            "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'runs'"
        ).fetchone()
    with open(home.index, "r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    assert json.dumps([found.json() for found in query.runs(home)]) == before  # found by a reader
    assert len(list(home.path.glob("index.db.damaged-*"))) == 1


@pytest.mark.parametrize(
    "change", ["PRAGMA user_version = 99", "DROP TABLE cursors", "ALTER TABLE runs DROP COLUMN note"]
)
def test_an_index_of_an_unknown_form_is_built_again(home: Home, change: str) -> None:
    make_run(home, "aaaa")
    before = listed(home)
    with closing(sqlite3.connect(home.index)) as connection:
        connection.execute(change)
    assert listed(home) == before
    assert len(list(home.path.glob("index.db.damaged-*"))) == 1


def test_an_index_of_the_first_version_learns_the_threat_models(home: Home) -> None:
    make_run(home, "aaaa")
    make_run(home, "gone")
    before = listed(home)
    assert '"eps": 0.25' in before
    with closing(sqlite3.connect(home.index)) as connection:
        connection.execute("DROP INDEX idx_runs_archived_created_id")
        connection.execute("DROP INDEX idx_runs_archived_status_id")
        connection.execute("ALTER TABLE cursors RENAME COLUMN status TO final")
        for column, migration in (("threats", "threats"), ("our_reading", "readings"), ("archived", "archive")):
            connection.execute(f"ALTER TABLE runs DROP COLUMN {column}")
            connection.execute("DELETE FROM _sqlite_migrations WHERE name = ?", [migration])
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    assert listed(home) == before
    assert list(home.path.glob("index.db.damaged-*")) == []  # it was migrated


def test_threat_models_are_those_of_the_numbers_shown(home: Home) -> None:
    folder = make_run(home, "aaaa", status="killed")
    assert row(home).metrics and row(home).threats == {}  # numbers of the running selection
    log = evaluation("last", {"pgd20": 50.0, "aa": float("nan")}, THREATS, 360, 2, "last epoch")
    append(folder, log, 50.0)
    assert {metric: found["checkpoint"] for metric, found in row(home).threats.items()} == {"pgd20": "last"}
    odd = {
        "pgd20": {
            "norm": "l2\x1b[2J",
            "eps": "nan",
            "step_size": [1],
            "steps": 2**70,
            "start": float("inf"),
            "of": True,
        }
    }
    append(folder, evaluation("best", {"pgd20": 51.0}, odd, 360, 2, "best"), 60.0)
    found = row(home).threats["pgd20"]
    assert found == {
        "norm": "l2\N{REPLACEMENT CHARACTER}[2J",
        "eps": "nan",
        "start": "inf",
        "n": 360,
        "of": True,
        "checkpoint": "best",
    }
    assert row(home).json()["threats"] == {"pgd20": found}


def test_the_index_is_in_the_form_that_was_promised(home: Home) -> None:
    make_run(home, "aaaa")
    ingest.refresh(home)
    with closing(sqlite3.connect(home.index)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_readers_cannot_write(home: Home) -> None:
    make_run(home, "aaaa")
    ingest.refresh(home)
    with closing(query.connect(home)) as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM runs")


def test_rows_and_cursor_are_written_together(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(home, "aaaa")
    ingest.refresh(home)
    append(folder, [("epoch", {"epoch": 4, "step": 40, "stage": "train", "loss": 0.1})], 99.0)
    real = ingest._row

    def interrupted(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "_row", interrupted)  # after the points, before the cursor
    with pytest.raises(KeyboardInterrupt):
        ingest.refresh(home)
    assert len(query.points(home, "aaaa", "loss")) == 3
    monkeypatch.setattr(ingest, "_row", real)
    assert row(home).epoch == 4


def _refresh_often(path: Path, times: int) -> None:
    for _ in range(times):
        ingest.refresh(Home(path))
        query.runs(Home(path))


def test_several_processes_refresh_while_a_run_writes(home: Home) -> None:
    folder = make_run(home, "aaaa", status="running")
    ingest.refresh(home)
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_refresh_often, args=(home.path, 30)) for _ in range(2)]
    for other in others:
        other.start()
    for epoch in range(10, 60):
        append(folder, [("epoch", {"epoch": epoch, "step": epoch * 10, "stage": "train", "loss": 1.0})], float(epoch))
        time.sleep(0.005)
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0]
    ingest.refresh(home)
    assert [point.epoch for point in query.points(home, "aaaa", "loss")] == [1, 2, *range(10, 60)]


def test_another_writer_is_waited_for_only_briefly(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "aaaa")
    ingest.refresh(home)
    make_run(home, "bbbb")
    monkeypatch.setattr(ingest, "WAIT", 0.1)
    with schema.writing(home, 0) as alone:
        assert alone
        assert not ingest.refresh(home)
        assert not ingest.freshen(home)
        assert len(query.runs(home)) == 1
        monkeypatch.setattr(ingest, "FIRST_WAIT", 0.1)
        with pytest.raises(MachineError, match="another process"):
            ingest.rebuild(home)
    assert ingest.refresh(home)
    assert len(query.runs(home)) == 2


def test_nothing_there_is_nothing_and_makes_nothing(home: Home) -> None:
    ingest.refresh(home)
    assert query.runs(home) == []
    assert not home.path.exists()
    home.create()
    ingest.refresh(home)
    assert not home.index.exists()


def test_a_lock_that_cannot_be_opened_is_said(home: Home) -> None:
    make_run(home, "aaaa")
    (home.path / "index.lock").mkdir()
    with pytest.raises(MachineError, match="cannot write the index"):
        ingest.refresh(home)


ROOT = Path(__file__).parent.parent
HOSTILE = [
    '{"t": 1, "event": "epoch", "epoch": 1e400, "loss": 1}',
    '{"t": 1, "event": "epoch", "epoch": true, "step": null, "loss": 1}',
    '{"t": 1, "event": "step", "step": ' + "9" * 30 + ', "loss": 2}',
    '{"t": 1, "event": "step", "step": 1, "loss": ' + "9" * 400 + "}",
    '{"t": "x", "event": "step", "step": 7, "loss": "nan", "ok": "inf", "bad": [1], "name": "x"}',
    '{"t": 1, "event": "eval", "metric": ["natural"], "checkpoint": 3, "value": "high", "n": -1.5}',
    '{"t": 1, "event": "eval", "metric": "natural\\ud800", "checkpoint": "best", "value": 90, "n": 5}',
    '{"t": 1, "event": "start", "device": {"a": 1}, "epochs": "many"}',
    '{"t": 1, "event": 5}', "[]", "nonsense", "\x00\x00", "[" * 100_000,
]  # fmt: skip


def test_hostile_folders_break_nothing(home: Home, tmp_path: Path) -> None:
    make_run(home, "good")
    first = listed(home)
    odd = make_run(home, "odd1", created=2000.0)
    with open(odd.events, "ab") as file:
        file.write(b"\xff\xfe\n" + "\n".join(HOSTILE).encode() + b"\n")
        file.write(b"x" * (3 * event_files.CHUNK) + b"\n")
        file.write(events.encode("epoch", 9.0, {"epoch": 7, "step": 70, "stage": "train", "loss": 0.5}))
    for name, content in {
        "odd2": b"{",
        "odd3": b"[]",
        "odd4": b'{"name": 3, "created": "x", "tags": "t", "seed": 1e3}',
    }.items():
        home.run(name).path.mkdir()
        (home.run(name).path / "run.json").write_bytes(content)
        home.run(name).recipe.write_bytes(
            b"a = 'b\n" if name == "odd2" else b"\xff" if name == "odd3" else b"[data]\ndataset = 3\n"
        )
    home.run("odd4").write_json("heartbeat.json", {**me(), "pid": 10**30})
    os.mkfifo(home.run("odd4").events)
    make_run(home, "odd6", status="running").write_json("heartbeat.json", {**me(), "start_time": 10**400, "boot": 0})
    big = make_run(home, "odd5")
    big.recipe.write_text("x = 1\n" * 300_000)
    (home.runs / "a file").write_text("")
    (home.runs / "no-run").mkdir()
    (home.runs / "odd\nname").mkdir()
    (home.runs / "odd\nname" / "run.json").write_text("{}")

    found = {entry["id"]: entry for entry in json.loads(listed(home))}
    assert set(found) == {"good", *(f"odd{number}" for number in range(1, 7))}
    assert found["good"] == json.loads(first)[0]
    assert (found["odd1"]["epoch"], found["odd1"]["started"]) == (7, 1001.0 + 1000)
    assert found["odd2"]["name"] == "odd2" and found["odd2"]["status"] == "queued" and found["odd2"]["created"] is None
    assert found["odd4"]["status"] == "lost" and found["odd4"]["tags"] == [] and found["odd4"]["seed"] is None
    assert found["odd5"]["method"] == ""
    assert found["odd6"]["status"] == "lost"
    assert query.points(home, "odd1", "loss", "step")[1].value is None  # NaN at step 7
    ingest.rebuild(home)
    assert {entry["id"]: entry for entry in json.loads(listed(home))} == found


def test_lines_longer_than_a_chunk_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "CHUNK", 10)
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n" + b"x" * 47 + b"\nthree\n" + b"y" * 12 + b"\nfour\ntorn")
    with open(path, "rb") as file:
        pieces = list(event_files._whole_lines(file, 0))
    assert b"".join(data for data, _ in pieces).replace(b"y" * 12 + b"\n", b"") == b"one\ntwo\nthree\nfour\n"
    assert pieces[-1][1] == path.stat().st_size - len("torn")


def test_a_home_of_someone_else_is_read_as_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "aaaa")
    ingest.refresh(home)
    make_run(home, "bbbb")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    ingest.refresh(home)
    assert [found.id for found in query.runs(home)] == ["aaaa"]


def test_sqlite_utils_is_not_imported_for_an_index_that_stands(home: Home) -> None:
    make_run(home, "aaaa")
    ingest.refresh(home)
    code = (
        "import sys; from pathlib import Path; from trainctl.home import Home\n"
        "from trainctl.registry import ingest, query\n"
        f"home = Home(Path({str(home.path)!r})); ingest.refresh(home); assert len(query.runs(home)) == 1\n"
        "print([m for m in ('sqlite_utils', 'numpy', 'textual', 'rich', 'pydantic', 'torch') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        == "[]\n"
    )


def brief(home: Home) -> dict[str, tuple[str, str, int]]:
    """Tags, status and epoch of each run after a brief look."""
    ingest.refresh(home, brief=True)
    return {row.id: (" ".join(row.tags), row.status, row.epoch) for row in query.runs(home)}


@pytest.fixture
def two_looked_at(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Two runs that have ended, and that a brief look trusts: the clock of their file system has moved on."""
    monkeypatch.setattr(ingest, "TICK", 0)
    for name in ("aaaa", "bbbb"):
        make_run(home, name)
    assert brief(home) == {"aaaa": ("", "done", 3), "bbbb": ("", "done", 3)}
    return home


def test_a_brief_look_sees_all_that_is_replaced_appended_made_and_removed(two_looked_at: Home) -> None:
    home = two_looked_at
    home.run("aaaa").write_json("labels.json", {"tags": ["new"]})
    assert brief(home)["aaaa"] == ("new", "done", 3)
    home.run("aaaa").archive_exit()
    home.run("aaaa").write_json("exit.json", {"status": "failed", "t": 5.0})
    append(home.run("bbbb"), [("epoch", {"epoch": 4, "epochs": 4, "step": 40, "stage": "train", "loss": 1.0})], 90.0)
    make_run(home, "cccc")
    assert brief(home) == {"aaaa": ("new", "failed", 3), "bbbb": ("", "done", 4), "cccc": ("", "done", 3)}
    shutil.rmtree(home.run("bbbb").path)
    (home.run("cccc").path / "run.json").unlink()
    assert brief(home) == {"aaaa": ("new", "failed", 3)}


def test_a_brief_look_reads_no_other_file_of_a_run_that_has_ended(
    two_looked_at: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr(ingest, "_signature", lambda folder, run: looked.append(run) or "")
    assert len(brief(two_looked_at)) == 2
    assert looked == []


def test_a_close_look_sees_what_is_written_into_a_file(two_looked_at: Home) -> None:
    home = two_looked_at
    home.run("aaaa").write_json("labels.json", {"tags": ["first"]})
    assert brief(home)["aaaa"][0] == "first"
    (home.run("aaaa").path / "labels.json").write_text('{"tags": ["second"]}')
    assert brief(home)["aaaa"][0] == "first"
    assert row(home).tags == ("second",)
    assert brief(home)["aaaa"][0] == "second"


def test_a_brief_look_trusts_no_folder_that_has_just_changed(home: Home) -> None:
    """Two changes within a tick of the file system's clock leave one time."""
    make_run(home, "aaaa").write_json("labels.json", {"tags": ["first"]})
    assert brief(home)["aaaa"][0] == "first"
    (home.run("aaaa").path / "labels.json").write_text('{"tags": ["second"]}')
    assert brief(home)["aaaa"][0] == "second"


def test_a_look_that_was_close_in_vain_makes_the_next_one_brief(
    two_looked_at: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = two_looked_at
    (home.run("aaaa").path / "stdout.log").write_text("changes the folder, and nothing that is watched")
    before = query.stamp(home)
    brief(home)
    assert query.stamp(home) == before
    monkeypatch.setattr(ingest, "_signature", lambda folder, run: pytest.fail(f"{run} was looked at closely"))
    brief(home)
