"""What all figures share: colours, frames, the foot with legend and caption, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainctl.errors import MachineError, UsageError
from trainctl.registry import threats

FORMATS = (".png", ".svg", ".pdf")
# Colours that people with any colour vision tell apart (Okabe & Ito, 2008), each dark enough on white.
COLORS = ("#0072B2", "#D55E00", "#007A5A", "#A0527F", "#7A6A00", "#333333")
MARKERS = ("o", "s", "^", "D", "v", "P")


def frame(axis: Any, heading: str, below: str, unit: str) -> None:
    """Heading, names of the axes (`below` counts in whole numbers), ticks, a pale grid, and no box."""
    from matplotlib.ticker import MaxNLocator

    axis.set_title(heading, fontsize=9)
    axis.set_xlabel(below, fontsize=8)
    axis.set_ylabel(unit, fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.tick_params(labelsize=7.5)
    axis.grid(color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def attack(settings: Mapping[str, Any]) -> str:
    """The threat model in the settings of an evaluation by PGD, in words with three digits."""
    rounded = {key: float(f"{settings[key]:.3g}") for key in ("eps", "step_size") if settings.get(key) is not None}
    known = {key: settings.get(key) for key in ("norm", "eps", "step_size", "steps", "start")}
    return threats.words(known | rounded).replace("ε ", "ε\u00a0")  # which no line break parts


def plain(text: str) -> str:
    """`text` as it stands: a "$" would begin a formula."""
    return text.replace("$", r"\$")


def set_foot(figure: Any, layout: Any, legend: Any, caption: str) -> None:
    """Add the caption and, above it, `legend`: the figure grows by what they need, the panels keep their size."""
    text = figure.text(0.5, 0.0, caption, ha="center", va="bottom", fontsize=7, color="#444444")
    low = 0.06 + (text.get_window_extent().height / figure.dpi + 0.06 if caption else 0.0)
    foot = low + (legend.get_window_extent().height / figure.dpi if legend else 0.0)
    height = figure.get_figheight() + foot
    figure.set_figheight(height)
    layout.set(rect=(0, foot / height, 1, 1 - foot / height))
    text.set_position((0.5, 0.06 / height))
    if legend:
        legend.set_bbox_to_anchor((0.5, low / height), figure.transFigure)


def save(figure: Any, path: Path) -> None:
    """Write `figure` as PNG, SVG or PDF by the ending of `path`; UsageError for another.

    MachineError if the file cannot be written.
    """
    check_format(path)
    # No date in it: a figure that has not changed should not look new.
    from matplotlib import rc_context

    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    try:
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "trainctl", "pdf.fonttype": 42}):
            figure.savefig(path, dpi=160, facecolor="white", metadata=metadata)
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}", "choose another file with -o") from None


def check_format(path: Path) -> None:
    """UsageError unless `path` ends in .png, .svg or .pdf."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"cannot tell the format of {path}", f"give -o a file that ends in {', '.join(FORMATS)}")
