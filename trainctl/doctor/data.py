"""Data sets: those that queued runs need, and all others."""

from __future__ import annotations

from collections.abc import Iterator

from engine import options
from engine.rundir import RunDir
from trainctl.doctor.finding import MISSING, OK, WARNING, Finding, some
from trainctl.doctor.view import View, section
from trainctl.recipes.datasets import Place, locate

FETCHED = "downloaded when a run needs it; TRAINCTL_DATA moves it"


def check(view: View) -> Iterator[Finding]:
    """Every data set; then those of queued runs that are not where their recipes look for them."""
    needed = [run for run, status in view.unfinished.items() if status == "queued"]
    for name in options.readable("DataSource"):
        place = locate(name)
        if place is None:
            continue
        if place.found or not place.places:
            yield Finding(f"data: {name}", OK, str(place.found or place.summary))
        else:
            yield Finding(f"data: {name}", WARNING, f"not at {place.places[0]}", FETCHED)
    yield from _needed(view, needed)


def _needed(view: View, queued: list[RunDir]) -> Iterator[Finding]:
    lacking: dict[tuple[str, str, bool], list[str]] = {}
    for run in queued:
        data = section(view.recipes[run.id], "data")
        place = _place(run, data)
        if place is None or place.found or (not place.places and "path" not in data):
            continue
        where = str(place.places[0]) if place.places else "data.path is empty"
        fetched = place.downloads and data.get("download", True) is not False
        lacking.setdefault((str(data.get("dataset")), where, fetched), []).append(run.id)
    for (name, where, fetched), runs in lacking.items():
        detail = f"{name} is not at {where}, and {some(runs)} need{'s' if len(runs) == 1 else ''} it"
        if fetched:
            hint = "the first of them downloads it; see that the net is in reach"
            yield Finding("data of the queue", WARNING, detail, hint)
        else:
            yield Finding("data of the queue", MISSING, detail, "put it there, or these runs will fail")


def _place(run: RunDir, data: dict[str, object]) -> Place | None:
    name, root, path = data.get("dataset"), data.get("root", ""), data.get("path")
    base = run.json("run.json").get("cwd")
    if not isinstance(name, str) or not isinstance(root, str):
        return None
    try:
        return locate(name, root, path if isinstance(path, str) else None, base if isinstance(base, str) else "")
    except (ValueError, OSError, RuntimeError):  # a path with NUL, too long, of a user who is not there
        return None
