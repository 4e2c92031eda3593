"""The figure of topology scores against a setting, such as TRADES' β: a line for each number of neighbours.

The runs are taken apart into experiments, which differ in more than the setting and the seed: a row of panels each.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.rundir import RunDir
from trainctl.errors import UsageError
from trainctl.plot.looks import MARKERS, attack, frame, plain, set_foot
from trainctl.registry import threats

MAX_ROWS = 4
METRICS = {"topo_natural": "natural test images", "topo_robust": "adversarial test images (PGD-20)"}
STYLES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (2, 1)), (0, (7, 1.5, 1, 1.5, 1, 1.5)), "-.")
# How the run is carried out, or what the score's own settings say better.
_SILENT_SECTIONS = ("eval.", "run.", "data.root", "data.verify", "data.download")
_MEASURED = ("rule", "distance", "support", "n", "norm", "eps", "step_size", "steps", "start", "stop", "version")


@dataclass(frozen=True)
class Scored:
    """One run: `scores` by metric and by k, in percent; `settings` of its recipe; `measured`: those of the scores."""

    recipe: str
    topology: bool
    seed: int
    settings: Mapping[str, Any]
    x: float
    scores: Mapping[str, Mapping[int, float]]
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Runs of one experiment, which differ in x and in their seed; the last of several with the same counts."""

    label: str
    runs: tuple[Scored, ...]

    def line(self, metric: str, k: int) -> list[tuple[float, float, float, float]]:
        """(x, mean, minimum, maximum) over the runs of each x."""
        found = {
            x: [scores[k] for run in runs if k in (scores := run.scores[metric])] for x, runs in self.by_x().items()
        }
        return [(x, sum(of) / len(of), min(of), max(of)) for x, of in found.items() if of]

    def by_x(self) -> dict[float, list[Scored]]:
        """The runs of each x, ascending."""
        kept = {(run.x, run.seed): run for run in self.runs}
        return {x: [run for run in kept.values() if run.x == x] for x in sorted({x for x, _ in kept})}


def read(run: RunDir, checkpoint: str) -> tuple[dict[str, dict[int, float]], dict[str, Any]]:
    """Scores of a checkpoint by metric and k, and the settings they were measured under; ({}, {}) if there are none."""
    stored = {metric: run.json(f"eval/{checkpoint}-{metric}.json") for metric in METRICS}
    try:
        scores = {
            metric: {int(k): float(value) for k, value in found["result"]["by_k"].items()}
            for metric, found in stored.items()
        }
        return scores, dict(stored["topo_robust"]["settings"])
    except (KeyError, TypeError, ValueError, AttributeError):  # measured before scores were kept for several k
        return {}, {}


def families(runs: Sequence[Scored], key: str) -> list[Family]:
    """Runs by experiment, baselines before +TRAIN, in the order in which they come; `key` is the setting on x."""
    found: dict[str, list[Scored]] = {}
    for run in runs:
        found.setdefault(repr(sorted(_identity(run, key).items())), []).append(run)
    members = sorted(found.values(), key=lambda m: m[0].topology)
    return [Family(_label(m[0], [other[0] for other in members], key), tuple(m)) for m in members]


def _label(run: Scored, others: Sequence[Scored], key: str) -> str:
    """The recipe of `run`, and in what it differs from the experiments of `others` that are called the same."""
    name = (run.recipe, run.topology)
    mine, theirs = _identity(run, key), [_identity(o, key) for o in others if (o.recipe, o.topology) == name]
    apart = [f"{k} {threats.short(value)}" for k, value in mine.items() if any(o.get(k) != value for o in theirs)]
    return ", ".join([run.recipe + "+train" * run.topology, *apart])


