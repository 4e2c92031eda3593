"""`trainctl plot`: training curves as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainctl.cli.common import HomeOption, RunsArgument
from trainctl.home import Home, find_home

if TYPE_CHECKING:
    from trainctl.plot.series import History

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; .png, .svg or .pdf says as what.")
]
MetricsOption = Annotated[
    str,
    typer.Option(
        metavar="NAMES", show_default=False, help="A panel each, as loss,validation_pgd10; else the usual ones."
    ),
]


def plot(
    runs: RunsArgument, output: OutputOption = Path("curves.png"), metrics: MetricsOption = "", home: HomeOption = None
) -> None:
    """Draw training curves: a panel a metric, the mean of the seeds with a band, and TRAIN − baseline."""
    from trainctl.errors import UsageError
    from trainctl.plot import curves

    curves.check_format(output)
    found = histories(find_home(home), runs)
    if not found:
        raise UsageError(f"no run fits {', '.join(runs)}", "`trainctl ls` lists all runs")
    figure = curves.draw(found, [name.strip() for name in metrics.split(",") if name.strip()])
    curves.save(figure, output)
    print(output)


def histories(home: Home, selectors: list[str]) -> list[History]:
    """What the runs that any of `selectors` means measured in each epoch; UsageError for a bad selector."""
    from trainctl.plot.series import History
    from trainctl.registry import query, select

    rows = select.resolve(home, selectors)
    settings = query.settings(home)
    return [
        History(
            name=row.name,
            group=row.group or row.id,
            pair=row.pair or row.id,
            topology=row.topology,
            seed=row.seed if row.seed is not None else 0,
            threat=_threat(settings.get(row.id, {})),
            values={
                metric: {
                    point.epoch: point.value
                    for point in query.points(home, row.id, metric)
                    if point.epoch is not None and point.value is not None
                }
                for metric in query.metrics(home, row.id)
            },
        )
        for row in rows
    ]


def _threat(settings: dict[str, object]) -> str:
    """The threat model of the accuracies measured while training; eps 0 stands for the protocol's own."""
    protocol, eps = settings.get("eval.protocol"), settings.get("eval.eps")
    if not protocol:
        return ""
    return f"l∞, {protocol} protocol" + (f", ε = {eps:g}" if isinstance(eps, (int, float)) and eps else "")
