"""`trainctl doctor`: what is wrong with this machine and its runs, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from trainctl.cli.common import HomeOption, JsonOption, emit_json, note, printable
from trainctl.doctor.checks import findings
from trainctl.doctor.finding import MISSING, OK, WARNING, Finding, counted
from trainctl.errors import MACHINE, MachineError
from trainctl.home import Home, find_home

if TYPE_CHECKING:
    from rich.console import RenderableType

STYLES = {OK: ("✓", "green"), WARNING: ("!", "bold yellow"), MISSING: ("✗", "bold red")}
ORDER = (MISSING, WARNING, OK)


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended without a loss, and say what.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Find what is wrong: dead runs, orphans, locks, disk, GPUs, data sets, programs."""
    place = find_home(home)
    if fix:
        _mend(place)
    found = list(findings(place))
    if as_json:
        emit_json([asdict(finding) for finding in found])
    else:
        _show(found)
    if any(finding.status == MISSING for finding in found):
        raise typer.Exit(MACHINE)


def _mend(place: Home) -> None:
    from trainctl.doctor.fix import mend

    done = False
    try:
        for sentence in mend(place):
            done = True
            note(sentence)
    except MachineError:
        return  # the home cannot be written, which is found too
    if not done:
        note("nothing to mend")


def _show(found: Sequence[Finding]) -> None:
    from trainctl.cli.common import console

    out = console()
    for group, of_it in groupby(found, lambda finding: finding.group):
        out.print(group, style="bold")
        ordered = sorted(of_it, key=lambda finding: ORDER.index(finding.status))
        for finding, following in zip(ordered, [*ordered[1:], None], strict=True):
            repeated = following is not None and following.hint == finding.hint  # the same advice is given once
            out.print(*_block(finding, "" if repeated else finding.hint), sep="\n")
        out.print()
    wrong = [finding for finding in found if finding.status != OK]
    if not wrong:
        out.print("All is well.")
        return
    missing = sum(finding.status == MISSING for finding in wrong)
    mendable = sum(finding.fixable for finding in wrong)
    said = f"{counted(len(wrong), 'thing')} to look at"
    said += f", {missing} essential" if missing else ""
    said += f"; `trainctl doctor --fix` mends {mendable}" if mendable else ""
    out.print(said)


def _block(finding: Finding, hint: str) -> Iterator[RenderableType]:
    """A line, below it each of what it names, and what to do."""
    from rich.table import Table
    from rich.text import Text

    def indented(mark: str, width: int, text: str, style: str) -> Table:
        row = Table.grid()
        row.add_column(width=width)
        row.add_column(overflow="fold")
        row.add_row(Text(mark, style=style), Text(printable(text), style=style))
        return row

    glyph, style = STYLES[finding.status]
    first, *each = finding.detail.split("\n")
    line = Table.grid(padding=(0, 1))
    for width in (2, 18, None):
        line.add_column(width=width, overflow="fold")
    check = printable(finding.check.removeprefix("data: "))
    line.add_row(Text(f" {glyph}", style=style), Text(check, "" if finding.status == OK else style), printable(first))
    yield line
    yield from (indented("", 5, item, "") for item in each)
    if hint:
        yield indented("   →", 5, hint, "dim")
