"""What works and what waits, in one list under two headings."""

from __future__ import annotations

import time
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.binding import BindingType
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from trainctl.cli.common import printable
from trainctl.launch.waiting import count
from trainctl.registry.query import RunRow
from trainctl.tui import keys
from trainctl.tui.feed.machine import MachineView, Waiting, Working
from trainctl.tui.text import short_duration, status
from trainctl.tui.widgets.gauges import size

STATUS = 11  # characters
WHY = 60  # characters for what a run waits for; its name takes of the rest what it needs
HELD = "‖"
COLUMNS = (("where", 13), ("epoch", 9), ("ETA", 6), ("CPU", 6), ("memory", 8))
GPU = (("GPU mem", 8),)  # where there is room
MORE = (("threads", 7), ("pid", 8), ("since", 7))
NUMBERS = ("epoch", "ETA", "CPU", "memory", "GPU mem", "threads", "pid", "since")


class QueueList(OptionList):
    """Options are known by the id of their run; headings cannot be chosen."""

    DEFAULT_CSS = """
    QueueList {
        border: none; padding: 0 1; background: $background; height: 1fr;
        text-wrap: nowrap; text-overflow: ellipsis;
        &:focus { border: none; background: $background; background-tint: transparent; }
        & > .option-list--option-disabled { color: $text-muted; }
        & > .option-list--option-highlighted { background: $primary 25%; color: $foreground; text-style: bold; }
        &:focus > .option-list--option-highlighted { background: $primary 25%; color: $foreground; }
    }
    """
    # The list takes enter before its screen does.
    BINDINGS: ClassVar[list[BindingType]] = [
        keys.binding(key, "select") for key in keys.KEYS if (key.place, key.action) == (keys.MACHINE, "open")
    ]

    def __init__(self) -> None:
        super().__init__(id="queue", markup=False)
        self._shown: dict[str, Text] = {}
        self._view: MachineView | None = None

    @property
    def selected(self) -> str:
        """Id of the run under the cursor, or ""."""
        option = self.highlighted_option
        return (option.id or "") if option else ""

    def on_resize(self) -> None:
        """Give the names what the other columns leave."""
        if self._view:
            self.show(self._view)

    def show(self, view: MachineView) -> None:
        """Show the runs of `view`; the cursor stays on its run."""
        self._view = view
        fresh = self._drawn(view)
        if list(fresh) == list(self._shown):
            for name, line in fresh.items():
                if line != self._shown[name]:
                    self.replace_option_prompt(name, line)
        else:
            before, place = self.selected, self.highlighted or 0
            self.clear_options()
            self.add_options(Option(line, id=name, disabled=name.startswith(" ")) for name, line in fresh.items())
            runs = [index for index, name in enumerate(fresh) if not name.startswith(" ")]
            # Where its run has gone, the cursor takes the next one.
            after = next((index for index in runs if index >= place), runs[-1] if runs else None)
            self.highlighted = list(fresh).index(before) if before in fresh else after
        self._shown = fresh

    async def _on_click(self, event: events.Click) -> None:
        """A click moves the cursor, a second one opens."""
        event.prevent_default()  # a list of options would open at the first
        clicked = event.style.meta.get("option")
        if clicked is not None and not self.options[clicked].disabled:
            self.highlighted = clicked
            if event.chain == 2:
                self.action_select()

    def _drawn(self, view: MachineView) -> dict[str, Text]:
        """Lines by run id; those of headings have ids that begin with a space."""
        width = self.size.width - 2 - self.scrollbar_size_vertical
        columns = COLUMNS if width < 110 else COLUMNS + (GPU if view.machine.gpus.found else ()) + MORE
        rows = [*(each.run for each in view.working), *(each.run for each in view.waiting)]
        longest = max((len(row.name) for row in rows), default=0)
        name_width = max(10, min(longest, width - STATUS - sum(wide + 1 for _, wide in columns)))
        lines = {}
        if view.working:
            heads = {title: title for title, _ in columns}
            lines[" working"] = _line(_title(f"At work ({len(view.working)})", STATUS + name_width), heads, columns)
        for each in view.working:
            lead = Text().append_text(status(each.run, self.app.theme))
            lead.append(" " * (STATUS - len(lead))).append_text(_named(each.run, name_width))
            lines[each.run.id] = _line(lead, _cells(each, view), columns)
        if view.waiting:
            lines[" gap"] = Text(" ")
            rule = "paused: p goes on" if view.paused else "in the order in which they start"
            lines[" waiting"] = _title(f"Waiting ({view.queued}), {rule}", width)
        name_width = max(name_width, min(longest, width - STATUS - WHY))
        for number, waits in enumerate(view.waiting, 1):
            lead = Text(f"{HELD} {number} held" if waits.place.held else f"○ {number}").append(" " * STATUS)
            lead.truncate(STATUS)
            line = lead + _named(waits.run, name_width) + _cut(f" {reason(waits)}", width - STATUS - name_width)
            if waits.place.held:
                line.stylize("dim")
            lines[waits.run.id] = line
        if view.queued > len(view.waiting):
            lines[" more"] = Text(f"… and {view.queued - len(view.waiting)} more", "dim")
        if " gap" in lines and not view.working:
            del lines[" gap"]
        return lines