def _identity(run: Scored, key: str) -> dict[str, Any]:
    """What makes an experiment, apart from the setting `key`."""
    idle = () if run.topology else ("topology.",)
    kept = {
        name: value
        for name, value in run.settings.items()
        if "." in name and name != key and not name.startswith((*_SILENT_SECTIONS, *idle))
    }
    return {"recipe": run.recipe, **kept} | {name: run.measured.get(name) for name in _MEASURED}


def draw(runs: Sequence[Scored], key: str) -> Any:
    """The matplotlib Figure of `runs` with the setting `key` on x.

    UsageError if x has a single value, or there are more than MAX_ROWS experiments.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = families(runs, key)
    if len(values := {run.x for run in runs}) < 2:
        only = ", ".join(f"{x:g}" for x in values)
        raise UsageError(f"{key} is {only} in all these runs", f"`trainctl run RECIPE --grid {key}=…` varies it")
    if len(lines) > MAX_ROWS:
        listed = "; ".join(family.label for family in lines)
        raise UsageError(f"these are {len(lines)} experiments, more than {MAX_ROWS}: {listed}", "name fewer RUNs")
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    figure = Figure(figsize=(6.2, 2.3 * len(lines)), layout=layout)
    axes = figure.subplots(len(lines), len(METRICS), squeeze=False, sharex=True, sharey="col")
    looks = _looks(sorted({k for run in runs for scores in run.scores.values() for k in scores}))
    for row, family in zip(axes, lines, strict=True):
        for axis, metric in zip(row, METRICS, strict=True):
            for k, look in looks.items():
                _line(axis, family.line(metric, k), look)
            frame(axis, METRICS[metric] if family is lines[0] else "", "", "")
            axis.set_xticks(sorted(values))
        row[0].set_ylabel(textwrap.fill(plain(family.label), 32, break_on_hyphens=False) + "\nscore (%)", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("β (method.beta)" if key == "method.beta" else key, fontsize=8)
    set_foot(figure, layout, _legend(figure, looks), textwrap.fill(plain(_caption(runs, lines)), 100))
    return figure


def _looks(ks: Sequence[int]) -> dict[int, dict[str, Any]]:
    """A line's look for each k: the darker and the more solid, the smaller is k."""
    from matplotlib import colormaps

    ramp = colormaps["viridis"]
    return {
        k: {
            "color": ramp(0.8 * number / max(1, len(ks) - 1)), "linestyle": STYLES[number % len(STYLES)],
            "marker": MARKERS[number % len(MARKERS)], "markersize": 4, "linewidth": 1.2,
        }
        for number, k in enumerate(ks)
    }  # fmt: skip


def _line(axis: Any, line: Sequence[tuple[float, float, float, float]], look: Mapping[str, Any]) -> None:
    if line:
        x, mean, low, high = zip(*line, strict=True)
        axis.plot(x, mean, **look)
        axis.fill_between(x, low, high, color=look["color"], alpha=0.1, linewidth=0)


def _legend(figure: Any, looks: Mapping[int, Mapping[str, Any]]) -> Any:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=f"k = {k}", **look) for k, look in looks.items()]
    return figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=8, borderaxespad=0.1,
        handlelength=2.8, columnspacing=1.2,
    )  # fmt: skip


def _caption(runs: Sequence[Scored], lines: Sequence[Family]) -> str:
    """What a score is, over what the lines go, and what was measured how."""
    measured = runs[0].measured
    said = [
        "Topology score: accuracy of a vote among the k nearest of "
        f"{measured.get('support')} natural and adversarial training features ({measured.get('distance')} distance)."
    ]
    seeds = {len(of) for family in lines for of in family.by_x().values()}
    if max(seeds) > 1:
        many = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else str(*seeds)
        said.append(f"Line: mean over {many} seeds; band: their minimum to maximum.")
    attacks = dict.fromkeys(attack(run.measured) for run in runs)
    rules = dict.fromkeys(str(run.measured.get("rule")) for run in runs)
    return " ".join([*said, f"PGD: {'; '.join(attacks)}.", f"Checkpoint: {'; '.join(rules)}."])
