"""The pictures of docs/dashboard.md, and its table of keys.

    python benchmarks/screens.py

The runs are made up by tests/gallery.py, all their numbers with them: nothing is trained.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from dashboard import opened  # noqa: E402
from gallery import LIVE, Stop, fill, go, keys_table, still, taken  # noqa: E402

from trainctl.home import Home  # noqa: E402
from trainctl.tui.app import Dashboard  # noqa: E402

DOCS = ROOT / "docs"
SIZE = (120, 36)
STOPS = (
    Stop("runs", (), "epoch 12/20", run=LIVE),
    Stop("run", ("enter",), "dashed: base"),
    Stop("compare", ("escape", "c"), "has no partner yet"),
    Stop("compare", ("down", "enter"), "seed 1"),
    Stop("launch", ("escape", "l"), "TRADES (Zhang"),
    Stop("launch", ("enter", "p"), "2 runs"),
)
"""Of those with the same name the last is kept."""
FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
KEYS = re.compile(r"(?<=<!-- keys -->\n).*?(?=\n<!-- end of keys -->)", re.DOTALL)


async def walk(home: Home) -> dict[str, str]:
    """The pictures by name."""
    pictures = {}
    async with Dashboard(home).run_test(size=SIZE) as pilot:
        await opened(pilot, len(home.run_dirs()))
        for stop in STOPS:
            await go(pilot, stop)
            pictures[stop.name] = FONTS.sub("", await taken(pilot))  # a page of ours loads nothing from elsewhere
    return pictures


def main() -> None:
    """Write them."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        pictures = asyncio.run(walk(fill(still(patch, Path(folder)))))
    for name, picture in pictures.items():
        (DOCS / f"dashboard-{name}.svg").write_text(picture)
    page = DOCS / "dashboard.md"
    page.write_text(KEYS.sub(lambda _: f"\n{keys_table()}\n", page.read_text()))
    print(f"written: {', '.join(pictures)} and the keys of {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
