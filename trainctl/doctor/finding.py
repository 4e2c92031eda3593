"""What a check found, and the words that all checks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainctl.registry.plain import text

OK, WARNING, MISSING = "ok", "warning", "missing"
GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `missing` means that trainctl, or a run that is queued, cannot work without it.

    The first line of `detail` says it; each line behind it names one of several. `fixable`: `doctor --fix` mends it.
    """

    check: str
    status: str
    detail: str
    hint: str = ""
    fixable: bool = False
    group: str = ""


def size(count: float) -> str:
    """Bytes as `340 kB`, `12 MiB`, `1.2 GiB`."""
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / (1 << 20):.0f} MiB" if count >= 1 << 20 else f"{count / 1000:.0f} kB"


def span(seconds: float) -> str:
    """`40 s`, `12 min`, `5 h`, `3 days`."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"


def counted(number: int, thing: str) -> str:
    """`1 run`, `2 runs`, `3 processes`."""
    return f"{number} {thing}{'' if number == 1 else 'es' if thing.endswith(('s', 'x')) else 's'}"


def lines(first: str, each: Sequence[str], most: int = 5) -> str:
    """`first`, and below it `each` on a line of its own, at most `most` of them; no name can break its line."""
    more = [f"and {len(each) - most} more"] if len(each) > most else []
    return "\n".join([first, *map(text, each[:most]), *more])


def some(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c and 4 more`."""
    return ", ".join(map(text, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
