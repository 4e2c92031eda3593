"""One run whole, for the run screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainctl.cli.common import printable
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.launch.follow import Follower
from trainctl.plot.series import default_metrics
from trainctl.registry import ingest, query
from trainctl.registry.query import RunRow
from trainctl.tui.feed.log import LOG_BYTES, SILENT, lines, read_part
from trainctl.tui.feed.selected import Points, Selected, points, selected

RECIPE_BYTES = 1 << 18


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


class RunFeed:
    """Answers of the run screen; remembers how far it has read. Used by one thread at a time."""

    def __init__(self, home: Home, run_id: str) -> None:
        self.home = home
        self._run_id = run_id
        self._follower = Follower(home.run(run_id))
        self._log_offset = 0
        self._log_inode = 0

    def run(self) -> RunView:
        """One run whole; UsageError if it has gone."""
        ingest.refresh(self.home)
        every = query.runs(self.home)
        row = next((row for row in every if row.id == self._run_id), None)
        if row is None:
            raise UsageError(f"run {self._run_id} has gone", "esc leads back to the runs")
        self._follower.poll()
        twin = twin_of(row, every)
        kind = (
            "epoch"
            if len(points(self.home, row, "loss", "epoch") or points(self.home, row, "seconds", "epoch")) > 1
            else "step"
        )
        added, restart = self._added(self.home.run(self._run_id).log)
        return RunView(
            selected(self.home, row, self._follower, 3), kind, self._curves(row, kind), twin,
            self._curves(twin, kind) if twin else (),
            self._about(row), added, restart, self._log_offset,
        )  # fmt: skip

    def _curves(self, row: RunRow, kind: str) -> tuple[Curve, ...]:
        names = query.metrics(self.home, row.id, kind)
        return tuple(Curve(metric, points(self.home, row, metric, kind)) for metric in _worth_showing(names))

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
        return printable(
            "\n".join(head) + "\n\n" + read_part(folder.recipe, 0, RECIPE_BYTES).decode("utf-8", "replace")
        )

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
        data = read_part(path, self._log_offset, LOG_BYTES)
        end = data.rfind(b"\n") + 1
        self._log_offset += end
        return "".join(f"{line}\n" for line in lines(data[:end])), restart


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
