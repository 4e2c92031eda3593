"""`trainctl show`: everything about one run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainctl.cli.common import HomeOption, JsonOption, console, emit_json, printable
from trainctl.home import find_home
from trainctl.registry import labels, select, threats
from trainctl.registry.details import details

if TYPE_CHECKING:
    from rich.table import Table


def show(
    run: Annotated[
        str, typer.Argument(metavar="RUN", show_default=False, help="An id, its beginning, a name or @last.")
    ],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show a run: status, progress, recipe, evaluations with their threat models, checkpoints, environment."""
    place = find_home(home)
    found = details(place, select.one(place, run))
    found["note"] = labels.read(place.run(found["id"])).note  # the index has no control characters
    if as_json:
        emit_json(found)
        return
    from rich.text import Text

    screen = console()
    screen.print(Text(found["name"], style="bold"), Text(found["title"], style="dim"))
    screen.print(_pairs(_summary(found)))
    screen.print(Text("\nrecipe"), Text("(what is not the default)", style="dim"))
    # Keys of no section are words, such as the title above.
    screen.print(_pairs({key: _value(value) for key, value in found["settings"].items() if "." in key}))
    for checkpoint, evals in found["evals"].items():
        rule = next((str(entry["rule"]) for entry in evals if entry.get("rule")), "")
        epoch = next((entry["epoch"] for entry in evals if entry.get("epoch") is not None), "?")
        same = "; the same weights, measured once" if all(_stands_for(entry, found["evals"]) for entry in evals) else ""
        screen.print(Text(f"\n{checkpoint}"), Text(printable(f"({rule}; epoch {epoch}{same})"), style="dim"))
        screen.print(_evaluations(evals))


def _summary(found: dict[str, Any]) -> dict[str, str]:
    env, ended = found["environment"], found["exit"]
    packages = env.get("packages") if isinstance(env.get("packages"), dict) else {}
    git = env.get("git") if isinstance(env.get("git"), dict) else {}
    status = found["status"] + (f": {ended['reason']}" if ended.get("reason") else "")
    lines = {
        "id": found["id"],
        "status": status,
        "hint": str(ended.get("hint") or ""),
        "epoch": f"{found['epoch']} of {found['epochs']}",
        "s/epoch": "" if found["seconds_per_epoch"] is None else f"{found['seconds_per_epoch']:.2f}",
        "recipe": found["recipe"],
        "our reading": found["our_reading"],
        "group": found["group"],
        "pair": found["pair"],
        "created": _moment(found["created"]),
        "started": _moment(found["started"]),
        "finished": _moment(found["finished"]),
        "attempts": str(found["attempts"] or ""),
        "tags": ", ".join(found["tags"]),
        "note": found["note"],
        "checkpoints": ", ".join(found["checkpoints"]),
        "device": f"{env.get('device', found['device'])}" + (f" on {env['host']}" if env.get("host") else ""),
        "torch": str(packages.get("torch") or ""),
        "commit": str(git.get("commit") or "") + (" and uncommitted changes" if git.get("patch") else ""),
        "command": str(found["command"] or ""),
        "folder": found["path"],
    }
    if damaged := found["damaged"]:
        lines["damaged"] = f"{damaged['lines']} line(s) of events.jsonl are no events, from byte {damaged['byte']} on"
    if not found["evals"]:  # before that, the last epoch's values
        lines |= {key: f"{value:.4g}" for key, value in found["metrics"].items() if value is not None}
    return {key: value for key, value in lines.items() if value}


def _pairs(lines: dict[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for key, value in lines.items():
        table.add_row(Text("  " + printable(key)), Text(printable(value)))
    return table


def _stands_for(entry: dict[str, Any], evals: dict[str, list[dict[str, Any]]]) -> bool:
    """True if an evaluation is that of the other checkpoint, and that has still the same weights."""
    others = evals.get(str(entry.get("measured_on")), [])
    return any((other["metric"], other.get("epoch")) == (entry["metric"], entry.get("epoch")) for other in others)


def _evaluations(evals: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    for entry in evals:
        value = entry["value"]
        shown = "–" if value is None else f"{value:.3f}"
        table.add_row(Text("  " + entry["metric"]), shown, Text(printable(threats.words(entry))))
    return table


def _moment(seconds: float | None) -> str:
    try:
        return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
