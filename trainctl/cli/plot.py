"""`trainctl plot`: training curves, feature spaces and topology scores as figures."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainctl.cli.common import HomeOption, RunsArgument, note
from trainctl.errors import UsageError
from trainctl.home import Home, find_home

if TYPE_CHECKING:
    from engine.rundir import RunDir
    from trainctl.plot.topology import Scored
    from trainctl.plot.tsne import Panel

BETA = "method.beta"


class Kind(StrEnum):
    """What a figure shows."""

    curves = "curves"
    tsne = "tsne"
    topology = "topology"


class Which(StrEnum):
    """The checkpoints of a run."""

    best = "best"
    last = "last"


# Which figures an option is of; the others are of all.
OF = {
    "metrics": (Kind.curves,), "x": (Kind.topology,), "checkpoint": (Kind.tsne, Kind.topology),
    "classes": (Kind.tsne,), "per_class": (Kind.tsne,), "inset": (Kind.tsne,),
}  # fmt: skip


def plot(
    runs: RunsArgument,
    kind: Annotated[
        Kind, typer.Option(help="Training curves, t-SNE of the features, or topology scores against a setting.")
    ] = Kind.curves,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default="KIND.png",
            help="Where to write it; .png, .svg or .pdf says as what.",
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAMES", show_default=False,
            help="Of curves: a panel each, as loss,validation_pgd10; else the usual ones.",
        ),
    ] = "",
    x: Annotated[
        str, typer.Option(metavar="KEY", show_default=BETA, help="Of topology: the setting on the x-axis.")
    ] = "",
    checkpoint: Annotated[Which, typer.Option(help="Of tsne and topology: which checkpoint.")] = Which.best,
    classes: Annotated[int, typer.Option(min=1, max=10, help="Of tsne: how many classes, drawn at random.")] = 10,
    per_class: Annotated[int, typer.Option(min=1, help="Of tsne: how many images of each.")] = 100,
    inset: Annotated[bool, typer.Option(help="Of tsne: training images in a corner.")] = True,
    home: HomeOption = None,
    context: typer.Context = None,  # type: ignore[assignment]  # not there when it is called as a function
) -> None:  # fmt: skip
    """Draw runs as a figure.

    Curves: a panel a metric, the mean of the seeds with a band, and TRAIN − baseline. t-SNE: a panel a run, the
    features of its test images, natural and under PGD-20; the engine computes it, once. Topology: scores against beta
    or another setting, a line for each number of neighbours.
    """
    from trainctl.plot import looks

    path = output or Path(f"{kind.value}.png")
    looks.check_format(path)
    _check_options(context, kind)
    place = find_home(home)
    if kind is Kind.tsne:
        figure = _tsne(place, runs, checkpoint.value, classes, per_class, inset)
    elif kind is Kind.topology:
        figure = _topology(place, runs, checkpoint.value, x or BETA)
    else:
        figure = _curves(place, runs, [name.strip() for name in metrics.split(",") if name.strip()])
    looks.save(figure, path)
    print(path)


def _check_options(context: typer.Context | None, kind: Kind) -> None:
    for name, kinds in OF.items():
        source = context.get_parameter_source(name) if context else None
        if source is not None and source.name == "COMMANDLINE" and kind not in kinds:
            option = "--" + name.replace("_", "-")
            of = " or ".join(one.value for one in kinds)
            raise UsageError(f"{option} has no meaning for {kind.value}", f"it is of --kind {of}")


def _curves(home: Home, selectors: list[str], metrics: list[str]) -> Any:
    from trainctl.compare.histories import histories
    from trainctl.plot import curves
    from trainctl.registry.select import some

    return curves.draw(histories(home, some(home, selectors)), metrics)


def _tsne(home: Home, selectors: list[str], checkpoint: str, classes: int, per_class: int, inset: bool) -> Any:
    """A panel a run, in the order of `selectors`."""
    from trainctl.cli.eval import check_run, work_on
    from trainctl.plot import tsne
    from trainctl.registry.select import some

    rows = list({row.id: row for selector in selectors for row in some(home, [selector])}.values())
    if len(rows) > tsne.MAX_RUNS:
        raise UsageError(f"these are {len(rows)} runs, and t-SNE has {tsne.MAX_RUNS} panels", "name fewer RUNs")
    for row in rows:
        check_run(home.run(row.id), [checkpoint])
    options = ["--classes", str(classes), "--per-class", str(per_class)]
    panels: list[Panel] = []
    for row in rows:
        run = home.run(row.id)
        work_on(run, row.name, f"t-SNE of {checkpoint}", ["--embed", "--checkpoint", checkpoint, *options])
        panels.append(_panel(home, run, row.name, checkpoint))
    return tsne.draw(panels, inset=inset)


def _panel(home: Home, run: RunDir, name: str, checkpoint: str) -> Panel:
    from trainctl.plot import tsne
    from trainctl.registry import query

    known = {found.metric: found for found in query.evals(home, run.id) if found.checkpoint == checkpoint}
    natural, robust = known.get("natural"), known.get("pgd20")
    return tsne.Panel(
        name,
        natural=natural.value if natural else None,
        robust=robust.value if robust else None,
        examples=next((found.n for found in (robust, natural) if found), None),
        embedding=tsne.read(run, checkpoint),
    )


def _topology(home: Home, selectors: list[str], checkpoint: str, key: str) -> Any:
    from engine.events import number
    from trainctl.plot import topology
    from trainctl.registry import query
    from trainctl.registry.select import some

    rows = some(home, selectors)  # brings the index up to date
    settings = query.settings(home)
    scored: list[Scored] = []
    without: list[str] = []
    unscored: list[str] = []
    old: list[str] = []
    for row in rows:
        table = settings.get(row.id, {})
        value = number(table.get(key))
        if value is None or not math.isfinite(value) or (key.startswith("topology.") and not row.topology):
            without.append(row.name)
            continue
        scores, measured = topology.read(home.run(row.id), checkpoint)
        if not scores:
            if table.get("eval.topology") is False or not home.run(row.id).checkpoint(checkpoint).exists():
                unscored.append(row.name)
                continue
            old.append(row.id)
        scored.append(topology.Scored(row.recipe, row.topology, row.seed or 0, table, value, scores, measured))
    if not scored and unscored:
        hint = "`trainctl resume` trains on, and eval.topology = true measures them"
        raise UsageError(f"none of these runs can have topology scores of checkpoint {checkpoint}", hint)
    if not scored:
        hint = "--x names the setting on the x-axis; `trainctl show RUN` lists all"
        raise UsageError(f"none of these runs has a number {key}", hint)
    if old:
        hint = f"`trainctl eval {' '.join(old)} --checkpoint {checkpoint}` measures them"
        raise UsageError(f"no topology scores for several k of checkpoint {checkpoint}: {_some(old)}", hint)
    if unscored:
        note(f"left out, without a checkpoint {checkpoint} or with eval.topology = false: {_some(unscored)}")
    if without:
        note(f"left out, without a number {key}: {_some(without)}")
    return topology.draw(scored, key)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
