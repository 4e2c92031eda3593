"""The figure of feature spaces: a panel a run, t-SNE of test images in it, and of training images in its inset.

Natural images are circles, adversarial ones crosses. A class has a colour, and its number stands on its natural
images, so that the figure can be read in black and white.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from engine.rundir import RunDir
from trainctl.errors import UsageError
from trainctl.plot.looks import attack, plain, set_foot

MAX_RUNS = 6
# Ten that people with any colour vision tell apart: the "muted" scheme of Tol (2021), its pale grey darkened.
COLORS = (
    "#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#999933", "#44AA99", "#AA4499", "#DDCC77", "#777777",
)  # fmt: skip
NATURAL, ROBUST = "#B22222", "#0050A0"
INSET = 0.3  # of a panel's sides
Point = tuple[float, float]
Clouds = Mapping[tuple[int, bool], Sequence[Point]]
"""(class, adversarial) -> places."""
Square = tuple[float, float, float]
"""Left, low, side."""


@dataclass(frozen=True)
class Embedding:
    """What the engine stored of one checkpoint: `clouds` by split ("test", "train"), and the settings behind them."""

    clouds: Mapping[str, Clouds]
    perplexity: float
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Panel:
    """One run with its accuracies on `examples` test images, in percent; None is unknown."""

    name: str
    natural: float | None
    robust: float | None
    examples: int | None
    embedding: Embedding


def read(run: RunDir, checkpoint: str) -> Embedding:
    """The embedding in eval/CHECKPOINT-tsne.json; UsageError if it cannot be read."""
    name = f"eval/{checkpoint}-tsne.json"
    stored = run.json(name)
    try:
        clouds: dict[str, dict[tuple[int, bool], list[Point]]] = {"test": {}, "train": {}}
        for split, _, label, adversarial, x, y in stored["result"]["points"]:
            clouds[split].setdefault((int(label), bool(adversarial)), []).append((float(x), float(y)))
        return Embedding(clouds, float(stored["result"]["perplexity"]["test"]), dict(stored["settings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{run.path / name}: cannot be read: {error!r}", "delete it and plot again") from None


def draw(panels: Sequence[Panel], *, inset: bool = True) -> Any:
    """The matplotlib Figure of 1 to MAX_RUNS panels; UsageError if they do not show the same test images."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if len({panel.embedding.settings["test_digest"] for panel in panels}) > 1:
        names = ", ".join(panel.name for panel in panels)
        raise UsageError(f"these runs have different test images: {names}", "plot the runs of each data set apart")
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05)
    figure = Figure(figsize=(2.4 * columns, 2.75 * rows), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = sorted({label for panel in panels for label, _ in panel.embedding.clouds["test"]})
    colors = {label: COLORS[number % len(COLORS)] for number, label in enumerate(labels)}
    for axis, panel in zip(axes, panels, strict=False):
        _panel(axis, panel, colors, inset)
    for axis in axes[len(panels) :]:
        axis.axis("off")
    caption = textwrap.fill(plain(_caption(panels, labels, inset)), 42 * columns)
    set_foot(figure, layout, _legend(figure), caption)
    return figure


def _panel(axis: Any, panel: Panel, colors: Mapping[int, str], inset: bool) -> None:
    clouds = panel.embedding.clouds["test"]
    _scatter(axis, clouds, colors, 1.0)
    for label in colors:
        if natural := clouds.get((label, False)):
            _number(axis, label, _middle(natural), colors[label])
    points = _points(clouds)
    square, corner = _square_beside(points, INSET) if inset else (_square(points), (0, 0))
    _frame(axis, square)
    if inset:
        box = axis.inset_axes((corner[0] * (1 - INSET), corner[1] * (1 - INSET), INSET, INSET))
        training = panel.embedding.clouds["train"]
        _scatter(box, training, colors, 0.3)
        _frame(box, _square(_points(training)))
    axis.set_title(textwrap.fill(plain(panel.name), 34, break_on_hyphens=False), fontsize=8, pad=15)
    for text, side_of, color in (("natural", "right", NATURAL), ("PGD-20", "left", ROBUST)):
        value = panel.natural if text == "natural" else panel.robust
        shown = "–" if value is None else f"{value:.2f}"
        place = 0.48 if side_of == "right" else 0.52
        axis.text(place, 1.025, f"{text} {shown}", color=color, fontsize=8, ha=side_of, transform=axis.transAxes)


def _scatter(axis: Any, clouds: Clouds, colors: Mapping[int, str], size: float) -> None:
    for (label, adversarial), cloud in sorted(clouds.items(), key=lambda item: -item[0][1]):  # crosses below
        x, y = zip(*cloud, strict=True)
        if adversarial:
            axis.scatter(x, y, s=9 * size, marker="x", color=colors[label], linewidths=0.6 * size, alpha=0.8)
        else:
            edge = {"edgecolors": "white", "linewidths": 0.25 * size}
            axis.scatter(x, y, s=11 * size, marker="o", color=colors[label], alpha=0.9, **edge)


def _number(axis: Any, label: int, place: Point, color: str) -> None:
    """The number of a class, ringed in its colour."""
    box = {"boxstyle": "circle,pad=0.18", "facecolor": "white", "edgecolor": color, "linewidth": 0.9, "alpha": 0.9}
    axis.text(*place, str(label), fontsize=6.5, ha="center", va="center", bbox=box, zorder=5)


def _middle(cloud: Sequence[Point]) -> Point:
    """The point of `cloud` nearest to its median: inside a cluster even if there are several."""
    half = len(cloud) // 2
    x, y = sorted(x for x, _ in cloud)[half], sorted(y for _, y in cloud)[half]
    return min(cloud, key=lambda point: (point[0] - x) ** 2 + (point[1] - y) ** 2)


def _points(clouds: Clouds) -> list[Point]:
    return [point for cloud in clouds.values() for point in cloud]


def _frame(axis: Any, square: Square) -> None:
    """A square without ticks: the axes of t-SNE mean nothing."""
    left, low, side = square
    axis.set(xlim=(left, left + side), ylim=(low, low + side), xticks=[], yticks=[], box_aspect=1, anchor="N")
    for spine in axis.spines.values():
        spine.set(linewidth=0.5, color="#888888")


def _square(points: Sequence[Point]) -> Square:
    """The smallest square around `points`, with a margin."""
    (left, right), (low, high) = _extent(points)
    side = 1.08 * _side(points)
    return (left + right - side) / 2, (low + high - side) / 2, side


def _square_beside(points: Sequence[Point], share: float) -> tuple[Square, tuple[int, int]]:
    """A square around `points` in which an inset of `share` of its sides covers none of them; and the inset's corner.

    The corner is (0 or 1, 0 or 1): right or not, top or not. That of the smallest square is chosen.
    """
    (left, right), (low, high) = _extent(points)
    tight = _side(points)
    margin = 0.04 * tight
    for growth in count():
        side = 1.02**growth * (tight + 2 * margin)
        edge = share * side + margin / 2
        for corner in ((1, 1), (0, 1), (1, 0), (0, 0)):
            # What the square is larger than needed lies on the inset's sides.
            x0 = left - margin if corner[0] else right + margin - side
            y0 = low - margin if corner[1] else high + margin - side
            x1, y1 = x0 + corner[0] * (side - edge), y0 + corner[1] * (side - edge)
            if not any(x1 < x < x1 + edge and y1 < y < y1 + edge for x, y in points):
                return (x0, y0, side), corner
    raise AssertionError("a square that is large enough has room")


def _extent(points: Sequence[Point]) -> tuple[Point, Point]:
    """Least and greatest x, least and greatest y."""
    xs, ys = zip(*points, strict=True)
    return (min(xs), max(xs)), (min(ys), max(ys))


def _side(points: Sequence[Point]) -> float:
    """The longer side of the rectangle around `points`; not zero."""
    return max(high - low for low, high in _extent(points)) or 1.0


def _legend(figure: Any) -> Any:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "", "color": "#444444", "markersize": 4.5}
    handles = [
        Line2D([], [], marker="o", label="natural", **look),
        Line2D([], [], marker="x", label="adversarial", **look),
    ]
    return figure.legend(
        handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=8, borderaxespad=0.1, handletextpad=0.1
    )


def _caption(panels: Sequence[Panel], labels: Sequence[int], inset: bool) -> str:
    """What is shown, made by which attack, of which checkpoint."""
    first = panels[0].embedding
    shown = {split: sum(map(len, clouds.values())) // 2 for split, clouds in first.clouds.items()}
    of = first.settings.get("of_classes")
    numbers = f"all {of} classes" if of == len(labels) else f"classes {', '.join(map(str, labels))} of {of}"
    said = [
        f"t-SNE of penultimate features of {shown['test']} test images and their adversarial images together",
        f"(perplexity {first.perplexity:.3g}; {numbers})" + (
            f"; inset: {shown['train']} training images." if inset else "."
        ),
    ]  # fmt: skip
    attacks = dict.fromkeys(attack(panel.embedding.settings) for panel in panels)
    said.append("PGD: " + "; ".join(attacks) + ".")
    rules = dict.fromkeys(str(panel.embedding.settings["rule"]) for panel in panels)
    said.append("Checkpoint: " + "; ".join(rules) + ".")
    if examples := {panel.examples for panel in panels if panel.examples is not None}:
        said.append(f"Accuracies (%) on {' or '.join(map(str, sorted(examples)))} test images.")
    return " ".join(said)
