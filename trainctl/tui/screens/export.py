"""The export of what the comparison shows: a file and its format."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, RadioButton, RadioSet, Static

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.tui.feed.errors import explain
from trainctl.tui.feed.export import FORMS, Form, Shown, check, export, form_of
from trainctl.tui.screens.once import OnceScreen

KEYS = "enter writes it, ↑↓ choose the format, esc leaves"


class Choice(RadioButton):
    """A radio button whose mark is empty unless it is chosen: Textual tells the two apart by colour alone."""

    BUTTON_INNER = " "

    def watch_value(self) -> None:
        """Fill the mark, or empty it."""
        self.BUTTON_INNER = "●" if self.value else " "
        super().watch_value()


class ExportScreen(ModalScreen[str], OnceScreen[str]):
    """Asks for the file; gives what to say, or "" if nothing was written."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel"),
        Binding("up", "form(-1)", show=False),
        Binding("down", "form(1)", show=False),
    ]
    DEFAULT_CSS = """
    ExportScreen {
        Input { margin: 1 0; }
        RadioSet { border: none; padding: 0; background: transparent; width: 100%; height: auto; }
        #answer { height: auto; max-height: 4; margin-top: 1; color: $text-muted; }
        #answer.-wrong { color: $text-error; }
    }
    """

    def __init__(self, home: Home, shown: Shown, form: Form) -> None:
        """`form` is the format that is chosen at first."""
        super().__init__()
        self._home, self._what, self._form = home, shown, form
        self._refused: tuple[Path, Form] | None = None

    def compose(self) -> ComposeResult:
        """The name, the formats, and what is wrong."""
        with Vertical(classes="dialog"):
            yield Static(Text("Export what is shown to a file", "bold"), markup=False)
            yield Input(f"{self._what.tab}{self._form.ending}", id="file", compact=True)
            with RadioSet(compact=True):
                for form in FORMS:
                    yield Choice(Text(form.said), form is self._form, compact=True)
            yield Static(KEYS, id="answer", markup=False)

    def on_mount(self) -> None:
        """The name has the focus, and the keys choose the format from there."""
        self.query_one(RadioSet).can_focus = False
        self.query_one(Input).focus()

    def action_form(self, by: int) -> None:
        """The format above or below."""
        self._button((FORMS.index(self._form) + by) % len(FORMS)).value = True

    def on_radio_set_changed(self, event: RadioSet.Changed) -> None:
        """Give the name the ending of the format."""
        self._form = FORMS[event.index]
        field = self.query_one(Input)
        path = Path(field.value.strip() or self._what.tab)
        if path.suffix.lower() != self._form.ending:
            known = form_of(path)
            field.value = str(path.with_suffix(self._form.ending) if known else f"{path}{self._form.ending}")
            field.cursor_position = len(field.value)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Choose the format by the ending of the name, and say if there is none."""
        path = Path(event.value.strip())
        found = form_of(path)
        if found and found.ending != self._form.ending:
            self._form = found
            self._button(FORMS.index(found)).value = True
        try:
            check(path, self._form)
        except UsageError as error:
            self._say(explain(error), wrong=True)
        else:
            self._say(KEYS)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Write, on a thread: a disk may be slow, and a figure takes a second."""
        path, form = Path(event.value.strip()), self._form
        again = self._refused == (path, form)
        self._say("writing …")
        self.run_worker(lambda: self._write(path, form, again), thread=True, exit_on_error=False, exclusive=True)

    def _write(self, path: Path, form: Form, replace: bool) -> None:
        try:
            said = export(self._home, self._what, path, form, replace=replace)
        except Exception as error:
            self.app.call_from_thread(self._tell, error, path, form)
        else:
            self.app.call_from_thread(self._done, said)

    def _done(self, said: str) -> None:
        self.dismiss(said)

    def _tell(self, error: Exception, path: Path, form: Form) -> None:
        if self.is_mounted:
            self._refused = (path, form) if isinstance(error, UsageError) and path.is_file() else None
            self._say(explain(error), wrong=True)

    def _say(self, text: str, *, wrong: bool = False) -> None:
        answer = self.query_one("#answer", Static)
        answer.update(Text(text))
        answer.set_class(wrong, "-wrong")

    def _button(self, index: int) -> RadioButton:
        return list(self.query(RadioButton))[index]

    def action_cancel(self) -> None:
        """Leave without writing."""
        self.dismiss("")
