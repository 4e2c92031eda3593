"""The dashboard: runs live, one run, the comparison.

It only looks, and asks runs to stop or to go on. Leaving it ends none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from textual.app import App, SystemCommand
from textual.screen import Screen

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.registry.watch import Watch
from trainctl.tui import keys, settings
from trainctl.tui.screens.compare import CompareScreen
from trainctl.tui.screens.help import HelpScreen
from trainctl.tui.screens.home import HomeScreen
from trainctl.tui.screens.run import RunScreen
from trainctl.tui.themes import THEMES

PLACES: dict[type[Screen[Any]], str] = {HomeScreen: keys.HOME, RunScreen: keys.RUN, CompareScreen: keys.COMPARE}


def run(home: Home) -> None:
    """Open the dashboard of `home` until it is left. UsageError without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", "`trainctl ls` and `trainctl watch` do not")
    Dashboard(home).run()


class Dashboard(App[None]):
    """The app behind `trainctl tui`."""

    TITLE = "trainctl"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    BINDINGS = keys.bindings(keys.EVERYWHERE)

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home
        self.settings = settings.load(home)
        """What is remembered; changed by `remember` alone."""
        self.watcher = Watch(home)
        """Keeps the index up to date for all screens."""
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self.settings.theme if self.settings.theme in self.available_themes else THEMES[0].name
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]

    def get_default_screen(self) -> Screen[None]:
        """The runs."""
        return HomeScreen(self.home)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: what the keys of this screen do, then what every Textual app has."""
        for key in keys.KEYS:
            if key.place == PLACES.get(type(screen)):
                yield SystemCommand(f"{key.word} ({key.shown})", key.help, partial(screen.run_action, key.action))
        yield from super().get_system_commands(screen)

    def remember(self, **changes: Any) -> None:
        """Change settings, and keep them for the next time."""
        self.settings = replace(self.settings, **changes)
        settings.save(self.home, self.settings)

    def action_theme(self) -> None:
        """The next of our themes."""
        names = [theme.name for theme in THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]
        self.remember(theme=self.theme)

    def action_help(self) -> None:
        """Show the keys."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())
