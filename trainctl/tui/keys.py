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
    Key(HOME, "enter", "⏎", "open", "Open", "Open the run: curves, log, recipe; open or close a group"),
    Key(HOME, "slash", "/", "filter", "Filter", "Filter, as natural>80 and method=trades"),
    Key(HOME, "escape", "esc", "clear", "Clear", "Clear the filter; without one, the marks", footer=False),
    Key(HOME, "space", "␣", "mark", "Mark", "Mark the run or the group, for what follows"),
    Key(HOME, "a", "a", "mark_all", "Mark all", "Mark all that fit the filter, or none", footer=False),
    Key(HOME, "l", "l", "launch", "Launch", "Choose a recipe and launch it"),
    Key(HOME, "c", "c", "compare", "Compare", "Compare the marked runs; without marks, baselines with their twins"),
    Key(HOME, "m", "m", "machine", "Queue", "The queue and the machine"),
    Key(HOME, "s", "s", "act('stop')", "Stop", "Stop after a checkpoint; once more kills"),
    Key(HOME, "r", "r", "act('resume')", "Resume", "Go on with stopped, failed or lost runs", footer=False),
    Key(HOME, "R", "R", "act('retry')", "Retry", "Train ended runs anew, from epoch 0", footer=False),
    Key(HOME, "number_sign", "#", "act('tag')", "Tag", "Put tags on, or take them off", footer=False),
    Key(HOME, "n", "n", "act('note')", "Note", "Write a note", footer=False),
    Key(HOME, "A", "A", "act('archive')", "Archive", "Hide runs, or bring archived ones back", footer=False),
    Key(HOME, "D,delete", "D", "act('delete')", "Delete", "Delete runs, after a question", footer=False),
    Key(HOME, "h", "h", "archived", "Archived", "Show archived runs too, or hide them", footer=False),
    Key(HOME, "g", "g", "group", "Group", "Group by recipe, by pair, by all but the seed, or not", footer=False),
    Key(HOME, "right", "→", "unfold", "Open group", "Open the group", footer=False),
    Key(HOME, "left", "←", "fold", "Close group", "Close the group", footer=False),
    Key(HOME, "greater_than_sign", ">", "sort(1)", "Sort by next", "Sort by the next column", footer=False),
    Key(HOME, "less_than_sign", "<", "sort(-1)", "Sort by last", "Sort by the column before", footer=False),
    Key(HOME, "minus", "-", "reverse", "Reverse", "Sort the other way round", footer=False),
    Key(HOME, "o", "o", "columns", "Columns", "Choose the columns and their order", footer=False),
    Key(LAUNCH, "escape", "esc", "back", "Back", "Back a step; what was typed stays"),
    Key(LAUNCH, "enter", "⏎", "choose", "Choose", "Recipe: see and change its settings"),
    Key(LAUNCH, "enter", "⏎", "edit", "Edit", "Settings: type another value, as --set takes it"),
    Key(LAUNCH, "enter", "⏎", "start", "Start", "Start: queue the runs that are shown"),
    Key(LAUNCH, "slash", "/", "filter", "Filter", "Filter the recipes or the fields; a path opens a file"),
    Key(LAUNCH, "p", "p", "pair", "Pair", "The baseline and its +TRAIN twin"),
    Key(LAUNCH, "space", "␣", "next", "Next", "Settings: the next of a field's choices"),
    Key(LAUNCH, "r", "r", "reset", "Reset", "Settings: what the recipe has"),
    Key(LAUNCH, "ctrl+s", "^s", "review", "Review", "What exactly would start"),
    Key(LAUNCH, "ctrl+s", "^s", "start", "Start", "Start: the same as enter", footer=False),
    Key(LAUNCH, "y", "y", "copy", "Copy", "Start: copy the equivalent command"),
    Key(RUN, "escape", "esc", "back", "Back", "Back to the runs"),
    Key(
        RUN,
        "1",
        "1",
        "tab('curves')",
        "Curves",
        "Curves, with those of the pair's other run of the same seed",
        footer=False,
    ),
    Key(RUN, "2", "2", "tab('log')", "Log", "What it printed; follows unless you scroll up", footer=False),
    Key(RUN, "3", "3", "tab('recipe')", "Recipe", "Its resolved recipe, note, tags, folder and command", footer=False),
    Key(
        RUN,
        "4",
        "4",
        "tab('results')",
        "Results",
        "Evaluations and their threat models, checkpoints, attempts",
        footer=False,
    ),
    Key(RUN, "5", "5", "tab('system')", "System", "What it takes of the machine, and its environment", footer=False),
    Key(RUN, "tab", "⇥", "next_chart(1)", "Next", "Curves: the next chart"),
    Key(RUN, "shift+tab", "⇤", "next_chart(-1)", "Previous", "Curves: the chart before", footer=False),
    Key(RUN, "enter,z", "⏎", "enlarge", "Large", "Curves: give the chart all the room, and back"),
    Key(RUN, "x", "x", "unit", "Axis", "Curves: x counts epochs, steps or time"),
    Key(RUN, "l", "l", "log_scale", "Log y", "Curves: log scale of y in the focused chart"),
    Key(RUN, "m", "m", "smooth", "Smooth", "Curves: smooth with a half-life of 1, 3 or 10 % of the range, or not"),
    Key(RUN, "left", "←", "cursor(-1)", "Cursor", "Curves: values at a cursor; a click sets it", footer=False),
    Key(RUN, "right", "→", "cursor(1)", "Cursor", "Curves: move the cursor right", footer=False),
    Key(
        RUN,
        "plus,equals_sign",
        "+",
        "zoom(0.5)",
        "Zoom in",
        "Curves: zoom in at the cursor; so does the wheel",
        footer=False,
    ),
    Key(RUN, "minus", "-", "zoom(2.0)", "Zoom out", "Curves: zoom out", footer=False),
    Key(RUN, "shift+left", "⇧←", "pan(-0.25)", "Pan left", "Curves: move to the left", footer=False),
    Key(RUN, "shift+right", "⇧→", "pan(0.25)", "Pan right", "Curves: move to the right", footer=False),
    Key(RUN, "0", "0", "reset", "Reset", "Curves: show all, without a cursor", footer=False),
    Key(RUN, "o", "o", "overlay", "Overlay", "Curves: draw the pair's other run too, or hide it", footer=False),
    Key(RUN, "p", "p", "pair", "Pair", "Open the pair's other run", footer=False),
    Key(RUN, "c", "c", "compare", "Compare", "Compare the two runs of the pair", footer=False),
    Key(RUN, "slash", "/", "log('search')", "Search", "Log: find text or /a regular expression/; esc ends it"),
    Key(RUN, "n", "n", "log('next')", "Next match", "Log: the next line that matches", footer=False),
    Key(RUN, "N", "N", "log('previous')", "Previous match", "Log: the line before that matches", footer=False),
    Key(RUN, "f", "f", "log('follow')", "Follow", "Log: go to the end and follow it, as End does", footer=False),
    Key(RUN, "w", "w", "log('wrap')", "Wrap", "Log: wrap long lines; else left and right scroll"),
    Key(RUN, "s", "s", "act('stop')", "Stop", "Stop after a checkpoint; once more kills"),
    Key(RUN, "r", "r", "act('resume')", "Resume", "Go on with this run", footer=False),
    Key(RUN, "R", "R", "act('retry')", "Retry", "Train this run anew, from epoch 0", footer=False),
    Key(RUN, "n", "n", "act('note')", "Note", "Write a note (outside the log)", footer=False),
    Key(RUN, "number_sign", "#", "act('tag')", "Tag", "Put tags on, or take them off", footer=False),
    Key(COMPARE, "escape", "esc", "back", "Back", "Back to the runs"),
    Key(COMPARE, "1", "1", "tab('pairs')", "Table", "Pairs with mean ± std, Δ and its interval", footer=False),
    Key(COMPARE, "2", "2", "tab('curves')", "Curves", "Curves over the seeds, and TRAIN − baseline", footer=False),
    Key(COMPARE, "3", "3", "tab('price')", "Price", "What TRAIN costs: time, memory, ratio", footer=False),
    Key(COMPARE, "enter", "⏎", "seeds", "Seeds", "The values seed by seed with the ids of the runs; again closes them"),
    Key(COMPARE, "slash", "/", "filter", "Filter", "Compare only runs that fit, as method=trades; esc clears it"),
    Key(COMPARE, "s", "s", "sort", "Sort", "Sort by the marked column: its Δ, +TRAIN, baseline, or as made"),
    Key(COMPARE, "S", "S", "reverse", "Worst first", "Sort the other way round", footer=False),
    Key(COMPARE, "b", "b", "checkpoint", "Best/last", "Compare the best or the last checkpoints"),
    Key(COMPARE, "e", "e", "export", "Export", "Write what is shown as markdown, LaTeX, CSV or PNG"),
    Key(COMPARE, "y", "y", "copy", "Copy", "Copy the table as markdown", footer=False),
    Key(COMPARE, "up", "↑", "move(-1)", "Previous", "The pair above", footer=False),
    Key(COMPARE, "down", "↓", "move(1)", "Next", "The pair below", footer=False),
    Key(COMPARE, "left", "←", "column(-1)", "Left", "The column, or metric of the curves, at the left", footer=False),
    Key(COMPARE, "right", "→", "column(1)", "Right", "The column, or metric of the curves, at the right", footer=False),
    Key(MACHINE, "escape", "esc", "back", "Back", "Back to where you came from"),
    Key(MACHINE, "enter", "⏎", "open", "Open", "Open the chosen run"),
    Key(MACHINE, "s", "s", "stop", "Stop", "Stop the chosen run, or take it off the queue"),
    Key(MACHINE, "p", "p", "pause", "Pause", "Pause the whole queue, or let it go on"),
    Key(MACHINE, "h", "h", "hold", "Hold", "Hold the chosen run, so that others pass it, or let it go"),
    Key(MACHINE, "K,shift+up", "K", "move('up')", "Up", "Move the chosen run up; so does ⇧↑"),
    Key(MACHINE, "J,shift+down", "J", "move('down')", "Down", "Move the chosen run down; so does ⇧↓"),
    Key(MACHINE, "F", "F", "move('first')", "First", "Make the chosen run the first of those that wait", footer=False),
    Key(MACHINE, "L", "L", "move('last')", "Last", "Make it the last", footer=False),
    Key(MACHINE, "plus,equals_sign", "+", "raise(1)", "Raise", "Raise its priority: larger ones first", footer=False),
    Key(MACHINE, "minus", "-", "raise(-1)", "Lower", "Lower its priority", footer=False),
    Key(MACHINE, "g", "g", "serve", "Scheduler", "Start a scheduler if runs wait and there is none", footer=False),
    Key(EVERYWHERE, "t", "t", "theme", "Theme", "The next theme: dark, light, colour-blind", footer=False),
    Key(EVERYWHERE, "f2", "F2", "low_bandwidth", "Low bandwidth", "Draw once a second, or at once", footer=False),
    Key(EVERYWHERE, "question_mark", "?", "help", "Help", "This help"),
    Key(EVERYWHERE, "ctrl+p", "^p", "command_palette", "Palette", "All commands by name, and each theme", footer=False),
    Key(EVERYWHERE, "q", "q", "quit", "Quit", "Leave; runs go on"),
)


def bindings(place: str) -> list[BindingType]:
    """Bindings of a screen, or of the whole app (EVERYWHERE)."""
    return [binding(key) for key in KEYS if key.place == place]


def binding(key: Key, action: str = "") -> Binding:
    """The binding of one key, for a widget that calls its action by another name too."""
    return Binding(key.keys, action or key.action, key.word, key_display=key.shown, tooltip=key.help, show=key.footer)
