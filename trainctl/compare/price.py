"""What TRAIN costs: the time and the memory of both sides of a pair, and their ratio.

Times of different devices cannot be compared: where the runs behind a number do not share one, the ratio is left out
and the row says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.events import number
from trainctl.compare.grid import Cell, Grid, Row, Section
from trainctl.compare.marks import Notes
from trainctl.compare.members import Member
from trainctl.compare.rows import Comparison, Pair, Side
from trainctl.compare.statistics import Spread, spread
from trainctl.home import Home

COLUMNS = {
    "seconds_per_epoch": "s/epoch", "seconds": "total", "evaluation_seconds": "evaluation",
    "peak_memory_mb": "peak MB", "device": "device",
}  # fmt: skip
CAPTION = (
    "s/epoch: median of a run's epochs; total: from its start to its end; evaluation: of the checkpoint shown; "
    "peak MB: the most memory that its process held, of the GPU where it used one"
)


@dataclass(frozen=True)
class Price:
    """What the runs of a side cost, in seconds and MB; `devices` are those that they ran on."""

    runs: tuple[str, ...]
    amounts: Mapping[str, Spread]
    devices: tuple[str, ...]
    resumed: int
    """Runs that were interrupted: their total contains the time they stood still."""


@dataclass(frozen=True)
class Priced:
    """A pair, or runs without a partner, with the price of each side."""

    label: str
    baseline: Price
    train: Price | None

    @property
    def comparable(self) -> bool:
        """True if all runs of both sides ran on the same device, and it is known."""
        return self.train is not None and self.baseline.devices == self.train.devices and len(self.train.devices) == 1

    def ratio(self, amount: str) -> float | None:
        """Mean of +TRAIN over mean of the baseline; None if it is not known or means nothing."""
        if self.train is None or not self.comparable:
            return None
        before, after = self.baseline.amounts[amount].mean, self.train.amounts[amount].mean
        return after / before if before and after is not None else None


def prices(home: Home, comparison: Comparison, loaded: Mapping[str, Member]) -> list[Priced]:
    """The price of each pair and then of each run without a partner; `loaded` are the runs by id."""
    known: dict[tuple[str, ...], Price] = {}

    def of(side: Side) -> Price:
        if side.runs not in known:
            known[side.runs] = _price(home, [loaded[run] for run in side.runs])
        return known[side.runs]

    found = [Priced(pair.label, of(pair.baseline), of(pair.train)) for pair in comparison.pairs]
    return found + [Priced(side.label, of(side), None) for side in comparison.alone]


def build(comparison: Comparison, priced: Sequence[Priced]) -> Grid:
    """The prices as a table, in the order of the comparison."""
    notes = Notes()
    rows: list[Row] = []
    entries: Iterable[Pair | Side] = (*comparison.pairs, *comparison.alone)
    for entry, (of, cost) in enumerate(zip(entries, priced, strict=True)):
        if isinstance(of, Pair):
            rows += [
                _row("baseline", of.baseline.label, cost.baseline, notes, entry),
                _row("train", "+ TRAIN", cost.train or cost.baseline, notes, entry),
                _ratios(cost, notes, entry),
            ]
        else:
            rows.append(_row("alone", of.label, cost.baseline, notes, entry))
    if not rows:
        return Grid((), ())
    return Grid(
        (Section("Price", CAPTION, tuple(COLUMNS), tuple(map(Cell, COLUMNS.values())), tuple(rows)),), tuple(notes)
    )


def _price(home: Home, side: Sequence[Member]) -> Price:
    amounts: dict[str, list[float | None]] = {name: [] for name in COLUMNS if name != "device"}
    resumed = 0
    for member in side:
        run, folder = member.run, home.run(member.run.id)
        ended = run.status == "done" and run.started is not None and run.finished is not None
        amounts["seconds_per_epoch"].append(run.seconds_per_epoch)
        amounts["seconds"].append((run.finished or 0.0) - (run.started or 0.0) if ended else None)
        amounts["evaluation_seconds"].append(_evaluation(member))
        amounts["peak_memory_mb"].append(number(folder.json("exit.json").get("peak_memory_mb")))
        resumed += len(folder.attempts.read_bytes().splitlines()) > 1 if folder.attempts.is_file() else 0
    devices = dict.fromkeys(filter(None, map(_device, side)))
    return Price(
        tuple(member.run.id for member in side), {name: spread(values) for name, values in amounts.items()},
        tuple(devices), resumed,
    )  # fmt: skip


def _evaluation(member: Member) -> float | None:
    """Seconds of all evaluations of the checkpoint."""
    seconds = [number(found.settings.get("seconds")) for found in member.evals.values()]
    return sum(one for one in seconds if one is not None) if any(seconds) else None


def _device(member: Member) -> str:
    """The device by its name, and how many threads computed where it is a CPU."""
    env = member.env
    name = str(env.get("device") or member.run.device)
    threads = env.get("threads")
    return f"{name}, {threads} thread{'s' * (threads != 1)}" if env.get("device_type") == "cpu" and threads else name


def _row(kind: str, label: str, price: Price, notes: Notes, entry: int) -> Row:
    marks = []
    if len(price.devices) > 1:
        marks.append(notes.mark("its runs ran on different devices: " + "; ".join(price.devices)))
    if price.resumed:
        marks.append(notes.mark("interrupted and resumed: the total contains the time between"))
    cells = [_cell(name, price.amounts[name]) for name in COLUMNS if name != "device"]
    device = price.devices[0] if len(price.devices) == 1 else "several" if price.devices else ""
    return Row(kind, label, str(len(price.runs)), (*cells, Cell(device)), tuple(marks), entry)


def _ratios(cost: Priced, notes: Notes, entry: int) -> Row:
    marks = () if cost.comparable else (notes.mark("not comparable: the sides ran on different devices"),)
    ratios = (cost.ratio(name) for name in COLUMNS if name != "device")
    return Row(
        "delta", "ratio", "", (*(Cell(f"×{r:.2f}") if r is not None else Cell() for r in ratios), Cell()), marks, entry
    )


def _cell(name: str, found: Spread) -> Cell:
    if found.mean is None:
        return Cell()
    if name == "seconds_per_epoch":
        places = 2 if found.mean < 10 else 1 if found.mean < 100 else 0
        return Cell(f"{found.mean:.{places}f}", "" if found.std is None else f"{found.std:.{places}f}")
    return Cell(f"{found.mean:.0f}" if name == "peak_memory_mb" else _clock(found.mean))


def _clock(seconds: float) -> str:
    """2:03 as minutes, 1:02:03 as hours; under a minute 4.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
