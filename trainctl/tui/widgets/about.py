"""What is on record about a run, as text and tables. What comes from files is written as it stands, never as markup."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.rundir import AT_WORK
from trainctl.cli import words
from trainctl.registry.query import RunRow
from trainctl.tui.feed.records import Attempt, Checkpoint, Measured, Record, Results
from trainctl.tui.feed.selected import Selected
from trainctl.tui.text import color, file_size, method, one_line, status


def heading(selected: Selected, twin: RunRow | None, theme: str) -> Text:
    """Four lines: who, where it stands, losses, accuracies or results."""
    run = selected.run
    text = Text(no_wrap=True, overflow="ellipsis")
    who = (run.id, method(run), run.dataset, run.model, f"pair: {twin.name}" if twin else "")
    text.append(one_line(run.name), "bold").append("  " + " · ".join(map(one_line, filter(None, who))) + "\n", "dim")
    text.append_text(status(run, theme))
    stage = selected.stage if run.status in AT_WORK else ""  # an evaluation later on is a stage too
    eta = f"ETA {words.duration(selected.eta)}" if selected.eta is not None else ""
    pace = f"{run.seconds_per_epoch:.3g} s/epoch" if run.seconds_per_epoch else ""
    for part in (stage, f"epoch {run.epoch}/{run.epochs or '?'}", eta, pace, run.device):
        text.append(f" · {one_line(part)}" if part else "")
    if selected.reason:
        text.append(" · " + one_line(selected.reason), color("warn", theme))
    text.append(f"\n{one_line(selected.losses) or 'no losses yet'}\n")
    return text.append(one_line(selected.results or selected.accuracies) or "no accuracies yet")


def record(shown: Record, nothing: str) -> RenderableType:
    """Facts in two columns, and the text below."""
    if not shown.facts and not shown.text:
        return Text(nothing, "dim")
    return Group(_facts(shown.facts), Text("\n" + shown.text if shown.text else ""))


def results(shown: Results, theme: str) -> RenderableType:
    """Evaluations, checkpoints and attempts, each under its heading."""
    parts: list[RenderableType] = [Text("Evaluations", "bold")]
    parts.append(_measured(shown.measured) if shown.measured else Text(NOT_EVALUATED, "dim"))
    parts.append(Text("\nCheckpoints", "bold"))
    parts.append(_checkpoints(shown.checkpoints) if shown.checkpoints else Text(NO_CHECKPOINT, "dim"))
    parts.append(Text("\nAttempts", "bold"))
    parts.append(_attempts(shown.attempts, theme) if shown.attempts else Text("It has not been started yet.", "dim"))
    return Group(*parts)


NOT_EVALUATED = "None yet: a run is evaluated when it has been trained; `trainctl eval` does it again."
NO_CHECKPOINT = "None yet: the first is written at the end of an epoch."


def _facts(facts: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name, "dim"), Text(value))
    return table


def _table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def _measured(measured: Sequence[Measured]) -> Table:
    table = _table("checkpoint", "metric", "value", "threat model", numbers=("value",))
    before = ""
    for each in measured:
        value = Text("–" if each.value is None else f"{each.value:.2f}", "bold")
        name = "" if each.checkpoint == before else one_line(each.checkpoint)
        table.add_row(Text(name), Text(one_line(each.metric)), value, Text(each.threat, "dim"))
        before = each.checkpoint
    return table


def _checkpoints(checkpoints: Sequence[Checkpoint]) -> Table:
    table = _table("checkpoint", "size", "after", "rule", "written", numbers=("size",))
    for each in checkpoints:
        cells = (each.name, file_size(each.size), each.at, each.rule, _ago(each.age))
        table.add_row(*map(Text, cells))
    return table


def _attempts(attempts: Sequence[Attempt], theme: str) -> Table:
    table = _table("", "started", "on", "from", "ended", numbers=("",))
    for number, each in enumerate(attempts, 1):
        begun = "the beginning" if each.resumed_from is None else f"step {each.resumed_from}"
        started = datetime.fromtimestamp(each.t).strftime("%Y-%m-%d %H:%M:%S") if 0 < each.t < 1e11 else "?"
        cells = (str(number), started, one_line(each.process), begun, one_line(each.ended) or "–")
        table.add_row(*map(Text, cells))
    return table


def _ago(seconds: float) -> str:
    """In the largest unit of which there are two."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now" if seconds < 60 else "a minute ago"
