"""Everything about one run, for `trainctl show`: its row, its recipe, its evaluations, and what lies in its folder."""

from __future__ import annotations

from typing import Any

from trainctl.home import Home
from trainctl.registry import ingest, query
from trainctl.registry.query import RunRow


def details(home: Home, row: RunRow) -> dict[str, Any]:
    """The object of `show --json`: the keys of `ls --json`, and path, command, settings (where they are not the
    defaults), evals by checkpoint, checkpoints, attempts, exit, environment, and damaged: how many lines of
    events.jsonl are no events, and the byte where the first one begins.
    """
    folder = home.run(row.id)
    evals: dict[str, list[dict[str, Any]]] = {}
    for found in query.evals(home, row.id):
        about = {"metric": found.metric, "value": found.value, "n": found.n, **found.settings}
        evals.setdefault(found.checkpoint, []).append(about)
    return {
        **row.json(),
        "path": str(folder.path),
        "command": folder.json("run.json").get("command"),
        "settings": unusual(ingest.read_settings(folder)),
        "evals": evals,
        "checkpoints": sorted(path.stem for path in folder.checkpoints.glob("*.safetensors")),
        "attempts": _lines(folder.attempts.read_bytes()) if folder.attempts.is_file() else 0,
        "exit": folder.json("exit.json"),
        "environment": folder.json("env.json"),
        "damaged": next(({"lines": lines, "byte": at} for _, lines, at in query.damage(home, row.id)), None),
    }


def unusual(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from their defaults; all, if the recipe's method or data set is not known here.

    The data set and the method are always among them.
    """
    from engine import recipe

    chosen = {"data": {"dataset": settings.get("data.dataset")}, "method": {"name": settings.get("method.name")}}
    try:
        tree = recipe.check(chosen).model_dump()
    except recipe.InvalidRecipe:
        return settings
    defaults = {
        f"{name}.{key}": value for name, part in tree.items() if isinstance(part, dict) for key, value in part.items()
    }
    named = ("data.dataset", "method.name")
    return {key: value for key, value in settings.items() if key in named or value != defaults.get(key, "")}


def _lines(content: bytes) -> int:
    return content.count(b"\n")
