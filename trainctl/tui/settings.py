"""What the dashboard remembers of a person's choices, in dashboard.json of the home folder."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, fields, replace

from trainctl.home import Home

FILE = "dashboard.json"


@dataclass(frozen=True)
class Settings:
    """Choices that outlive the dashboard. What the file lacks, or has of another type, is as here."""

    theme: str = "trainctl-dark"
    columns: tuple[str, ...] = ()
    """Of the runs table; () means those that fit the width."""
    sort: str = "-created"
    """Key by which runs stand; - in front: the largest first."""
    group: str = ""
    """"" for single runs, else what they are grouped by: recipe, pair or group."""
    low_bandwidth: bool = False


def load(home: Home) -> Settings:
    """The choices that were remembered; a damaged file means none."""
    try:
        found = json.loads((home.path / FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return Settings()
    settings = Settings()
    for field in fields(Settings) if isinstance(found, dict) else ():
        value = found.get(field.name)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = tuple(value)
        if type(value) is type(getattr(settings, field.name)):
            settings = replace(settings, **{field.name: value})
    return settings


def save(home: Home, settings: Settings) -> None:
    """Remember the choices; in a folder that cannot be written they last as long as the dashboard."""
    path = home.path / FILE
    temporary = path.with_name(f".{FILE}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):  # not synced: a key must not wait for the disk
        temporary.write_text(json.dumps(asdict(settings), indent=1) + "\n")
        temporary.replace(path)
