"""What waits and why, what works where, and how loaded the machine is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Footer, OptionList, Static

from trainctl.cli.common import printable
from trainctl.home import Home
from trainctl.launch.waiting import count
from trainctl.registry.query import RunRow
from trainctl.tui import keys
from trainctl.tui.feed import acts
from trainctl.tui.feed.machine import MachineFeed, MachineView, Waiting, Working, serve
from trainctl.tui.screens.acts import ask_to_stop
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.text import color
from trainctl.tui.themes import series
from trainctl.tui.widgets.gauges import LABEL, disk, draw, machine
from trainctl.tui.widgets.queue import QueueList, reason, where

EMPTY = """\
Nothing is at work and nothing waits.

esc leads back to the runs, where l starts new ones; or in a shell

    trainctl run digits-trades --pair --detach"""
SEGMENTS = "█▓"  # of the bar of slots, in turn, so that neighbours are told apart without colour
SLOTS = 24  # characters of it; with GPUs, half of them for these
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
        self._changes: deque[Callable[[], str]] = deque()
        self._changing = threading.Lock()

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
        warn = color("warn", self.app.theme)
        if view.paused:
            text.append(" paused: p goes on ", f"bold reverse {warn}")
        elif view.queued and view.resting == view.queued:
            text.append("held: h lets go", f"bold {warn}")
        elif view.served:
            text.append("a scheduler starts them", "not bold")
        elif view.queued:
            text.append("no scheduler: g starts one", f"bold {warn}")
        else:
            text.append("no scheduler needed", "not bold")
        return text.append(f"  {printable(view.machine.host)}:{printable(str(self.home.path))}", "dim not bold")

    def _gauges(self, view: MachineView) -> Text:
        width = self.size.width - 2
        theme = self.app.theme
        gauges = machine(view.machine, view.recent)
        height = 2 if self.size.height >= TALL and len(gauges) <= 4 else 1
        text = draw(gauges, width, (series(theme)[0], color("active", theme)), height)
        slots = self._slots(view)
        text.append("\n").append_text(slots)
        text.append("the last 5 minutes ".rjust(width - len(slots)) if width - len(slots) > SLOTS else "", "dim")
        text.append("\n" + "disk".ljust(LABEL) + disk(view.machine))
        text.append(f" · {printable(view.machine.gpus.why)}" if view.machine.gpus.why else "", "dim")
        return text

    def _slots(self, view: MachineView) -> Text:
        """How much of the cores, and of the GPUs if there are any, is taken."""
        held = [each.held for each in view.working if each.held]
        cores, gpus = view.machine.cores, len(view.gpus)
        shares, parts = [each.share for each in held], [each.part * len(each.gpus) for each in held]
        text = Text("slots".ljust(LABEL))
        text.append_text(self._bar(shares, SLOTS // 2 if gpus else SLOTS))
        text.append(f"  {count(sum(shares), cores)} of {cores} cores taken")
        if gpus:
            text.append("  ").append_text(self._bar([part / gpus for part in parts], SLOTS // 2))
            text.append(f"  {sum(parts):.3g} of {gpus} GPUs taken")
        return text

    def _bar(self, parts: Sequence[float], width: int) -> Text:
        """A bar of which each of `parts` (of 1) takes its own."""
        text, free = Text(), width
        for number, part in enumerate(part for part in parts if part):
            wide = min(free, max(1, round(part * width)))
            text.append(SEGMENTS[number % 2] * wide, series(self.app.theme)[number % 2])
            free -= wide
        return text.append("░" * free, "dim")

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
                text.append(printable(waits.run.name), "bold").append(f"  {chosen}\n{reason(waits)}", "not bold")
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

    def action_pause(self) -> None:
        """Pause the queue, or let it go on."""
        if self._view:
            deed, home = acts.go_on if self._view.paused else acts.pause, self.home
            self._change(lambda: deed(home))

    def action_hold(self) -> None:
        """Hold the chosen run, or let it go."""
        if waits := self._chosen_of_queue():
            home, run, on = self.home, waits.run.id, not waits.place.held
            self._change(lambda: acts.hold(home, [run], on))

    def action_move(self, to: str) -> None:
        """Move the chosen run in the queue; `to` is one of launch.queue.DIRECTIONS."""
        if waits := self._chosen_of_queue():
            home, run = self.home, waits.run.id
            self._change(lambda: acts.move(home, run, to))

    def action_raise(self, by: int) -> None:
        """Raise the priority of the chosen run by so much."""
        if waits := self._chosen_of_queue():
            home, run = self.home, waits.run.id
            self._change(lambda: acts.prioritize(home, [run], by))

    def _change(self, deed: Callable[[], str]) -> None:
        """Do something to the queue: one after the other, in the order of the keys, whichever thread is first."""
        self._changes.append(deed)

        def oldest() -> str:
            with self._changing:
                return self._changes.popleft()()

        self.act(oldest)

    def on_live_screen_acted(self, message: LiveScreen.Acted) -> None:
        """Of many acts the last is told: notices of each press of a key would pile up over the list."""
        self.app.call_later(self.app.clear_notifications)  # as notices are: the app gets them in this order

    def action_back(self) -> None:
        """Back to where one came from."""
        self.dismiss()

    def _chosen(self) -> RunRow | None:
        found = self._under_cursor()
        return found.run if found else None

    def _chosen_of_queue(self) -> Waiting | None:
        found = self._under_cursor()
        if isinstance(found, Working):
            said = f"{found.run.name} does not wait: it is {found.run.status}"
            self.notify(printable(said), severity="warning", markup=False)
        return found if isinstance(found, Waiting) else None

    def _under_cursor(self) -> Working | Waiting | None:
        chosen = self.query_one(QueueList).selected
        shown: list[Working | Waiting] = [*self._view.working, *self._view.waiting] if self._view else []
        found = next((each for each in shown if each.run.id == chosen), None)
        if found is None:
            self.notify("there is no run under the cursor", severity="warning", markup=False)
        return found
