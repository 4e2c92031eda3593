"""The dashboard: runs live, one run, the comparison.

It only looks, and asks runs to stop or to go on. Leaving it ends none.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from textual.actions import ActionParseResult
from textual.app import SystemCommand
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import AwaitMount

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.registry.watch import Watch
from trainctl.tui import keys, settings
from trainctl.tui.feed.errors import explain
from trainctl.tui.screens.help import HelpScreen
from trainctl.tui.screens.home import HomeScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.themes import THEMES
from trainctl.tui.typing import OneKeyAtATime

LONG = 1.5  # seconds after which an act is said to go on
READ = 15.0  # characters of a notice that are read in a second


def run(home: Home, *, low_bandwidth: bool = False) -> None:
    """Open the dashboard of `home` until it is left; `low_bandwidth` draws at most once a second this time.

    UsageError without a terminal, MachineError if the home's folders cannot be made.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the dashboard needs a terminal", "`trainctl ls` and `trainctl watch` do not")
    app = Dashboard(home.create())
    if low_bandwidth:
        app.low_bandwidth = True
    threading.Thread(target=_leave_with_the_terminal, daemon=True).start()
    app.run()


def _leave_with_the_terminal() -> None:
    """End this process once its terminal is gone, which the kernel need not tell by a signal: else it would spin."""
    gone = select.poll()
    gone.register(sys.stdin.fileno(), 0)  # a hang-up is told in any case
    gone.poll()
    os._exit(128 + signal.SIGHUP)


class Dashboard(OneKeyAtATime):
    """The app behind `trainctl tui`."""

    TITLE = "trainctl"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    BINDINGS = keys.bindings(keys.EVERYWHERE)

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.animation_level = "none"  # it would be sent over the network frame by frame
        self.home = home
        self.settings = settings.load(home)
        """What is remembered; changed by `remember` alone."""
        self.low_bandwidth = self.settings.low_bandwidth
        """This time; what is remembered is for the next."""
        self.watcher = Watch(home)
        """Keeps the index up to date for all screens."""
        self._acts = 0
        for theme in THEMES:
            self.register_theme(theme)
        known = [theme.name for theme in THEMES]
        self.theme = self.settings.theme if self.settings.theme in known else known[0]
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]

    async def run_async(self, **how: Any) -> None:
        """Until it is left. Acts under way are ended first, since what was asked for is not left half done."""
        await super().run_async(**how)
        if self._acts:
            print("trainctl: what was asked for is still being done; this waits for it", file=sys.stderr)

    def under_way(self, deed: Callable[[], str]) -> Callable[[], str]:
        """`deed`, to be called on a thread: known as under way until it has ended, and told of if that takes long."""
        self._acts += 1
        told = self.set_timer(LONG, lambda: self.notify("still at it; you can go on, and the end will be told"))

        def done() -> str:
            try:
                return deed()
            finally:
                self.call_later(self._ended, told)

        return done

    def _ended(self, told: Timer) -> None:
        told.stop()
        self._acts -= 1

    def notify(self, message: str, *, timeout: float | None = None, **how: Any) -> None:
        """Tell something, for as long as it takes to read it."""
        super().notify(message, timeout=timeout or max(self.NOTIFICATION_TIMEOUT, len(message) / READ), **how)

    def get_default_screen(self) -> Screen[None]:
        """The runs."""
        return HomeScreen(self.home)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: what the keys of this screen do, then what every Textual app has."""
        for key in keys.KEYS:
            if isinstance(screen, LiveScreen) and key.place == screen.place and _acts(screen, key.action):
                yield SystemCommand(f"{key.word} ({key.shown})", key.help, partial(screen.run_action, key.action))
            elif key.place == keys.EVERYWHERE and key.action != "command_palette":
                yield SystemCommand(f"{key.word} ({key.shown})", key.help, partial(self.run_action, key.action))
        for theme in THEMES:
            yield SystemCommand(f"Theme: {theme.name}", "Colours of the dashboard", partial(self._wear, theme.name))

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Do what a key or the palette asks for; a mistake of ours in it is told, and the screen stays.

        Its screen may just be opened by something else, and is waited for; or just be left, and then nothing is done.
        """
        if isinstance(default_namespace, Screen):
            if default_namespace not in self.screen_stack:
                return False
            if not default_namespace.is_mounted:
                await AwaitMount(default_namespace, [default_namespace])
        try:
            return await super().run_action(action, default_namespace, namespaces)
        except Exception as error:
            self.notify(explain(error, self.home), severity="error", markup=False)
            return True

    def action_command_palette(self) -> None:
        """Open the palette. It gets no id, since one that is just being closed still has its own."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette())

    def remember(self, **changes: Any) -> None:
        """Change settings, and keep them for the next time."""
        self.settings = replace(self.settings, **changes)
        settings.save(self.home, self.settings)

    def action_theme(self) -> None:
        """The next of our themes."""
        names = [theme.name for theme in THEMES]
        self._wear(names[(names.index(self.theme) + 1) % len(names)])

    def _wear(self, theme: str) -> None:
        self.theme = theme
        self.remember(theme=theme)

    def action_low_bandwidth(self) -> None:
        """Draw at most once a second, or as soon as there is something new."""
        self.low_bandwidth = not self.low_bandwidth
        self.remember(low_bandwidth=self.low_bandwidth)
        said = "low bandwidth: drawn at most once a second" if self.low_bandwidth else "drawn as soon as there is news"
        self.notify(said)

    def action_help(self) -> None:
        """Show the keys."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())


def _acts(screen: Screen[Any], action: str) -> bool:
    """Whether an action is one now: a key may belong to another tab or step of its screen."""
    name, _, given = action.partition("(")
    parameters = (given.removesuffix(")").strip("'"),) if given else ()
    return bool(screen.check_action(name, parameters))
