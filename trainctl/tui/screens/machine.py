"""What waits and why, what works where, and how loaded the machine is."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Footer, OptionList, Static

from trainctl.cli.common import printable
from trainctl.home import Home
from trainctl.launch.waiting import count
from trainctl.registry.query import RunRow
from trainctl.tui import keys
from trainctl.tui.feed.machine import MachineFeed, MachineView, Waiting, Working, serve
from trainctl.tui.screens.acts import ask_to_stop
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.text import color
from trainctl.tui.themes import series
from trainctl.tui.widgets.gauges import LABEL, disk, draw, machine
from trainctl.tui.widgets.queue import QueueList, where

EMPTY = """\
Nothing is at work and nothing waits.

esc leads back to the runs, where l starts new ones; or in a shell

    trainctl run digits-trades --pair --detach"""
SEGMENTS = "█▓"  # of the bar of slots, in turn, so that neighbours are told apart without colour
SLOTS = 24  # characters of it
TALL = 34  # lines of a terminal where sparklines are two lines high


class MachineScreen(LiveScreen):
    """Queue and machine."""

    DEFAULT_CSS = """
    MachineScreen {
        #title { height: 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
        #gauges { height: auto; max-height: 50%; padding: 0 1; margin-bottom: 1; }
        #nothing { height: 1fr; padding: 1 4; }
        #chosen { height: 3; padding: 0 1; border-top: solid $panel; }
    }
    """
    BINDINGS = keys.bindings(keys.MACHINE)
    place = keys.MACHINE
    period = 1.0

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home
        self._feed: MachineFeed | None = None
        self._view: MachineView | None = None

    def compose(self) -> ComposeResult:
        """Title, gauges, the list, what is said of the chosen run, footer."""
        yield Static(id="title", markup=False)
        yield Static(id="gauges", markup=False)
        yield QueueList()
        yield Static(Text(EMPTY), id="nothing", markup=False)
        yield Static(id="chosen", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Nothing is shown before the first answer."""
        for name in ("#queue", "#nothing", "#chosen"):
            self.query_one(name).display = False

    def question(self) -> Callable[[], MachineView]:
        """The queue and the machine."""
        if self._feed is None:
            self._feed = MachineFeed(self.home, self.app.watcher.look)
        return self._feed.view

    def show(self, answer: MachineView) -> None:
        """Show them."""
        self._view = answer
        some = bool(answer.working or answer.queued)
        self.query_one("#title", Static).update(self._title(answer))
        self.query_one("#gauges", Static).update(self._gauges(answer))
        queue = self.query_one(QueueList)
        queue.display = self.query_one("#chosen").display = some
        self.query_one("#nothing").display = not some
        queue.show(answer)
        if some and self.focused is None:
            queue.focus()
        self._say_chosen()

    def on_resize(self) -> None:
        """The gauges fill the width."""
        if self._view:
            self.query_one("#gauges", Static).update(self._gauges(self._view))

    def _title(self, view: MachineView) -> Text:
        text = Text(" Queue and machine ", "bold", no_wrap=True, overflow="ellipsis")
        text.append(f"{len(view.working)} at work · {view.queued} waiting · ", "not bold")
        if view.served:
            text.append("a scheduler starts them", "not bold")
        elif view.queued:
            text.append("no scheduler: g starts one", f"bold {color('warn', self.app.theme)}")
        else:
            text.append("no scheduler needed", "not bold")
        return text.append(f"  {printable(view.machine.host)}:{printable(str(self.home.path))}", "dim not bold")

    def _gauges(self, view: MachineView) -> Text:
        width = self.size.width - 2
        theme = self.app.theme
        gauges = machine(view.machine, view.recent)
        height = 2 if self.size.height >= TALL and len(gauges) <= 4 else 1
        text = draw(gauges, width, (series(theme)[0], color("active", theme)), height)
        held = [each.held for each in view.working if each.held]
        taken, cores = sum(each.share for each in held), view.machine.cores
        text.append("\n" + "slots".ljust(LABEL))
        free = SLOTS
        for number, each in enumerate(each for each in held if each.share):
            part = min(free, max(1, round(each.share * SLOTS)))
            text.append(SEGMENTS[number % 2] * part, series(theme)[number % 2])
            free -= part
        said = f"{count(taken, cores)} of {cores} cores taken"
        if view.gpus:
            said += f" · {len({each.gpu for each in held if each.gpu})} of {len(view.gpus)} GPUs taken"
        text.append("░" * free, "dim").append(f"  {said}")
        text.append("the last 5 minutes ".rjust(width - LABEL - SLOTS - 2 - len(said)), "dim")
        text.append("\n" + "disk".ljust(LABEL) + disk(view.machine))
        text.append(f" · {printable(view.machine.gpus.why)}" if view.machine.gpus.why else "", "dim")
        return text

    def _say_chosen(self) -> None:
        """What the list has no room for."""
        view, chosen = self._view, self.query_one(QueueList).selected
        text = Text(no_wrap=True, overflow="ellipsis")
        for each in view.working if view else ():
            if each.run.id == chosen and view:
                text.append(printable(each.run.name), "bold").append(f"  {chosen}  {where(each, view)}\n", "not bold")
                if load := each.process:
                    many = f" · {load.processes} processes" if load.processes > 1 else ""
                    text.append(f"pid {load.pid} · {load.threads} threads{many}", "dim not bold")
                elif each.host:
                    text.append(f"it works on {each.host}; stop it there", "dim not bold")
        for waits in view.waiting if view else ():
            if waits.run.id == chosen:
                text.append(printable(waits.run.name), "bold").append(f"  {chosen}\n{waits.why}", "not bold")
        self.query_one("#chosen", Static).update(text)

    @on(OptionList.OptionHighlighted)
    def _moved(self) -> None:
        self._say_chosen()

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        """Open the chosen run."""
        from trainctl.tui.screens.run import RunScreen

        if run := self._chosen():
            self.app.push_screen(RunScreen(self.home, run.id))

    def action_stop(self) -> None:
        """Ask whether the chosen run is to stop, or its place in the queue to be given up."""
        if run := self._chosen():
            ask_to_stop(self, self.home, [run])

    def action_serve(self) -> None:
        """Start a scheduler for what waits."""
        if self._view and not self._view.queued:
            self.notify("nothing waits, so no scheduler is needed", severity="warning")
            return
        home = self.home
        self.act(lambda: serve(home))

    def action_back(self) -> None:
        """Back to where one came from."""
        self.dismiss()

    def _chosen(self) -> RunRow | None:
        chosen = self.query_one(QueueList).selected
        shown: list[Working | Waiting] = [*self._view.working, *self._view.waiting] if self._view else []
        run = next((each.run for each in shown if each.run.id == chosen), None)
        if run is None:
            self.notify("there is no run under the cursor", severity="warning", markup=False)
        return run
