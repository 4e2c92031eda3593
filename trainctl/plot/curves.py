"""The figure of training curves: a panel a metric, a line a group, and TRAIN − baseline at the end.

It is made to be read in black and white too: a baseline is dashed with hollow markers, its +TRAIN twin solid
with filled ones, and each pair has a marker of its own beside its colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from trainctl.errors import UsageError
from trainctl.plot.looks import COLORS, MARKERS, frame, plain, set_foot
from trainctl.plot.series import Band, Group, History, default_metrics, difference, groups, is_selection, twins
from trainctl.plot.titles import title

# Of a pair's first +TRAIN twin, its second, …
SOLID: tuple[Any, ...] = ("-", (0, (7, 1.5)), (0, (7, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
FILLS = ("full", "left", "bottom", "right")


@dataclass(frozen=True)
class Look:
    """How a group's line is drawn."""

    color: str
    marker: str
    fill: str
    style: Any

    def options(self, points: int) -> dict[str, Any]:
        """Options of matplotlib for a line of `points` points; about six of them carry a marker."""
        hollow = self.fill == "none"
        return {
            "color": self.color, "linestyle": self.style, "linewidth": 1.5, "markevery": max(1, points // 6),
            "marker": self.marker, "markersize": 4.5, "fillstyle": "full" if hollow else self.fill,
            "markerfacecolor": "white" if hollow else self.color, "markerfacecoloralt": "white",
        }  # fmt: skip


def draw(runs: Sequence[History], metrics: Sequence[str] = ()) -> Any:
    """The matplotlib Figure of `runs`: `metrics`, or those worth a panel, and the difference of the pairs among them.

    UsageError if no run has finished an epoch, or none has one of `metrics`.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    wanted = _check(runs, metrics)
    lines = groups(runs)
    looks = dict(zip(map(_key, lines), _looks(lines), strict=True))
    pairs = twins(lines)
    compared = [m for m in wanted if is_selection(m)] or [m for m in wanted if not m.startswith(("loss", "lr"))]
    panels = len(wanted) + bool(pairs and compared)
    columns = panels if panels < 4 else 2 if panels == 4 else 3 if panels in (5, 6, 9) else 4
    rows = -(-panels // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07)
    figure = Figure(figsize=(3.4 * columns + 0.6 * (columns == 1), 2.7 * rows), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, metric in zip(axes, wanted, strict=False):
        _panel(axis, metric, lines, looks)
    if panels > len(wanted):
        _difference_panel(axes[len(wanted)], pairs, looks, compared)
    for axis in axes[panels:]:
        axis.axis("off")
    inside = panels < rows * columns and len(lines) <= 7  # the legend fits where a panel is left over
    legend = _legend(axes[-1] if inside else figure, lines, looks, 0 if inside else columns)
    set_foot(figure, layout, None if inside else legend, textwrap.fill(_caption(runs, wanted, lines), 52 * columns))
    return figure


def _check(runs: Sequence[History], metrics: Sequence[str]) -> list[str]:
    known = sorted({metric for run in runs for metric in run.values})
    if not known:
        raise UsageError("none of these runs has finished an epoch yet", "see how far they are with `trainctl ls`")
    missing = [metric for metric in dict.fromkeys(metrics) if metric not in known]
    if missing:
        from difflib import get_close_matches

        near = [close[0] for metric in missing if (close := get_close_matches(metric, known, n=1))]
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UsageError(f"no run has the metric {', '.join(missing)}", f"{hint}there are: {', '.join(known)}")
    return list(dict.fromkeys(metrics)) or default_metrics(known) or known


def _key(group: Group) -> str:
    return group.runs[0].group


def _looks(lines: Sequence[Group]) -> list[Look]:
    """A colour and a marker a pair: dashed and hollow for its baseline, solid and filled for its twin.

    A second and a third twin are lighter, with half of the marker filled.
    """
    pairs = {pair: number for number, pair in enumerate(dict.fromkeys(group.pair for group in lines))}
    seen = dict.fromkeys(pairs, 0)
    looks = []
    for group in lines:
        color = COLORS[pairs[group.pair] % len(COLORS)]
        marker = MARKERS[pairs[group.pair] % len(MARKERS)]
        if group.topology:
            twin = seen[group.pair] % len(SOLID)
            seen[group.pair] += 1
            looks.append(Look(_lighter(color, 0.22 * twin), marker, FILLS[twin], SOLID[twin]))
        else:
            looks.append(Look(color, marker, "none", (0, (2.5, 1.5))))
    return looks


def _lighter(color: str, share: float) -> str:
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02X}" for part in parts)


def _panel(axis: Any, metric: str, lines: Sequence[Group], looks: Mapping[str, Look]) -> None:
    for group in lines:
        band = group.band(metric)
        if band is not None:
            _line(axis, band, looks[_key(group)].options(len(band.epochs)))
    frame(axis, title(metric), "epoch", "" if metric.startswith(("loss", "l_tp", "lr")) else "accuracy (%)")


def _difference_panel(
    axis: Any, pairs: Sequence[tuple[Group, Group]], looks: Mapping[str, Look], metrics: Sequence[str]
) -> None:
    from matplotlib.lines import Line2D

    labels = []
    styles: tuple[Any, ...] = ("-", (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (7, 1.5)))
    axis.axhline(0.0, color="#999999", linewidth=0.8)
    # The robust accuracy is the solid line: it is what is asked for.
    for metric, style in zip(sorted(metrics, key=lambda m: "natural" in m), cycle(styles), strict=False):
        labels.append(Line2D([], [], color="black", linestyle=style, label=title(metric)))
        for baseline, train in pairs:
            band = difference(baseline, train, metric)
            if band is not None:
                _line(axis, band, {**looks[_key(train)].options(len(band.epochs)), "linestyle": style})
    frame(axis, "TRAIN − baseline", "epoch", "points")
    axis.margins(y=0.15)
    axis.legend(handles=labels, fontsize=7, framealpha=0.8, edgecolor="none", handlelength=2.6, loc="best")


def _legend(place: Any, lines: Sequence[Group], looks: Mapping[str, Look], columns: int) -> Any:
    """The legend of the groups: in the free panel `place`, or in `columns` below the panels of the figure `place`."""
    from matplotlib.lines import Line2D

    handles = []
    for group in lines:
        count = len(group.runs)
        label = textwrap.fill(f"{group.label} ({count} seed{'s' if count > 1 else ''})", 34, break_on_hyphens=False)
        # A label that begins with "_" would be left out: so never let it begin so.
        handles.append(Line2D([], [], label="\u200a" + plain(label), **looks[_key(group)].options(1)))
    where: dict[str, Any] = {"loc": "center left"}
    if columns:
        where = {"loc": "lower center", "ncols": min(columns, len(lines)), "borderaxespad": 0.1}
    return place.legend(handles=handles, frameon=False, fontsize=8, handlelength=3.4, **where)


def _line(axis: Any, band: Band, options: Mapping[str, Any]) -> None:
    axis.plot(band.epochs, band.mean, **options)
    if band.seeds > 1:
        axis.fill_between(band.epochs, band.low, band.high, color=options["color"], alpha=0.15, linewidth=0)


def _caption(runs: Sequence[History], metrics: Sequence[str], lines: Sequence[Group]) -> str:
    """What the lines and bands are, and the threat model of the robust accuracies."""
    said = []
    if any(len(group.runs) > 1 for group in lines):
        said.append("Line: mean over the seeds that reached the epoch; band: their minimum to maximum.")
    if any(group.topology for group in lines) and not all(group.topology for group in lines):
        said.append("Dashed, hollow markers: baseline; filled markers: +TRAIN.")
    chosen = [metric for metric in metrics if is_selection(metric)]
    threats = list(dict.fromkeys(run.threat for run in runs))
    if any("natural" not in metric for metric in chosen) and len(threats) == 1 and threats[0]:
        said.append(f"Attack: {threats[0]}.")
    if any(metric.startswith("test_") for metric in chosen):
        said.append("The best checkpoint is chosen by the test accuracies shown.")
    return plain(" ".join(said))
