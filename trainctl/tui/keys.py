"""The one table of keys: the bindings, the help screen and the command palette are made from it."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType

EVERYWHERE, HOME, RUN, COMPARE = "Everywhere", "Runs", "One run", "Comparison"
LAUNCH, MACHINE = "Launch", "Queue and machine"
PLACES = (HOME, LAUNCH, RUN, COMPARE, MACHINE, EVERYWHERE)
"""In the order of the help."""


@dataclass(frozen=True)
class Key:
    """A key on a place, the action it calls, its word in the footer, and its line of help."""

    place: str
    keys: str
    shown: str
    action: str
    word: str
    help: str
    footer: bool = True


KEYS = (
    Key(HOME, "enter", "⏎", "open", "Open", "Open the selected run: curves, log, recipe"),
    Key(HOME, "slash", "/", "filter", "Filter", "Filter, as natural>80 and method=trades; esc clears it"),
    Key(HOME, "c", "c", "compare", "Compare", "Compare baselines with their +TRAIN twins"),
    Key(HOME, "s", "s", "stop", "Stop", "Stop the run after a checkpoint; once more kills it"),
    Key(HOME, "r", "r", "resume", "Resume", "Go on with a stopped, failed or lost run"),
    Key(RUN, "escape", "esc", "back", "Back", "Back to the runs"),
    Key(RUN, "1", "1", "tab('curves')", "Curves", "Curves, with the twin of the pair and the same seed"),
    Key(RUN, "2", "2", "tab('log')", "Log", "What it printed; follows unless you scroll up"),
    Key(RUN, "3", "3", "tab('recipe')", "Recipe", "Its resolved recipe, numbers, folder and command"),
    Key(RUN, "s", "s", "stop", "Stop", "Stop this run"),
    Key(RUN, "r", "r", "resume", "Resume", "Go on with this run"),
    Key(COMPARE, "escape", "esc", "back", "Back", "Back to the runs"),
    Key(COMPARE, "b", "b", "checkpoint", "Best/last", "Compare the best or the last checkpoints"),
    Key(COMPARE, "e", "e", "export", "Export", "Write the table as markdown (.md) or LaTeX (.tex)"),
    Key(EVERYWHERE, "t", "t", "theme", "Theme", "The next theme: dark, light, colour-blind", footer=False),
    Key(
        EVERYWHERE, "f2", "F2", "low_bandwidth", "Low bandwidth", "Draw once a second, or at once", footer=False
    ),
    Key(EVERYWHERE, "question_mark", "?", "help", "Help", "This help"),
    Key(EVERYWHERE, "ctrl+p", "^p", "command_palette", "Palette", "All commands, and more themes", footer=False),
    Key(EVERYWHERE, "q", "q", "quit", "Quit", "Leave; runs go on"),
)


def bindings(place: str) -> list[BindingType]:
    """Bindings of a screen, or of the whole app (EVERYWHERE)."""
    return [binding(key) for key in KEYS if key.place == place]


def binding(key: Key, action: str = "") -> Binding:
    """The binding of one key, for a widget that calls its action by another name too."""
    return Binding(key.keys, action or key.action, key.word, key_display=key.shown, tooltip=key.help, show=key.footer)
