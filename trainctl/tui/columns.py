"""The columns of the runs table: what each says of a run or of a group, and which of them there is room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from engine.events import METRICS
from trainctl.registry.groups import GroupLine
from trainctl.tui import text as write
from trainctl.tui.feed.runs import Line, Row
from trainctl.tui.text import one_line

NAME = "name"
GAP = 1  # characters between two columns
SHORT = 110  # a narrower table is written shorter
DEFAULT = (
    "status", "name", "method", "dataset", "model", "seed", "epoch", "eta", "natural", "robust", "curve", "created",
    "pace", "tags",
)  # fmt: skip
FIRST_TO_GO = ("pace", "model", "tags", "dataset", "created", "curve", "seed", "eta", "method")
"""Which of the default columns are left out where it is narrow."""


@dataclass(frozen=True)
class Look:
    """How cells are written: under which theme, at what time (unix seconds), and whether there is little room."""

    theme: str = ""
    now: float = 0.0
    short: bool = False
    opened: frozenset[str] = frozenset()
    """Keys of the groups that are open."""
    grouped: bool = False


@dataclass(frozen=True)
class Column:
    """A column. `sort` is what the index sorts by for it; "" if it cannot. `widest` is the most it may take."""

    key: str
    heading: str
    help: str
    widest: int
    run: Callable[[Row, Look], str | Text]
    group: Callable[[GroupLine, Look], str | Text] = lambda _group, _look: ""
    sort: str = ""
    right: bool = False

    def cell(self, line: Line, look: Look) -> Text:
        """What it says of a line of the table."""
        found = self.group(line, look) if isinstance(line, GroupLine) else self.run(line, look)
        return found if isinstance(found, Text) else Text(found)


def _name(row: Row, look: Look) -> str:
    name = one_line(row.run.name.removesuffix(f"-s{row.run.seed}"))
    return "  " * look.grouped + name + " (archived)" * row.run.archived


def _group_name(group: GroupLine, look: Look) -> Text:
    text = Text(f"{'▾' if group.key in look.opened else '▸'} {one_line(group.label) or '(none)'}", "bold")
    return text.append(f"  {group.runs} run{'s' * (group.runs != 1)}", "not bold")


def _group_status(group: GroupLine, look: Look) -> Text:
    text = Text()
    for name, number in group.statuses:
        text.append(
            f"{' ' if text else ''}{write.GLYPHS.get(name, '?')}{number}",
            write.color(write.KINDS.get(name, ""), look.theme),
        )
    return text


def _epoch(row: Row, look: Look) -> str:
    run = row.run
    count = f"{run.epoch}/{run.epochs or '?'}"
    if run.status in ("done", "queued") or not run.epochs:
        return count
    return f"{write.bar(row.share, 3)} {count:>5}" if look.short else f"{write.bar(row.share, 5)} {count:>7}"


def _group_robust(group: GroupLine, _look: Look) -> str:
    name = write.robust_of(group.metrics)
    return f"{write.spread(*group.metrics[name][:2])} {name}" if name else ""


def _metric(name: str) -> Column:
    digits = 1 if METRICS[name] and not name.startswith("topo") else 3

    def of_run(row: Row, _look: Look) -> str:
        value = row.run.metrics.get(name)
        return "" if value is None else f"{value:.{digits}f}"

    def of_group(group: GroupLine, _look: Look) -> str:
        if name not in group.metrics:
            return ""
        mean, std, _ = group.metrics[name]
        return f"{mean:.{digits}f}" + ("" if std is None else f"±{std:.{digits}f}")

    return Column(f"metric:{name}", name, f"{name} of the best checkpoint", 14, of_run, of_group, sort=name, right=True)


COLUMNS: dict[str, Column] = {
    column.key: column
    for column in (
        Column("status", "status", "How it stands", 20,
               lambda row, look: write.status(row.run, look.theme), _group_status, sort="status"),
        Column(NAME, "name", "Its name without the seed", 80, _name, _group_name, sort="name"),
        Column("recipe", "recipe", "The recipe it was made from", 32, lambda row, _: one_line(row.run.recipe),
               sort="recipe"),
        Column("method", "method", "Method, and whether TRAIN is added", 22,
               lambda row, look: one_line(write.method(row.run, short=look.short)),
               lambda group, look: one_line(write.with_train(group.method, group.topology, short=look.short)).strip(),
               sort="method"),
        Column("dataset", "data", "Data set", 16, lambda row, _: one_line(row.run.dataset),
               lambda group, _: one_line(group.dataset), sort="dataset"),
        Column("model", "model", "Architecture", 18, lambda row, _: one_line(row.run.model),
               lambda group, _: one_line(group.model), sort="model"),
        Column("seed", "seed", "Seed", 6, lambda row, _: "" if row.run.seed is None else str(row.run.seed),
               sort="seed", right=True),
        Column("epoch", "epoch", "Epochs done, of how many", 14, _epoch, sort="epoch", right=True),
        Column("eta", "ETA", "Time to the end of its training", 6,
               lambda row, _: "" if row.eta is None else write.short_duration(row.eta), right=True),
        Column("natural", "nat.", "Natural accuracy in percent; v on the validation set", 9,
               lambda row, _: write.accuracies(row.run.metrics)[0],
               lambda group, _: write.spread(*group.metrics["natural"][:2]) if "natural" in group.metrics else "",
               sort="natural", right=True),
        Column("robust", "robust", "Accuracy under the strongest attack that was measured", 16,
               lambda row, _: write.accuracies(row.run.metrics)[1], _group_robust, sort="robust"),
        *(_metric(name) for name in METRICS if name != "natural"),
        Column("curve", "curve", "The accuracy that chooses the best checkpoint, over the epochs", 10,
               lambda row, look: Text(write.sparkline(row.curve), write.color("idle", look.theme))),
        Column("pace", "s/epoch", "Seconds an epoch takes, the median", 8,
               lambda row, _: f"{row.run.seconds_per_epoch:.3g}" if row.run.seconds_per_epoch else "",
               sort="seconds_per_epoch", right=True),
        Column("tags", "tags", "Tags", 20, lambda row, _: one_line(" ".join(row.run.tags)), sort="tags"),
        Column("note", "note", "Note", 40, lambda row, _: one_line(row.run.note), sort="note"),
        Column("created", "age", "How long ago it was created", 6,
               lambda row, look: "" if row.run.created is None else write.age(look.now - row.run.created),
               sort="created", right=True),
        Column("id", "id", "Id", 12, lambda row, _: row.run.id, sort="id"),
    )
}  # fmt: skip


def chosen(remembered: Sequence[str]) -> list[Column]:
    """The columns of the keys that were remembered, or the default ones."""
    found = [COLUMNS[key] for key in remembered if key in COLUMNS]
    return found or [COLUMNS[key] for key in DEFAULT]


def sorted_column(columns: Sequence[Column], sort: str) -> Column | None:
    """Which of `columns` the runs are sorted by; an attack without its own column is that of `robust`."""
    key = sort.removeprefix("-")
    own = next((column for column in columns if column.sort == key), None)
    robust = next((column for column in columns if column.key == "robust" and write.robust_of({key: 0.0})), None)
    return own or robust


def fitted(columns: Sequence[Column], needed: Mapping[str, int], width: int, *, default: bool) -> dict[str, int]:
    """The columns that there is room for in `width` characters, and the width of each.

    Of the default ones the least important go first, of chosen ones the last. The name takes what is left.
    """
    kept = [column.key for column in columns]
    going = [key for key in FIRST_TO_GO if key in kept] if default else kept[:0:-1]
    # A name may be cut to keep a column, but not to less than tells runs apart.
    least = 16 if width < SHORT else 26
    widths = {key: min(needed[key], least) if key == NAME else needed[key] for key in kept}
    while going and sum(widths.values()) + GAP * len(widths) > width:
        widths.pop(going.pop(0))
    spare = width - sum(widths.values()) - GAP * len(widths)
    for key in (NAME, "note"):
        if key in widths and spare > 0:
            more = min(spare, max(0, needed[key] - widths[key]))
            widths[key] += more
            spare -= more
    return widths