def reason(waits: Waiting) -> str:
    """Why it waits, behind its priority if that is not the usual one."""
    return f"priority {waits.place.priority} · {waits.why}" if waits.place.priority else waits.why


def where(each: Working, view: MachineView) -> str:
    """`1 of 2 cores`, `GPU 0`, `GPU 0,1`, `0.25 of GPU 0`, or the host."""
    held = each.held
    if held is None:
        return printable(each.host)
    gpu = f"{f'{held.part:.2g} of ' if held.part < 1 else ''}GPU {held.gpu}" if held.gpu else ""
    cores = f"{count(held.share, view.machine.cores)} of {view.machine.cores} cores" if held.share else ""
    return " + ".join(part for part in (gpu, cores) if part)


def _cells(each: Working, view: MachineView) -> dict[str, str]:
    process, progress = each.process, each.progress
    eta = progress.eta() if each.run.status == "running" else None
    cells = {
        "where": where(each, view),
        "epoch": f"{progress.epoch}/{progress.epochs or '?'}" if progress.stage in ("", "train") else progress.stage,
        "ETA": "" if eta is None else short_duration(eta),
    }
    if process:
        cells |= {
            "CPU": "" if process.cpu is None else f"{process.cpu:.0f} %", "memory": size(process.memory),
            "GPU mem": "" if process.gpu_memory is None else size(process.gpu_memory),
            "threads": str(process.threads), "pid": str(process.pid),
            "since": short_duration(time.time() - process.started),
        }  # fmt: skip
    return cells


def _line(lead: Text, cells: dict[str, str], columns: tuple[tuple[str, int], ...]) -> Text:
    line = Text(no_wrap=True) + lead
    for title, width in columns:
        cell = Text(cells.get(title, ""))
        cell.truncate(width, overflow="ellipsis")
        gap = " " * (width - len(cell))
        line += Text(f" {gap}{cell}" if title in NUMBERS else f" {cell}{gap}")
    return line


def _title(text: str, width: int) -> Text:
    title = Text(text, "bold")
    title.truncate(width, overflow="ellipsis", pad=True)
    return title


def _named(run: RunRow, width: int) -> Text:
    """Its name; one that is too long is cut before its seed, which tells the runs of a sweep apart."""
    name, seed = printable(run.name), f"-s{run.seed}"
    if cell_len(name) <= width or not name.endswith(seed):
        return _cut(name, width)
    return _cut(name.removesuffix(seed), width - len(seed)).append(seed)


def _cut(text: str, width: int) -> Text:
    cut = Text(printable(text).replace("\n", " "))
    cut.truncate(max(0, width), overflow="ellipsis", pad=True)
    return cut
