"""Two lines below a filter: what is wrong with it and where, or what it may ask for."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from trainctl.tui.feed.runs import Mistake
from trainctl.tui.text import one_line

FILTER_HELP = (
    "fields: method, seed, status, natural, aa, tags, optim.lr, …; also an id, a name, tag:x, recipe:x",
    "enter keeps the filter, esc clears it",
)


class FilterHint(Static):
    """Stands below the line that is typed in, so that its caret points at the mistake."""

    DEFAULT_CSS = """
    FilterHint {
        width: 1fr; height: 2; padding: 0 0 0 2; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis;
        &.-wrong { color: $text-error; }
    }
    """

    def say(self, mistake: Mistake | None, typed: str) -> None:
        """Tell of a mistake in `typed`, or help."""
        self.set_class(mistake is not None, "-wrong")
        if mistake is None:
            self._lines("\n".join(FILTER_HELP))
            return
        text, at = one_line(mistake.text), mistake.at
        if at is not None:
            at += len(typed) - len(typed.lstrip())
        if at is not None and at + len(text) + 2 > self.size.width - 2 and at > len(text):
            first = f"{text} ^".rjust(at + 1)  # what does not fit behind the caret stands before it
        else:
            first = text if at is None else " " * at + f"^ {text}"
        self._lines(f"{first}\n{one_line(mistake.hint)}")

    def _lines(self, text: str) -> None:
        self.update(Text(text, no_wrap=True, overflow="ellipsis"), layout=False)
