"""What the screens ask for. It reads the index and the run folders, on a worker thread, and gives frozen answers.

Nothing here knows of a screen, and no widget reads anything itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.rundir import RunDir
from trainctl.cli import words
from trainctl.cli.common import printable
from trainctl.errors import MachineError, TrainctlError, UsageError
from trainctl.home import Home
from trainctl.launch.follow import Follower
from trainctl.plot.series import default_metrics, is_selection
from trainctl.registry import ingest, query, select
from trainctl.registry.query import RunRow

if TYPE_CHECKING:
    from trainctl.compare.rows import Comparison

WINDOW = 200  # rows in the table
LIVE = ("starting", "running", "stopping")
LOG_BYTES = 1 << 16
RECIPE_BYTES = 1 << 18
COLOR_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SILENT = "It has printed nothing yet."
EXPORTS = {".md": "markdown", ".tex": "latex"}

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Row:
    """A line of the table: a run and, while it is at work, the seconds to the end of its training."""

    run: RunRow
    eta: float | None


@dataclass(frozen=True)
class Selected:
    """What the panel says of the selected run."""

    run: RunRow
    doing: str
    eta: float | None
    losses: str
    accuracies: str
    results: str
    reason: str
    curves: tuple[tuple[str, tuple[float, ...]], ...]
    log: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """The home screen: the newest runs that fit the filter, and the selected one. `error` is the filter's."""

    rows: tuple[Row, ...]
    fitting: int
    total: int
    counts: tuple[tuple[str, int], ...]
    error: str
    selected: Selected | None


@dataclass(frozen=True)
class Curve:
    """A metric of one run."""

    metric: str
    points: Points


@dataclass(frozen=True)
class RunView:
    """The run screen. `unit` is what x counts.

    `added` is the log's new text, up to the byte `read`; if `restart`, it takes the place of what was shown.
    """

    selected: Selected
    unit: str
    curves: tuple[Curve, ...]
    twin: RunRow | None
    twin_curves: tuple[Curve, ...]
    recipe: str
    added: str
    restart: bool
    read: int


