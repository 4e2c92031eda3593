"""Three ways to show runs that are followed: live on a terminal, as plain lines, and as JSON lines.

Live and plain go to stderr, so that a pipe on stdout carries results only.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from trainctl.cli import words
from trainctl.cli.common import console, emit_json, note, printable
from trainctl.launch.follow import Follower

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

BAR = 12  # cells of a progress bar; the rest of 80 columns belongs to the name
Fresh = Sequence[tuple[Follower, dict[str, Any]]]


class View(Protocol):
    """Something that shows runs."""

    def show(self, runs: Sequence[Follower], fresh: Fresh) -> None:
        """Show how the runs stand; `fresh` are the events that are new."""

    def close(self) -> None:
        """Leave what was shown last, and give the terminal back."""


def choose(as_json: bool) -> View:
    """The view that fits to where stderr goes."""
    if as_json:
        return JsonView()
    return LiveView() if sys.stderr.isatty() else PlainView()


class JsonView:
    """Each event of each run as a line on stdout."""

    def show(self, runs: Sequence[Follower], fresh: Fresh) -> None:
        """Print the fresh events."""
        for run, event in fresh:
            emit_json({"run": run.run.id, **event}, line=True)

    def close(self) -> None:
        """Nothing to give back."""


class PlainView:
    """A line for each epoch, evaluation, warning and change of status."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def show(self, runs: Sequence[Follower], fresh: Fresh) -> None:
        """Print what is new."""
        for run, event in fresh:
            if text := _line(event, run):
                note(f"{run.name}: {text}")
        for run in runs:
            now = words.state(run.status, run.progress)
            if self._states.get(run.run.id) != now and (run.status != "lost" or run.ended):
                self._states[run.run.id] = now
                why = run.reason() if run.ended and run.status != "done" else ""
                note(f"{run.name}: {now}{f': {why}' if why else ''}")

    def close(self) -> None:
        """Nothing to give back."""


def _line(event: dict[str, Any], run: Follower) -> str:
    kind = event["event"]
    if kind == "epoch":
        latest = {key: float(value) for key, value in event.items() if isinstance(value, (int, float))}
        about = [words.losses(latest), words.training(latest), words.selection(latest), words.speed(latest)]
        eta = run.progress.eta()
        about.append(f"eta {words.duration(eta)}" if eta else "")
        return ", ".join(
            [f"epoch {event.get('epoch')}/{event.get('epochs', run.progress.epochs)}", *filter(None, about)]
        )
    if kind == "eval":
        value = event.get("value")
        shown = f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
        return f"{event.get('checkpoint')}: {event.get('metric')} {shown} (n = {event.get('n')})"
    if kind == "warning":
        return f"warning: {event.get('message')}"
    return ""


class LiveView:
    """Two lines a run, redrawn in place: what it does with its progress, and its newest numbers."""

    def __init__(self) -> None:
        from rich.live import Live

        self._terminal = sys.stderr.isatty()
        self._console = console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False)
        self._live.start()
        self._drawn = 0.0
        self._states: list[tuple[str, bool]] = []
        self._began = time.monotonic()

    def show(self, runs: Sequence[Follower], fresh: Fresh) -> None:
        """Draw again if there is news, and once a second for the clocks; OSError once the terminal has gone."""
        if self._terminal and not sys.stderr.isatty():  # Rich would write nothing and go on, as into a file
            raise OSError(errno.EIO, "the terminal has gone")
        for run, event in fresh:
            if event["event"] == "warning":
                self._console.print(f"{run.name}: {_line(event, run)}", style="yellow")
        states = [(run.status, run.ended) for run in runs]  # the last of them comes without an event
        if fresh or states != self._states or time.monotonic() - self._drawn > 1.0:
            self._states = states
            self._live.update(self.render(runs), refresh=True)
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Leave the last picture standing."""
        self._live.stop()

    def render(self, runs: Sequence[Follower]) -> Group:
        """The picture, cut to the height of the terminal: those at work first, then the newest of the ended."""
        from rich.console import Group
        from rich.text import Text

        room = max(1, (self._console.height - 4) // 2)
        order = sorted(runs, key=lambda run: (run.ended, run.status == "queued", -run.progress.t if run.ended else 0))
        shown = set(map(id, order[:room]))
        parts: list[RenderableType] = []
        for run in runs:
            if id(run) in shown:
                parts += [_head(run), _numbers(run)]
        if len(runs) > room:
            parts.append(Text(f"… and {len(runs) - room} more", style="dim"))
        parts.append(self._overall(runs))
        return Group(*parts)

    def _overall(self, runs: Sequence[Follower]) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        ended = sum(run.ended for run in runs)
        share = sum(1.0 if run.ended else run.progress.share for run in runs) / max(1, len(runs))
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        row.add_column(width=BAR)
        row.add_column(justify="right", no_wrap=True)
        legend = "loss = robust + topology; natural/robust in %"
        clock = words.duration(time.monotonic() - self._began)
        row.add_row(Text(legend, style="dim"), _bar(share), Text(f"{ended}/{len(runs)} runs  {clock}"))
        return row


def _bar(share: float) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=1.0, completed=share, width=BAR)


def _head(run: Follower) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    progress = run.progress
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    row.add_column(width=13, no_wrap=True)
    row.add_column(width=BAR)
    row.add_column(width=7, justify="right", no_wrap=True)
    row.add_column(width=11, justify="right", no_wrap=True)
    eta = progress.eta() if run.status == "running" else None
    trains = progress.stage in ("train", "pretrain")
    row.add_row(
        Text(printable(run.name), style="bold"),
        Text(words.state(run.status, progress), style=words.STYLES.get(run.status, "")),
        _bar(1.0 if run.status == "done" or progress.stage == "evaluate" else progress.share),
        Text(f"{progress.epoch}/{progress.epochs}" if progress.epochs and trains else ""),
        Text(f"eta {words.duration(eta)}" if eta is not None else ""),
    )
    return row


def _numbers(run: Follower) -> RenderableType:
    from rich.text import Text

    progress = run.progress
    if run.ended and run.status != "done":
        text = run.reason()
    elif progress.evals:
        text = " │ ".join(f"{checkpoint}: {words.results(values)}" for checkpoint, values in progress.evals.items())
    else:
        latest = progress.latest
        parts = (words.losses(latest), words.selection(latest), words.training(latest), words.speed(latest))
        text = " · ".join(filter(None, parts))
    return Text("  " + printable(text).replace("\n", " "), style="dim", no_wrap=True, overflow="ellipsis")
