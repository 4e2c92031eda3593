"""Where a data set lies: the same look-up for the launch form and for `trainctl doctor`, as engine/data does it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine import options


@dataclass(frozen=True)
class Place:
    """Where a data set was looked for, in order, and where it was found. No `places`: it comes with a package, which
    `summary` says. `downloads`: it can be fetched.
    """

    root: Path
    places: tuple[Path, ...]
    found: Path | None
    summary: str
    downloads: bool


def locate(name: str, root: str = "", path: str | None = None, base: str | Path = "") -> Place | None:
    """Look for the data set `name`; None if there is none of that name.

    `root` and `path` are data.root and, for a data set that has it, data.path of a recipe; `base` is the folder that
    they are relative to, by default the working directory.
    """
    entry = options.readable("DataSource").get(name)
    if entry is None:
        return None
    chosen = root or os.environ.get("TRAINCTL_DATA")
    if not chosen:
        import platformdirs

        chosen = platformdirs.user_cache_dir("trainctl")
    folder = Path(base, Path(chosen).expanduser()).absolute()
    known = [folder / place for place in entry.constants.get("found_at", ())]
    places = known if path is None else [Path(base, Path(path).expanduser())] if path else []
    found = next((place for place in places if place.exists()), None)
    return Place(folder, tuple(places), found, entry.summary, path is None and bool(known))
