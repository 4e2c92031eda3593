"""`trainctl tui`, and `trainctl` alone: the dashboard."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from trainctl.cli.common import HomeOption
from trainctl.home import find_home


def tui(
    home: HomeOption = None,
    low_bandwidth: Annotated[
        bool, typer.Option("--low-bandwidth", help="Draw at most once a second, for a slow line; F2 changes it.")
    ] = False,
) -> None:
    """Open the dashboard."""
    import_module("trainctl.tui.app").run(find_home(home), low_bandwidth=low_bandwidth)
