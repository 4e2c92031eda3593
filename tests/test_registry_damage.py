"""The index mends itself: whatever becomes of the file, answers are those of the run folders, and no disk fills up."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from folders import make_run

from trainctl import home as homes
from trainctl.errors import MachineError, Stale
from trainctl.filesystem import filesystem, is_network
from trainctl.home import Home, index_place
from trainctl.registry import ingest, query, schema, select
from trainctl.registry.window import Table, View

ROOT = Path(__file__).parent.parent
DAMAGES = int(os.environ.get("TRAINCTL_DAMAGES", "16"))
"""Random damages of index.db; 1000 of them were looked at."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("made"))
    for index in range(8):
        make_run(home, f"run{index}", created=float(index), seed=index)
    everything(home)
    return home


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    """A copy with an index of its own."""
    shutil.copytree(made.runs, tmp_path / "home" / "runs")
    found = Home(tmp_path / "home")
    ingest.refresh(found)
    return found


def everything(home: Home) -> str:
    """All that commands and screens ask the index."""
    ingest.refresh(home)
    rows = query.runs(home)
    window = Table(home).window(View("natural>3 and optim.lr>0", "natural"), 0, 50)
    curves = [
        (run.id, kind, metric, query.points(home, run.id, metric, kind))
        for run in rows
        for kind, metrics in query.metrics(home, run.id).items()
        for metric in metrics
    ]
    evals = [query.evals(home, run.id) for run in rows]
    seen = query.progress(home, [run.id for run in rows])
    return repr((rows, window.shown, curves, evals, seen, query.settings(home), query.damage(home)))


def garble(content: bytes, random_: random.Random) -> bytes:
    """`content` with pages of noise or zeros, or cut short."""
    damaged, page = bytearray(content), 4096
    kind = random_.choice(("noise", "anywhere", "zeros", "cut"))
    if kind == "cut":
        return content[: random_.randrange(len(content))]
    for _ in range(random_.choice((1, 5))):
        at = random_.randrange(len(content) - page)
        at = at if kind == "anywhere" else at // page * page
        damaged[at : at + page] = bytes(page) if kind == "zeros" else random_.randbytes(page)
    return bytes(damaged)


def test_random_damage_is_mended_and_few_copies_are_kept(home: Home) -> None:
    truth, whole = everything(home), home.index.read_bytes()
    for number in range(DAMAGES):
        home.index.write_bytes(garble(whole, random.Random(number)))
        assert everything(home) == truth, number
    assert len(list(home.path.glob("index.db.damaged-*"))) == schema.KEPT
    with closing(sqlite3.connect(home.index)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_text("someone's")


def a_link(path: Path) -> None:
    path.with_name("target").write_text("someone's")
    path.symlink_to(path.with_name("target"))


KINDS: dict[str, Callable[[Path], None]] = {
    "folder": a_folder, "link": a_link, "pipe": os.mkfifo, "dangling link": lambda path: path.symlink_to("nowhere"),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 400) and None,
}  # fmt: skip


