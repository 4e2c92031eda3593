"""What the selected run is doing: stage, losses, accuracies, two sparklines, the end of its log."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Sparkline, Static

from trainctl.cli import words
from trainctl.cli.common import printable
from trainctl.tui.feed.log import SILENT
from trainctl.tui.feed.selected import Selected
from trainctl.tui.text import method, status


class Panel(Vertical):
    """Beside or below the table."""

    _selected: Selected | None = None

    def on_resize(self) -> None:
        """Show as much of the log as there is room for, once the room is known."""
        self.call_after_refresh(lambda: self.show(self._selected))

    def compose(self) -> ComposeResult:
        """Facts, two lines of sparklines, log."""
        yield Static(id="facts", markup=False)
        for number in (0, 1):
            with Horizontal(classes="spark"):
                yield Static(id=f"spark-name-{number}", classes="spark-name", markup=False)
                yield Sparkline([], id=f"spark-{number}")
        yield Static(id="log-tail", markup=False)

    def show(self, selected: Selected | None) -> None:
        """Show a run, or nothing."""
        self._selected = selected
        self.query_one("#facts", Static).update(facts(selected) if selected else "")
        curves = selected.curves if selected else ()
        for number in (0, 1):
            name, values = curves[number] if number < len(curves) else ("", ())
            line = self.query_one(f"#spark-{number}", Sparkline)
            last = f" {values[-1]:.4g}" if values else " –"
            self.query_one(f"#spark-name-{number}", Static).update(Text(name + last if name else "", "dim"))
            line.visible = bool(values)
            if line.data != list(values):
                line.data = list(values)
        room = max(1, self.query_one("#log-tail").size.height)
        shown = "\n".join(selected.log[-room:] or (SILENT,)) if selected else ""
        self.query_one("#log-tail", Static).update(Text(shown, "dim", no_wrap=True, overflow="ellipsis"))


def facts(selected: Selected) -> Text:
    """Four lines: who, where it stands, losses, accuracies or results."""
    run = selected.run
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(printable(run.name), "bold").append(f"  {run.id}  {method(run)} · {run.dataset} · {run.model}\n", "dim")
    text.append_text(status(run))
    doing = selected.doing if selected.doing != run.status else ""
    eta = f"ETA {words.duration(selected.eta)}" if selected.eta is not None else ""
    pace = f"{run.seconds_per_epoch:.3g} s/epoch" if run.seconds_per_epoch else ""
    for part in (doing, f"epoch {run.epoch}/{run.epochs or '?'}", eta, pace):
        text.append(f" · {part}" if part else "")
    if selected.reason:
        text.append(" · " + printable(selected.reason).replace("\n", " "), "yellow")
    text.append(f"\n{selected.losses or 'no losses yet'}\n")
    text.append(printable(selected.results or selected.accuracies) or "no accuracies yet")
    return text