class Feed:
    """Answers of one screen; remembers how far it has read. Used by one thread at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._followers: dict[str, Follower] = {}
        self._log_offset = 0
        self._log_inode = 0

    def overview(self, filtered: str, selected: str) -> Overview:
        """The newest runs that the selector `filtered` means ("" for all), and the run of the id `selected`."""
        ingest.refresh(self.home)
        every = query.runs(self.home)
        fitting, error = every, ""
        if filtered:
            try:
                fitting = select.resolve(self.home, [filtered])
            except UsageError as mistake:
                # The filter stands in sight, so the lines that point into it are not repeated.
                error = str(mistake).split("\n")[0] + (f" — {mistake.hint}" if mistake.hint else "")
        window = fitting[: -WINDOW - 1 : -1]
        counts: dict[str, int] = {}
        for row in every:
            counts[row.status] = counts.get(row.status, 0) + 1
        chosen = next((row for row in window if row.id == selected), window[0] if window else None)
        kept = {row.id for row in window if row.status in LIVE} | ({chosen.id} if chosen else set())
        self._followers = {run: follower for run, follower in self._followers.items() if run in kept}
        return Overview(
            tuple(Row(row, self._eta(row)) for row in window), len(fitting), len(every), tuple(counts.items()), error,
            self._selected(chosen, 40) if chosen else None,
        )  # fmt: skip

    def run(self, run_id: str) -> RunView:
        """One run whole; UsageError if it has gone."""
        ingest.refresh(self.home)
        every = query.runs(self.home)
        row = next((row for row in every if row.id == run_id), None)
        if row is None:
            raise UsageError(f"run {run_id} has gone", "esc leads back to the runs")
        twin = twin_of(row, every)
        kind = (
            "epoch" if len(self._points(row, "loss", "epoch") or self._points(row, "seconds", "epoch")) > 1 else "step"
        )
        added, restart = self._added(self.home.run(run_id).log)
        return RunView(
            self._selected(row, 3), kind, self._curves(row, kind), twin, self._curves(twin, kind) if twin else (),
            self._about(row), added, restart, self._log_offset,
        )  # fmt: skip

    def _follow(self, row: RunRow) -> Follower:
        follower = self._followers.setdefault(row.id, Follower(self.home.run(row.id)))
        follower.poll()
        return follower

    def _eta(self, row: RunRow) -> float | None:
        return self._follow(row).progress.eta() if row.status == "running" else None

    def _selected(self, row: RunRow, lines: int) -> Selected:
        follower = self._follow(row)
        progress = follower.progress
        names = [name for name in query.metrics(self.home, row.id) if is_selection(name)]
        loss = "loss_robust" if "loss_robust" in progress.latest else "loss"
        wanted = [loss, *sorted(names, key=lambda name: "natural" in name)[:1]]
        curves = [(name, tuple(y for _, y in self._points(row, name, "epoch"))) for name in wanted]
        latest = progress.latest
        speed = words.speed(latest) if row.status in LIVE else ""
        results = (f"{which}: {words.results(values)}" for which, values in sorted(progress.evals.items()))
        return Selected(
            row, words.state(row.status, progress), progress.eta() if row.status == "running" else None,
            words.losses(latest), " · ".join(filter(None, (words.training(latest), words.selection(latest), speed))),
            " │ ".join(results), follower.reason(), tuple(curves), _last_lines(self.home.run(row.id).log, lines),
        )  # fmt: skip

    def _points(self, row: RunRow, metric: str, kind: str) -> Points:
        found = query.points(self.home, row.id, metric, kind)
        at = [(point.epoch if kind == "epoch" else point.step, point.value) for point in found]
        return tuple((float(x), y) for x, y in at if x is not None and y is not None)

    def _curves(self, row: RunRow, kind: str) -> tuple[Curve, ...]:
        names = query.metrics(self.home, row.id, kind)
        return tuple(Curve(metric, self._points(row, metric, kind)) for metric in _worth_showing(names))

    def _about(self, row: RunRow) -> str:
        """The recipe as it stands, under what run.json and the evaluations say."""
        folder = self.home.run(row.id)
        run = folder.json("run.json")
        head = [
            f"# {row.title or row.recipe}", f"# folder   {folder.path}", f"# command  {run.get('command', '')}",
            f"# tags     {', '.join(row.tags) or '-'}", f"# note     {row.note or '-'}", "#",
        ]  # fmt: skip
        for found in query.evals(self.home, row.id):
            value = "-" if found.value is None else f"{found.value:.4g}"
            threat = " ".join(
                f"{key}={found.settings[key]}"
                for key in ("attack", "norm", "eps", "step_size", "steps", "implementation")
                if key in found.settings
            )
            head.append(f"# {found.checkpoint} {found.metric} {value}  n={found.n}  {threat}")
        return printable("\n".join(head) + "\n\n" + _read(folder.recipe, 0, RECIPE_BYTES).decode("utf-8", "replace"))

    def _added(self, path: Path) -> tuple[str, bool]:
        try:
            stat = path.stat()
        except OSError:
            return "", False
        first = self._log_offset == 0 < stat.st_size
        restart = stat.st_ino != self._log_inode or stat.st_size < self._log_offset or first
        if restart:
            self._log_inode, self._log_offset = stat.st_ino, max(0, stat.st_size - LOG_BYTES)
            if not stat.st_size:
                return SILENT + "\n", True
        data = _read(path, self._log_offset, LOG_BYTES)
        end = data.rfind(b"\n") + 1
        self._log_offset += end
        return "".join(f"{line}\n" for line in _lines(data[:end])), restart


def twin_of(row: RunRow, every: Sequence[RunRow]) -> RunRow | None:
    """The newest run on the other side of the pair with the same seed."""
    others = [o for o in every if row.pair and o.pair == row.pair and o.seed == row.seed and o.topology != row.topology]
    return others[-1] if others else None


def _worth_showing(names: Sequence[str]) -> list[str]:
    """Losses, training and selection accuracies: six at most, of which the first four are shown on a small screen."""
    found = default_metrics(names)
    if "loss_robust" not in found and "loss" in names:
        found.insert(0, "loss")
    rank = {"loss_robust": 0, "loss": 0, "train_adversarial": 3, "train_natural": 4, "loss_topology": 5}
    return sorted(found, key=lambda name: rank.get(name, 1 if "natural" in name else 2))[:6]


def _read(path: Path, offset: int, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError:
        return b""


def _lines(data: bytes) -> list[str]:
    """Lines as a terminal would leave them: what stands before a carriage return was overwritten."""
    text = COLOR_CODES.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n"))
    return [
        printable(line.rstrip("\r").rpartition("\r")[2])
        for line in text.split("\n")[: None if text[-1:] != "\n" else -1]
    ]


def _last_lines(path: Path, count: int) -> tuple[str, ...]:
    try:
        size = path.stat().st_size
    except OSError:
        return ()
    start = max(0, size - 8192)
    return tuple(line for line in _lines(_read(path, start, 8192))[start > 0 :] if line.strip())[-count:]


def stop(run: RunDir) -> str:
    """Ask a run to stop, or kill one that was asked already; what to say of it."""
    from trainctl.launch import processes

    if run.status() == "stopping":
        processes.kill(run)
        return f"{run.id} was killed"
    processes.request_stop(run)
    return f"{run.id} was asked to stop" if run.status() == "stopping" else f"{run.id} is {run.status()}"


def resume(home: Home, run: RunDir) -> str:
    """Queue a run again; what to say of it."""
    from trainctl.launch import folders, scheduler

    folders.requeue(run)
    scheduler.ensure(home)
    return f"{run.id} is queued again"


def explain(error: Exception) -> str:
    """An error as a notice."""
    if isinstance(error, TrainctlError):
        return printable(f"{error}\n{error.hint}" if error.hint else str(error))
    return printable(f"{type(error).__name__}: {error}")


def comparison(home: Home, filtered: str, checkpoint: str) -> Comparison:
    """All finished pairs, or the runs that the selector `filtered` means, at the checkpoint `best` or `last`."""
    from trainctl.compare.report import compare

    return compare(home, select.resolve(home, [filtered]) if filtered else None, checkpoint)


def export(compared: Comparison, path: Path, *, replace: bool) -> str:
    """Write the comparison as its file's ending says; what to say of it.

    UsageError for another ending, or if the file stands already and is not to be replaced; MachineError if it cannot
    be written.
    """
    from trainctl.compare.render import render

    form = EXPORTS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path.name or 'the name'} must end in .md (markdown) or .tex (LaTeX)")
    try:
        with open(path, "w" if replace else "x", encoding="utf-8") as file:
            file.write(render(compared, form))
    except FileExistsError:
        raise UsageError(f"{path} stands already; enter once more replaces it") from None
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}") from None
    return f"written: {path.resolve()}"
