"""Which runs are compared with which: by the `pair` that planning gave them, a baseline and its +TRAIN groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainctl.registry.query import RunRow


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, one a seed, by seed. `older` counts runs that a newer one replaced."""

    runs: tuple[RunRow, ...]
    older: int = 0

    @property
    def label(self) -> str:
        """The runs' name without the seed."""
        first = self.runs[0]
        return first.name.removesuffix(f"-s{first.seed}")


def pair_up(rows: Iterable[RunRow]) -> tuple[list[tuple[Group, Group]], list[Group]]:
    """(baseline, train) for each +TRAIN group whose baseline is among `rows`, and all other runs as groups.

    The order is that of `rows` (of the first run of each pair or group).
    """
    pairs: list[tuple[Group, Group]] = []
    alone: list[Group] = []
    for members in _by(rows, lambda row: row.pair or row.id).values():
        baseline = [row for row in members if not row.topology]
        train = _by((row for row in members if row.topology), lambda row: row.group or row.id)
        if baseline and train:
            pairs += [(_one_a_seed(baseline), _one_a_seed(group)) for group in train.values()]
        else:
            alone += [_one_a_seed(group) for group in _by(members, lambda row: row.group or row.id).values()]
    return pairs, alone


def _by(rows: Iterable[RunRow], key: object) -> dict[str, list[RunRow]]:
    found: dict[str, list[RunRow]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)  # type: ignore[operator]
    return found


def _one_a_seed(rows: list[RunRow]) -> Group:
    """The newest run of each seed that is done, else the newest: equal runs are equal, and counting one twice would
    make the spread look smaller than it is.
    """
    chosen: dict[int | None, RunRow] = {}
    for row in rows:  # oldest first
        before = chosen.get(row.seed)
        if before is None or row.status == "done" or before.status != "done":
            chosen[row.seed] = row
    runs = sorted(chosen.values(), key=lambda row: (row.seed is None, row.seed or 0))
    return Group(tuple(runs), len(rows) - len(runs))