@pytest.mark.parametrize("name", ["index.db", "index.db-wal", "index.db-shm"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_sqlite_is_set_aside(home: Home, kind: str, name: str) -> None:
    truth = everything(home)
    place = home.path / name
    place.unlink(missing_ok=True)
    KINDS[kind](place)
    if name == "index.db":
        assert len(query.runs(home)) == 8  # found by a reader
    assert everything(home) == truth
    assert place.is_file() or not place.exists()
    kept = [path.read_text() for path in home.path.rglob("*") if path.name in ("kept", "target")]
    assert kept == ["someone's"] * (kind in ("folder", "link"))


def test_a_damaged_log_costs_no_answer(home: Home) -> None:
    truth = everything(home)
    with closing(schema.open_index(home)) as writer:
        writer.execute("UPDATE runs SET note = 'not what the folder says', rowid = rowid + 1")
        killed = {path.name: path.read_bytes() for path in home.path.glob("index.db*")}
    log = bytearray(killed["index.db-wal"])
    for at in (0, 40, len(log) // 2):  # its header, the first page, some other
        damaged = bytes(log[:at]) + bytes(16) + bytes(log[at + 16 :])
        for name, content in {**killed, "index.db-wal": damaged}.items():
            (home.path / name).write_bytes(content)
        assert everything(home) == truth


def test_what_a_killed_writer_left_is_put_in_order_while_others_read(home: Home) -> None:
    """It may have died in the midst of what readers share, and readers cannot write."""
    truth, held = everything(home), query.hold(home)
    assert held is not None
    with closing(schema.open_index(home)) as writer:
        writer.execute("UPDATE runs SET note = 'x' WHERE id = 'none'")
        with open(home.path / "index.db-shm", "r+b") as shared:
            shared.write(bytes(96))
    assert len(query.runs(home)) == 8
    assert everything(home) == truth
    held.close()
    assert not list(home.path.glob("index.db.damaged-*"))


def unprivileged(work: Callable[[Home], None], drop: bool = True) -> None:
    """Do `work` in a process that permissions bind, with a home of its own."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        home = Home(folder)
        make_run(home, "aaaa")
        ingest.refresh(home)
        folder.chmod(0o777)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                if drop and not os.getuid():
                    for path in (folder, *folder.rglob("*")):
                        os.chown(path, 65534, 65534)
                    os.setuid(65534)
                work(home)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)


def test_runs_that_may_not_be_listed_are_not_taken_for_none() -> None:
    def work(home: Home) -> None:
        home.runs.chmod(0)
        denied = f"cannot list the runs in {home.runs}: Permission denied"
        for ask in (ingest.refresh, ingest.rebuild, Home.run_dirs):
            with pytest.raises(MachineError, match=denied) as caught:
                ask(home)
            assert "let this user read" in caught.value.hint
        with pytest.warns(Stale, match=f"{denied}; this is what the index held before"):
            ingest.freshen(home)
        assert len(query.runs(home)) == 1
        home.index.unlink()
        with pytest.raises(MachineError, match=denied):
            ingest.freshen(home)

    unprivileged(work)


def test_an_index_that_may_only_be_read_is_replaced() -> None:
    def work(home: Home) -> None:
        home.index.chmod(0o400)
        make_run(home, "bbbb")
        ingest.refresh(home)
        assert len(query.runs(home)) == 2

    unprivileged(work)


def test_a_damaged_index_that_cannot_be_moved_is_said() -> None:
    def work(home: Home) -> None:
        home.index.write_bytes(b"nonsense" * 1000)
        home.path.chmod(0o1777)  # only its owner may rename a file
        os.chown(home.index, 1, 1)
        os.chown(home.path, 1, 1)
        (home.path / "index.lock").chmod(0o666)
        os.setuid(65534)
        with pytest.raises(MachineError, match=r"cannot write the index .*Operation not permitted"):
            ingest.refresh(home)

    if os.getuid():
        pytest.skip("another user is needed")
    unprivileged(work, drop=False)


def test_a_home_that_may_only_be_read_is_read() -> None:
    def work(home: Home) -> None:
        home.path.chmod(0o500)
        with pytest.warns(Stale, match="may only be read"):
            assert len(select.resolve(home, ["@last"])) == 1
        home.path.chmod(0o700)
        home.index.write_bytes(b"nonsense" * 1000)
        home.path.chmod(0o500)
        with pytest.raises(MachineError, match="cannot read the index"):
            query.runs(home)

    unprivileged(work)


def test_who_acts_on_runs_is_not_told_by_an_index_that_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rm @last` on a full disk deleted the run that had been the last one."""
    monkeypatch.setattr("trainctl.home._IN_MEMORY", {})
    home = Home(tmp_path)
    make_run(home, "aaaa", created=1.0)
    ingest.refresh(home)
    lock = home.path / "index.lock"
    lock.unlink()
    lock.mkdir()  # so nobody can write the index
    make_run(home, "bbbb", created=2.0)
    with pytest.warns(Stale, match="this is what the index held before"):
        assert [row.id for row in select.resolve(home, ["@last"])] == ["aaaa"]
    with pytest.warns(Stale, match="the run folders were read without it"):
        assert [row.id for row in select.some(home, ["@last"])] == ["bbbb"]


FULL = """
import os, sys, warnings
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from folders import append, make_run
from trainctl.errors import MachineError, Stale
from trainctl.home import Home
from trainctl.registry import ingest, query, schema, select

def fill():
    descriptor = os.open(place / "rest", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while True:
            os.write(descriptor, b"x" * 512)
    except OSError:
        os.close(descriptor)

def listed():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = {{row.id: row.epoch for row in select.resolve(home, ["epoch>=0"])}}
    return found, [str(one.message) for one in said if one.category is Stale]

place = Path(sys.argv[1])
home = Home(place / "home")
make_run(home, "aaaa")
make_run(home, "long", status="killed", epochs=3)
append(home.run("long"), [("step", {{"step": 100 + n, "epoch": 2, "loss": 1.0}}) for n in range(8000)], 1.0)
fill()  # before there is an index
reading, writing = os.pipe()
usual = home.index
pid = os.fork()
if not pid:  # its index is in memory, and goes with it
    found, said = listed()
    assert found == {{"aaaa": 3, "long": 2}} and len(said) == 1, (found, said)
    assert str(usual) in said[0] and "no space left" in said[0] and "free space" in said[0], said
    assert listed() == (found, []) and not usual.exists()
    assert home.index.is_file() and not home.index.is_relative_to(place)
    os.write(writing, bytes(home.index.parent))
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
assert not os.path.exists(os.read(reading, 4096))
(place / "rest").unlink()
assert listed() == ({{"aaaa": 3, "long": 2}}, [])
points = len(query.points(home, "long", "loss", "step"))
assert points == 8004, points

append(home.run("aaaa"), [("step", {{"step": 100 + n, "epoch": 3, "loss": 1.0}}) for n in range(8000)], 1.0)
append(home.run("aaaa"), [("epoch", {{"epoch": 4, "step": 9000, "loss": 1.0}})], 1.0)
fill()
found, said = listed()  # as it was
assert found == {{"aaaa": 3, "long": 2}} and len(said) == 1 and str(home.index) in said[0], (found, said)
assert len(query.points(home, "long", "loss", "step")) == points
pid = os.fork()
if not pid:  # a writer that is killed leaves a log, and nobody has room for what readers share
    os.truncate(place / "rest", os.stat(place / "rest").st_size - 200_000)
    connection = schema.open_index(home)
    connection.execute("UPDATE runs SET note = 'committed'")
    os.kill(os.getpid(), 9)
os.waitpid(pid, 0)
home.index.with_name("index.db-shm").unlink()
fill()
assert [row.note for row in query.runs(home)] == ["committed"] * 2
try:
    ingest.rebuild(home)
    raise SystemExit("an index without room")
except MachineError as error:
    assert str(home.index) in str(error) and "no space left" in str(error) and "free space" in error.hint, str(error)
assert sorted(query.settings(home)) == ["aaaa", "long"] and not list(home.path.glob(".index*"))
(place / "rest").unlink()
found, said = listed()
assert found == {{"aaaa": 4, "long": 2}} and not said, (found, said)
assert [row.note for row in query.runs(home, ["aaaa"])] == [""]
assert len(query.points(home, "aaaa", "loss", "step")) == 8006
assert not list(home.path.glob("index.db.damaged-*"))
"""


def test_a_full_disk_keeps_what_was_known_and_is_made_up_for(tmp_path: Path) -> None:
    """On a small disk of its own, in a mount name space of its own where that is allowed."""
    script = tmp_path / "full.py"
    script.write_text(FULL.format(root=str(ROOT), tests=str(ROOT / "tests")))
    place = tmp_path / "disk"
    place.mkdir()
    command = f"mount -t tmpfs -o size=5m tmpfs {place} && exec {sys.executable} {script} {place}"
    inside = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no mount name spaces here")
    done = subprocess.run([*inside, command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


HOLDER = """
import sys, time
from pathlib import Path
from trainctl import home
home.index_in_memory(home.Home(Path(sys.argv[1])))
print(home.Home(Path(sys.argv[1])).index.parent, flush=True)
time.sleep(60)
"""


def test_an_index_in_memory_that_a_killed_command_left_is_deleted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", HOLDER, home.path]
    dead, alive = (subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2))
    folders = []
    for process in (dead, alive):
        assert process.stdout
        folders.append(Path(process.stdout.readline().strip()))
    dead.kill()
    dead.communicate()
    assert [folder.is_dir() for folder in folders] == [True, True]
    monkeypatch.setattr(homes, "_IN_MEMORY", {})
    homes.index_in_memory(home)
    assert [folder.is_dir() for folder in folders] == [False, True]
    home.index.parent.rmdir()
    alive.terminate()
    alive.communicate()
    folders[1].rmdir()


def network(tmp_path: Path) -> Path:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/root / ext4 rw 0 0\n"
        f"box:/export {tmp_path}/a\\040home nfs4 rw 0 0\n"
        f"box:/export {tmp_path}/cache fuse.sshfs rw 0 0\nshort line\n"
    )
    return mounts


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine whose homes, and whose user's cache, are mounted over a network."""
    found = network(tmp_path)
    monkeypatch.setattr(homes, "filesystem", lambda path: filesystem(path, found))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "local"))
    index_place.cache_clear()
    yield found
    index_place.cache_clear()


def test_kinds_of_file_systems(tmp_path: Path) -> None:
    mounts = network(tmp_path)
    assert filesystem(tmp_path / "a home" / "not" / "there", mounts) == "nfs4"
    assert filesystem(tmp_path / "a homely", mounts) == "ext4"
    (tmp_path / "link").symlink_to(tmp_path / "a home")
    assert filesystem(tmp_path / "link" / "x", mounts) == "nfs4"
    assert filesystem(tmp_path, tmp_path / "none") == ""
    assert [kind for kind in ("nfs4", "cifs", "fuse.sshfs", "ext4", "tmpfs", "overlay", "") if is_network(kind)] == [
        "nfs4", "cifs", "fuse.sshfs",
    ]  # fmt: skip


def test_the_index_of_a_home_on_a_network_lies_on_this_machine(
    tmp_path: Path, mounts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainctl.cli.reindex import reindex

    home, other = Home(tmp_path / "a home"), Home(tmp_path / "elsewhere")
    make_run(home, "aaaa")
    make_run(other, "aaaa")
    before = everything(home)
    place, reason = index_place(home)
    assert place.is_relative_to(tmp_path / "local" / "trainctl" / "indexes") and place == home.index
    assert reason == f"{home.path} is on nfs4, a network file system"
    assert sorted(path.name for path in home.path.iterdir()) == ["runs"]
    assert {"index.db", "index.lock"} <= {path.name for path in place.parent.iterdir()}
    assert (other.index, index_place(other)[1]) == (other.path / "index.db", "")
    reindex(str(home.path))
    said = capsys.readouterr().err
    assert str(place) in said and reason in said
    place.write_bytes(b"nonsense" * 1000)
    assert everything(home) == before
    home.path.chmod(0o500)  # nothing is written there
    assert everything(home) == before
    home.path.chmod(0o700)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # on a network, too
    index_place.cache_clear()
    assert home.index.is_relative_to(Path(tempfile.gettempdir()) / f"trainctl-{os.getuid()}")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"trainctl-{os.getuid()}").write_text("")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (tmp_path / "trainctl-12345").mkdir()  # somebody else's
    index_place.cache_clear()
    assert home.index == home.path / "index.db"


def test_a_reader_who_finds_a_writer_at_work_on_the_form_waits(home: Home) -> None:
    """An index whose form is being changed looks damaged; it must not be set aside for that."""
    truth = everything(home)
    reading, writing_ = os.pipe()
    pid = os.fork()
    if not pid:
        with schema.writing(home, 0), closing(schema.open_index(home)) as connection:
            connection.execute("ALTER TABLE runs RENAME TO away")
            os.write(writing_, b"x")
            signal.sigtimedwait([], 0.3)
            connection.execute("ALTER TABLE away RENAME TO runs")
        os._exit(0)
    os.read(reading, 1)
    assert len(query.runs(home)) == 8
    os.waitpid(pid, 0)
    assert everything(home) == truth
    assert not list(home.path.glob("index.db.damaged-*"))


def test_nobody_finds_an_index_without_tables(tmp_path: Path) -> None:
    """Readers look all the time while an index is made for the first time."""
    home = Home(tmp_path)
    make_run(home, "aaaa")
    pid = os.fork()
    if not pid:
        code = 1
        try:
            while not query.runs(home):
                pass
            code = 0
        finally:
            os._exit(code)
    for _ in range(5):
        ingest.rebuild(home)
    assert os.waitpid(pid, 0)[1] == 0
    assert not list(tmp_path.glob("index.db.damaged-*"))
