"""What the selected run is doing: stage, losses, accuracies, two sparklines, its log. Of a group: its numbers."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Sparkline, Static

from engine.events import METRICS
from trainctl.cli import words
from trainctl.cli.common import printable
from trainctl.registry.groups import GroupLine
from trainctl.tui.feed.log import SILENT
from trainctl.tui.feed.selected import Selected
from trainctl.tui.text import color, method, one_line, spread, status


class Panel(Vertical):
    """Beside or below the table."""

    DEFAULT_CSS = """
    Panel {
        #facts { height: 4; text-wrap: nowrap; text-overflow: ellipsis; }
        .spark { height: 1; }
        .spark-name { width: 28; height: 1; }
        .spark Sparkline { width: 1fr; height: 1; }
        #log-tail { height: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
        &.-group { #facts { height: 1fr; text-wrap: wrap; } #log-tail { display: none; } }
    }
    """
    _selected: Selected | GroupLine | None = None
    _curves = -1

    def on_resize(self) -> None:
        """Show as much of the log as there is room for, once the room is known."""
        self.call_after_refresh(self._tail)

    def compose(self) -> ComposeResult:
        """Facts, two lines of sparklines, log."""
        yield Static(id="facts", markup=False)
        for number in (0, 1):
            with Horizontal(id=f"curve-{number}", classes="spark"):
                yield Static(id=f"spark-name-{number}", classes="spark-name", markup=False)
                yield Sparkline([], id=f"spark-{number}")
        yield Static(id="log-tail", markup=False)

    def show(self, selected: Selected | GroupLine | None) -> None:
        """Show a run, a group, or nothing."""
        self._selected = selected
        self.set_class(isinstance(selected, GroupLine), "-group")
        if isinstance(selected, Selected):
            written, curves = facts(selected, self.app.theme), [curve for curve in selected.curves if len(curve[1]) > 1]
        else:
            written, curves = about(selected) if selected else Text(), []
        self.query_one("#facts", Static).update(written, layout=False)  # every part has a fixed size
        for number in (0, 1):
            self.query_one(f"#curve-{number}").display = number < len(curves)
            if number < len(curves):
                name, values = curves[number]
                self.query_one(f"#spark-name-{number}", Static).update(
                    Text(f"{name} {values[-1]:.4g}", "dim"), layout=False
                )
                line = self.query_one(f"#spark-{number}", Sparkline)
                if line.data != list(values):
                    line.data = list(values)
        self._tail()
        if len(curves) != self._curves:  # the log has another room from now on
            self._curves = len(curves)
            self.call_after_refresh(self._tail)

    def _tail(self) -> None:
        """As much of the log as there is room for."""
        selected = self._selected if isinstance(self._selected, Selected) else None
        room = max(1, self.query_one("#log-tail").size.height)
        shown = "\n".join(selected.log[-room:] or (SILENT,)) if selected else ""
        self.query_one("#log-tail", Static).update(Text(shown, "dim", no_wrap=True, overflow="ellipsis"), layout=False)


def facts(selected: Selected, theme: str = "") -> Text:
    """Four lines: who, where it stands, losses, accuracies or results."""
    run = selected.run
    text = Text(no_wrap=True, overflow="ellipsis")
    about = "  ".join((run.id, " · ".join((method(run), run.dataset, run.model))))
    text.append(one_line(run.name), "bold").append(f"  {one_line(about)}\n", "dim")
    text.append_text(status(run, theme))
    doing = selected.doing if selected.doing != run.status else ""
    eta = f"ETA {words.duration(selected.eta)}" if selected.eta is not None else ""
    pace = f"{run.seconds_per_epoch:.3g} s/epoch" if run.seconds_per_epoch else ""
    for part in (doing, f"epoch {run.epoch}/{run.epochs or '?'}", eta, pace):
        text.append(f" · {part}" if part else "")
    if selected.reason:
        text.append(" · " + one_line(selected.reason), color("warn", theme))
    text.append(f"\n{selected.losses or 'no losses yet'}\n")
    text.append(printable(selected.results or selected.accuracies) or "no accuracies yet")
    return text


def about(group: GroupLine) -> Text:
    """Who, how many and how they stand, and the mean of each metric over the runs that are done."""
    text = Text()
    who = " · ".join(filter(None, (group.method, group.dataset, group.model)))
    text.append(one_line(group.label), "bold").append(f"  {one_line(who)}\n", "dim")
    text.append(f"{group.runs} run{'s' * (group.runs != 1)}: ")
    text.append(", ".join(f"{number} {name}" for name, number in group.statuses) + "\n")
    for name in METRICS:
        if name in group.metrics:
            mean, std, n = group.metrics[name]
            text.append(f"{name:<13}", "dim").append(f"{spread(mean, std):<12}").append(f" n={n}\n", "dim")
    if not group.metrics:
        text.append("no numbers yet that may be averaged", "dim")
    return text
