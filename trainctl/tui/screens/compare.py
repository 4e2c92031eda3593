"""The comparison of baselines with their +TRAIN twins, as `trainctl compare` prints it, and its export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static

from trainctl.cli.common import printable
from trainctl.compare.render.table import table
from trainctl.compare.rows import Comparison
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.tui import keys
from trainctl.tui.feed import comparison
from trainctl.tui.feed.errors import explain
from trainctl.tui.screens.live import LiveScreen

NOTHING = """\
Nothing to compare yet: no run is done.

A pair is a baseline and its +TRAIN twin, made by `trainctl run RECIPE --pair`."""


class CompareScreen(LiveScreen):
    """All finished pairs, or what the filter leaves."""

    place = keys.COMPARE
    BINDINGS = keys.bindings(keys.COMPARE)
    period = 5.0

    def __init__(self, home: Home, filtered: str = "") -> None:
        super().__init__()
        self.home = home
        self._filtered = filtered
        self._checkpoint = "best"
        self._compared: Comparison | None = None

    def compose(self) -> ComposeResult:
        """Title, table, footer."""
        yield Static(id="title", markup=False)
        with VerticalScroll(id="comparison"):
            yield Static("…", id="table", markup=False)
        yield Footer(show_command_palette=False)

    def question(self) -> Callable[[], Comparison]:
        """The comparison at the chosen checkpoint."""
        home, filtered, checkpoint = self.home, self._filtered, self._checkpoint
        return lambda: comparison.comparison(home, filtered, checkpoint)

    def show(self, answer: Comparison) -> None:
        """Draw the table for this width."""
        self._compared = answer
        title = Text(" compare ", "bold").append(f"{answer.checkpoint} checkpoints")
        title.append(f" · {printable(self._filtered)}" if self._filtered else " · every finished run", "dim")
        self.query_one("#title", Static).update(title)
        parts = table(answer, max(20, self.size.width - 4)) if answer.pairs or answer.alone else [Text(NOTHING)]
        self.query_one("#table", Static).update(Group(*parts))

    def on_resize(self) -> None:
        """Draw again for the new width."""
        if self._compared is not None:
            self.show(self._compared)

    def action_checkpoint(self) -> None:
        """The other checkpoint."""
        self._checkpoint = "last" if self._checkpoint == "best" else "best"
        self.load()

    def action_export(self) -> None:
        """Ask for a file, and write it."""
        shown = self._compared
        if shown is None or not (shown.pairs or shown.alone):
            self.notify("there is nothing to export yet", severity="warning", markup=False)
            return
        self.app.push_screen(ExportScreen(shown), lambda said: self.notify(said, markup=False) if said else None)

    def action_back(self) -> None:
        """Back to the runs."""
        self.dismiss()


class ExportScreen(ModalScreen[str]):
    """Asks for the file; gives what to say, or "" if nothing was written."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, compared: Comparison) -> None:
        super().__init__()
        self._compared = compared
        self._refused: Path | None = None

    def compose(self) -> ComposeResult:
        """A line for the name, and one for what is wrong with it."""
        with Vertical(classes="dialog"):
            yield Static("Export to a file: .md for markdown, .tex for LaTeX", markup=False)
            yield Input("comparison.md", id="file", compact=True)
            yield Static("enter writes it, esc leaves", id="answer", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Write, on a thread: a disk may be slow."""
        path = Path(event.value.strip()).expanduser()
        self.run_worker(
            lambda: self._write(path, path == self._refused), thread=True, exit_on_error=False, exclusive=True
        )

    def _write(self, path: Path, replace: bool) -> None:
        try:
            said = comparison.export(self._compared, path, replace=replace)
        except Exception as error:
            self.app.call_from_thread(self._tell, error, path)
        else:
            self.app.call_from_thread(self.dismiss, said)

    def _tell(self, error: Exception, path: Path) -> None:
        self._refused = path if isinstance(error, UsageError) and path.suffix.lower() in comparison.EXPORTS else None
        self.query_one("#answer", Static).update(Text(explain(error), "red"))

    def action_cancel(self) -> None:
        """Leave without writing."""
        self.dismiss("")
