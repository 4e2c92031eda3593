"""Curves in buckets, against plain Python over all points."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainctl.home import Home
from trainctl.registry import ingest, query, schema, series
from trainctl.registry.series import Bucket, Reader, Wanted

Point = tuple[int, int | None, float | None, float | None]  # step, epoch, t, value


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path).create()
    with contextlib.closing(schema.open_index(home)) as connection:
        connection.execute("INSERT INTO runs (id, started) VALUES ('a', 1000.0)")
    return home


@contextlib.contextmanager
def writing(home: Home) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(schema.open_index(home)) as connection:
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")


def store(home: Home, points: list[Point], kind: str = "step", metric: str = "loss") -> None:
    with writing(home) as connection:
        connection.executemany(
            "INSERT OR REPLACE INTO points VALUES ('a', ?, ?, ?, ?, ?, ?)", [(kind, metric, *point) for point in points]
        )


def made(count: int, seed: int = 0, first: int = 1) -> list[Point]:
    """Random walks with gaps in steps and time, values that are no numbers, and rows that lack an epoch or a time."""
    draw = random.Random(seed)
    step, t, points = first, 1000.0 + first, []
    for _ in range(count):
        step += draw.choice((1, 1, 10, 300))
        t += draw.choice((0.0, 0.1, 0.1, 60.0))
        value = draw.choice((draw.gauss(0, 1), draw.gauss(0, 1), 1e6, math.nan, math.inf, -math.inf, 0.0))
        points.append((step, step // 100 if draw.random() < 0.9 else None, t if draw.random() < 0.9 else None, value))
    return points


def x_of(point: Point, x: str) -> float | None:
    step, epoch, t, _ = point
    return float(step) if x == "step" else epoch if x == "epoch" else None if t is None else t - 1000.0


def check(found: tuple[Bucket, ...], points: list[Point], x: str, left: float, right: float, most: int) -> None:
    """Every point lies in just the bucket that covers it, and the bucket says what lies in it."""
    values = [(at, point[3]) for point in points if (at := x_of(point, x)) is not None and left <= at <= right]
    assert len(found) <= most
    assert [b.first for b in found] == sorted(b.first for b in found)
    assert all(a.last < b.first for a, b in itertools.pairwise(found))
    assert sum(b.n + b.lost for b in found) == len(values)
    for bucket in found:
        inside = [value for at, value in values if bucket.first <= at <= bucket.last]
        finite = [value for value in inside if value is not None and math.isfinite(value)]
        assert (bucket.n, bucket.lost) == (len(finite), len(inside) - len(finite))
        if finite:
            assert (bucket.low, bucket.high) == (min(finite), max(finite))
            assert bucket.mean == pytest.approx(sum(finite) / len(finite), rel=1e-9, abs=1e-9)
        else:
            assert math.isnan(bucket.low) and math.isnan(bucket.high) and math.isnan(bucket.mean)


@pytest.mark.parametrize("x", ["step", "epoch", "time"])
@pytest.mark.parametrize(("count", "buckets"), [(1, 2), (2, 2), (50, 400), (3000, 37), (3000, 400)])
def test_buckets_hold_what_plain_python_finds(home: Home, x: str, count: int, buckets: int) -> None:
    points = made(count, seed=count + buckets)
    store(home, points)
    reader = Reader(home)
    [curve] = reader.read([Wanted("a", "loss", x=x, buckets=buckets)])
    check(curve.buckets, points, x, -math.inf, math.inf, buckets)
    if count == 3000:
        assert len(curve.buckets) > buckets / 8
        left, right = curve.first + (curve.last - curve.first) / 3, curve.last - (curve.last - curve.first) / 2
        [part] = reader.read([Wanted("a", "loss", x=x, left=left, right=right, buckets=buckets)])
        check(part.buckets, points, x, left, right, buckets)
        assert (part.first, part.last) == (curve.first, curve.last)


@pytest.mark.parametrize("x", ["step", "epoch", "time"])
def test_a_growing_curve_is_the_same_as_one_that_is_read_at_once(home: Home, x: str) -> None:
    points, reader, wanted = made(2000, seed=5), Reader(home), Wanted("a", "loss", x=x, buckets=50)
    for end in (1, 3, 100, 101, 900, 2000):
        store(home, points[:end])
        [curve] = reader.read([wanted])
        check(curve.buckets, points[:end], x, -math.inf, math.inf, 50)


def test_what_was_read_is_not_read_again(home: Home) -> None:
    points, reader, wanted = made(500), Reader(home), Wanted("a", "loss")
    store(home, points[:400])
    reader.read([wanted])
    with writing(home) as connection:  # were it read again, these would be missed
        connection.execute("DELETE FROM points WHERE step < ?", (points[300][0],))
    store(home, points[400:])
    assert sum(b.n + b.lost for b in reader.read([wanted])[0].buckets) == 500


@pytest.mark.parametrize("change", ["inode", "value", "shorter"])
def test_a_replaced_curve_is_read_anew(home: Home, change: str) -> None:
    """A run that is resumed takes its last steps again, and its events are another file."""
    points, reader, wanted = made(100), Reader(home), Wanted("a", "loss")
    store(home, points)
    reader.read([wanted])
    with writing(home) as connection:
        connection.execute("DELETE FROM points")
        if change == "inode":
            connection.execute("INSERT INTO cursors (run, inode) VALUES ('a', 7)")
    fresh = [*points[:50], *(() if change == "shorter" else [(s, e, t, 0.5) for s, e, t, _ in points[50:]])]
    if change == "inode":
        fresh[-1] = points[-1]
    store(home, fresh)
    check(reader.read([wanted])[0].buckets, fresh, "step", -math.inf, math.inf, 400)


def test_many_curves_are_held_but_not_all(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "KEPT", 3)
    store(home, made(50))
    reader = Reader(home)
    wanted = [Wanted("a", "loss", buckets=buckets) for buckets in (10, 20, 30, 40)]
    assert len({curve.last for curve in reader.read(wanted)}) == 1
    assert len(reader._held) == 3


def test_what_is_not_there_is_empty(home: Home, tmp_path: Path) -> None:
    assert Reader(home).read([Wanted("a", "loss"), Wanted("none", "loss")])[1].buckets == ()
    store(home, [(1, None, None, 1.0)])
    assert [curve.buckets for curve in Reader(home).read([Wanted("a", "loss", x="time")])] == [()]
    assert Reader(home).read([Wanted("a", "loss", left=5.0, right=9.0)])[0].buckets == ()
    nowhere = Home(tmp_path / "nowhere")
    assert Reader(nowhere).read([Wanted("a", "loss")])[0].buckets == ()
    assert query.metrics(nowhere, "a") == {}


def test_names_are_found_without_reading_the_points(home: Home) -> None:
    for kind, metric in (("step", "loss"), ("step", "lr"), ("epoch", "loss"), ("pretrain-step", "loss_standard")):
        store(home, [(n, 1, 1.0, 1.0) for n in range(20)], kind, metric)
    expected = {"step": ["loss", "lr"], "epoch": ["loss"], "pretrain-step": ["loss_standard"]}
    assert query.metrics(home, "a") == expected


def test_a_damaged_index_is_built_again(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    folder = home.run("b")
    folder.path.mkdir()
    folder.write_json("run.json", {"id": "b"})
    folder.events.write_text(json.dumps({"event": "step", "t": 1.0, "step": 3, "loss": 2.0}) + "\n")
    ingest.refresh(home)
    home.index.write_bytes(b"nonsense" * 1000)
    for suffix in ("-wal", "-shm"):
        home.index.with_name(home.index.name + suffix).unlink(missing_ok=True)
    assert Reader(home).read([Wanted("b", "loss")])[0].buckets == (Bucket(3.0, 3.0, 2.0, 2.0, 2.0, 1, 0),)


@pytest.mark.slow
def test_a_million_points_are_read_once_and_then_only_their_end(home: Home) -> None:
    store(home, [(10 * n, 1 + n // 1000, 1000.0 + n / 10, 0.5 + n % 7) for n in range(1_000_000)])
    reader, wanted = Reader(home), Wanted("a", "loss")
    began = time.process_time()
    assert sum(bucket.n for bucket in reader.read([wanted])[0].buckets) == 1_000_000
    cold = time.process_time() - began
    store(home, [(10_000_010, 1001, 200_000.0, 99.0)])
    began = time.process_time()
    assert reader.read([wanted])[0].buckets[-1].high == 99.0
    assert time.process_time() - began < cold / 10
