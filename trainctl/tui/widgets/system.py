"""What one run takes of the machine, and how loaded the machine is, with the last minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.text import Text
from textual import work
from textual.message import Message
from textual.widget import Widget

from trainctl.cli.common import printable
from trainctl.home import Home
from trainctl.launch.machine import ProcessLoad
from trainctl.tui.feed.errors import explain
from trainctl.tui.feed.machine import SystemView, sampler
from trainctl.tui.text import color, short_duration
from trainctl.tui.themes import series
from trainctl.tui.widgets.gauges import LABEL, Gauge, disk, draw, machine, size

PERIOD = 1.0  # seconds
HIGHEST = 4  # lines of a sparkline


class SystemPanel(Widget):
    """Asks each second while it is seen; draws what `show` was given in whatever space there is."""

    DEFAULT_CSS = "SystemPanel { height: 1fr; width: 1fr; padding: 0 1; }"

    @dataclass
    class Answered(Message):
        """The loads were measured."""

        view: SystemView

    @dataclass
    class Failed(Message):
        """They could not be."""

        error: Exception

    def __init__(self, home: Home, run_id: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._home, self._run = home, home.run(run_id)
        self._view: SystemView | None = None
        self._wrong = ""
        self._busy = False

    def on_mount(self) -> None:
        """Begin to ask."""
        self.set_interval(PERIOD, self.load)

    def on_show(self) -> None:
        """Ask at once when its tab is opened."""
        self.load()

    def load(self) -> None:
        """Ask, if it is seen and no question is under way."""
        if not self._busy and self.screen.is_current and self.is_on_screen:
            self._busy = True
            self._ask()

    @work(thread=True, exit_on_error=False)
    def _ask(self) -> None:
        try:
            self.post_message(self.Answered(sampler(self._home).system(self._run)))
        except Exception as error:
            self.post_message(self.Failed(error))

    def on_system_panel_answered(self, message: Answered) -> None:
        """Draw it."""
        message.stop()
        self._busy = False
        self.show(message.view)

    def on_system_panel_failed(self, message: Failed) -> None:
        """Say it in the place of the loads."""
        message.stop()
        self._busy, self._wrong = False, explain(message.error, self._home)
        self.refresh()

    def show(self, view: SystemView) -> None:
        """Draw `view`; nothing is sent to the terminal if nothing changed."""
        if view != self._view or self._wrong:
            self._view, self._wrong = view, ""
            self.refresh()

    def render(self) -> Text:
        """Two parts: the run and the machine."""
        view = self._view
        if self._wrong or view is None:
            return Text(self._wrong or "measuring …", "dim")
        own, whole = _own(view), machine(view.machine, view.recent)
        rows = self.size.height - 7  # two titles, two lines between, the disk
        height = max(1, min(HIGHEST, rows // max(1, len(own) + len(whole))))
        colors = (series(self.app.theme)[0], color("active", self.app.theme))
        text = Text(no_wrap=True, overflow="ellipsis").append("This run", "bold")
        if view.process:
            text.append(f"  {_who(view.process)}", "dim").append(
                "the last 5 minutes".rjust(self._left(view)) + "\n", "dim"
            )
            text.append_text(draw(own, self.size.width, colors, height, whole))
        else:
            text.append(f"\n{view.absent}")
        text.append("\n\nThe machine", "bold").append(f"  {printable(view.machine.host)}\n", "dim")
        text.append_text(draw(whole, self.size.width, colors, height, own))
        text.append("\n" + "disk".ljust(LABEL) + disk(view.machine))
        return text.append(f" · {printable(view.machine.gpus.why)}" if view.machine.gpus.why else "", "dim")

    def _left(self, view: SystemView) -> int:
        """Characters that are left in the first line."""
        return self.size.width - len("This run  ") - (len(_who(view.process)) if view.process else 0)


def _own(view: SystemView) -> list[Gauge]:
    """Gauges of the run's processes."""
    process, cores = view.process, view.machine.cores
    if process is None:
        return []
    used = process.cpu or 0.0
    said = "–" if process.cpu is None else f"{used:.0f} % of {100 * cores} %"
    memory, total = view.recent.get("run memory", ()), view.machine.memory_total
    most = max((value for value in memory if value is not None), default=0.0)
    gauges = [
        Gauge("CPU", used / (100 * cores), said, view.recent.get("run cpu", ()), 100.0 * cores),
        # A run takes little of a large memory, so its sparkline ends at its own highest value.
        Gauge(
            "memory",
            process.memory / total if total else None,
            f"{size(process.memory)}, at most {size(int(most))}",
            memory,
            most,
        ),
    ]
    if process.gpu_memory is not None:
        held = sum(found.memory_total or 0 for found in view.machine.gpus.found)
        share = process.gpu_memory / held if held else None
        values = view.recent.get("run gpu memory", ())
        top = max((value for value in values if value is not None), default=0.0)
        gauges.append(Gauge("GPU mem", share, size(process.gpu_memory), values, top))
    return gauges


def _who(process: ProcessLoad) -> str:
    many = f" · {process.processes} processes" if process.processes > 1 else ""
    since = short_duration(time.time() - process.started)
    return f"pid {process.pid} · {process.threads} threads{many} · since {since}"
