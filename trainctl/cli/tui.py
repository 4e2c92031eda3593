"""`trainctl tui`, and `trainctl` alone: the dashboard."""

from __future__ import annotations

from importlib import import_module

from trainctl.cli.common import HomeOption
from trainctl.home import find_home


def tui(home: HomeOption = None) -> None:
    """Open the dashboard."""
    import_module("trainctl.tui.app").run(find_home(home).create())
