"""Where the code that runs comes from: the commit of its checkout, or what was noted when it was frozen for a run.

trainctl freezes it: see trainctl/launch/frozen.py.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

NOTE = "code.json"
"""Lies beside the package in a frozen copy."""
LONGEST = 1_000_000  # characters of a patch that are kept


def origin(root: Path) -> dict[str, Any]:
    """Where the package in `root` comes from.

    `code` is the name of the frozen copy that it is, None if it is none; `git` the commit and the uncommitted patch of
    the checkout that it is or was copied from, None if that was none; `plugins` the folders of the plug-ins that were
    frozen with it, in their order.
    """
    try:
        found = json.loads((root / NOTE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {"code": None, "git": commit(root), "plugins": []}
    note = found if isinstance(found, dict) else {}
    plugins = note.get("plugins")
    return {
        "code": root.name,
        "git": note.get("git"),
        "plugins": [str(folder) for folder in plugins] if isinstance(plugins, list) else [],
    }


def commit(root: Path) -> dict[str, str] | None:
    """Commit and uncommitted patch of the checkout `root`; None if it is none, or git does not answer."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=True).stdout

    try:
        if not (root / ".git").exists():
            return None
        return {"commit": git("rev-parse", "HEAD").strip(), "patch": git("diff", "HEAD")[:LONGEST]}
    except (OSError, subprocess.SubprocessError):
        return None
