"""A home of the first version opens for ever: tests/homes/version-1 is one, as trainctl of 2026-11-22 wrote it.

It holds a pair that is done, a run that was stopped, with its checkpoint, and one that failed. version-1.json is what
`ls --json` said then; index-N.db.gz are indexes of the versions since, over the same runs.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import carry_out

from engine import events
from engine.rundir import RunDir
from trainctl.cli.app import run
from trainctl.home import Home
from trainctl.registry import query, schema, select

HOMES = Path(__file__).parent / "homes"
PAIR, STOPPED, FAILED = ("r325hnv8", "ptaxm596"), "t3656qzt", "fa9v9euf"


@pytest.fixture(params=[1, 2, 3, 4, 5, None])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A copy with an index of some version, or without any."""
    found = Home(tmp_path / "home")
    shutil.copytree(HOMES / "version-1", found.path)
    if request.param is None:
        found.index.unlink()
    elif request.param > 1:
        found.index.write_bytes(gzip.decompress((HOMES / f"index-{request.param}.db.gz").read_bytes()))
    if request.param is not None:
        with closing(sqlite3.connect(found.index)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (request.param,)
    return found


def said(capfd: pytest.CaptureFixture[str], home: Home, *arguments: str) -> Any:
    """What a command prints as JSON, and nothing besides."""
    with pytest.raises(SystemExit) as ended:
        run([*arguments, "--home", str(home.path)])
    out, err = capfd.readouterr()
    assert (ended.value.code, err) == (0, "")
    return json.loads(out)


def test_it_opens_with_every_index(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    listed = said(capfd, home, "ls", "--json")
    then = json.loads((HOMES / "version-1.json").read_text())
    assert [{key: now[key] for key in before} for now, before in zip(listed, then, strict=True)] == then
    assert [one["status"] for one in listed] == ["done", "done", "killed", "failed"]
    assert listed[0]["threats"]["pgd20"]["eps"] == 0.25
    assert not list(home.path.glob("index.db.damaged-*"))  # an older index is migrated, not thrown away
    with closing(sqlite3.connect(home.index)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)

    shown = said(capfd, home, "show", PAIR[1], "--json")
    assert {one["metric"] for one in shown["evals"]["best"]} >= {"natural", "pgd20", "l_tp"}
    assert shown["settings"]["topology.enabled"] is True and shown["damaged"] is None
    assert "no such file" in said(capfd, home, "show", FAILED, "--json")["exit"]["reason"]

    (pair,) = said(capfd, home, "compare", "--json")["pairs"]
    assert (pair["baseline"]["runs"], pair["train"]["runs"]) == ([PAIR[0]], [PAIR[1]])
    assert pair["delta"]["pgd20"]["mean"] == pytest.approx(10.0 - 100 / 60)
    assert len(query.points(home, STOPPED, "loss")) == 18
    assert [one.id for one in select.resolve(home, ["tag:night", "note ~ TRAIN"])] == [PAIR[1], STOPPED]

    run_again = said(capfd, home, "ls", "--json")
    with pytest.raises(SystemExit):
        run(["reindex", "--home", str(home.path)])
    capfd.readouterr()
    assert said(capfd, home, "ls", "--json") == run_again == listed


def test_its_stopped_run_goes_on(tmp_path: Path) -> None:
    """From a checkpoint without a checksum, with a recipe that lacks the keys that have come since."""
    folder = RunDir(tmp_path / STOPPED)
    shutil.copytree(HOMES / "version-1" / "runs" / STOPPED, folder.path)
    folder.archive_exit()
    before = folder.events.read_bytes()
    carry_out(folder, until=78)
    found = [event for _, event in events.read(folder.events.read_bytes())]
    assert folder.events.read_bytes().startswith(before[:11479])  # where the checkpoint was written
    assert [event["epoch"] for event in found if event["event"] == "epoch"] == list(range(1, 20))
