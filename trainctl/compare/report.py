"""Builds a `Comparison` from the index and the run folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from engine.events import METRICS
from trainctl.compare import members, paper
from trainctl.compare.differs import among_namesakes, differences, mixtures, threat_differences
from trainctl.compare.members import SECONDS, Member
from trainctl.compare.pairs import Group, pair_up
from trainctl.compare.rows import Comparison, Pair, Side
from trainctl.compare.statistics import paired_difference, spread
from trainctl.home import Home
from trainctl.registry import ingest, query
from trainctl.registry.query import RunRow
from trainctl.registry.threats import Threat

_Loaded = Mapping[str, Member]


def compare(home: Home, selected: Iterable[RunRow] | None = None, checkpoint: str = "best") -> Comparison:
    """Compare the runs `selected`, or all that are done and not archived; `checkpoint` is "best" or "last".

    A selected run that is not done takes part with the numbers it has, and is marked.
    """
    if selected is None:
        ingest.freshen(home)
        # A run that has trained no epoch only measured time.
        selected = [row for row in query.runs(home) if row.status == "done" and row.epoch and not row.archived]
    rows = list(selected)
    return build(*pair_up(rows), members.load_all(home, rows, checkpoint), checkpoint)


def build(
    pairs: Iterable[tuple[Group, Group]], alone: Iterable[Group], loaded: Mapping[str, Member], checkpoint: str
) -> Comparison:
    """Compare what `pair_up` gives; `loaded` are the runs by id, with their evaluations of `checkpoint`."""
    columns = _columns(loaded.values())
    both = [_pair(baseline, train, columns, loaded, checkpoint) for baseline, train in pairs]
    single = [_alone(group, columns, loaded, checkpoint) for group in alone]
    told = _namesakes([side for pair in both for side in (pair.baseline, pair.train)] + single, loaded)

    def named(side: Side) -> Side:
        return replace(side, notes=(*side.notes, told[side.runs])) if told.get(side.runs) else side

    return Comparison(
        checkpoint,
        columns,
        tuple(replace(pair, baseline=named(pair.baseline), train=named(pair.train)) for pair in both),
        tuple(map(named, single)),
    )


def _namesakes(sides: Iterable[Side], loaded: _Loaded) -> dict[tuple[str, ...], str]:
    """By their runs, what tells sides of one name apart: `--grid` names runs by their settings, `--set` does not."""
    groups: dict[str, dict[tuple[str, ...], list[Member]]] = {}
    for side in sides:
        groups.setdefault(side.label, {})[side.runs] = [loaded[run] for run in side.runs]
    found: dict[tuple[str, ...], str] = {}
    for group in groups.values():
        if len(group) > 1:
            found.update(zip(group, among_namesakes(list(group.values())), strict=True))
    return found


def _columns(loaded: Iterable[Member]) -> tuple[str, ...]:
    """The metrics that any run has, in the order of METRICS; unknown ones follow, and the cost comes last."""
    measured: set[str] = set()
    timed = False
    for member in loaded:
        measured.update(metric for metric in member.evals if member.value(metric) is not None)
        timed = timed or member.value(SECONDS) is not None
    ordered = [metric for metric in METRICS if metric in measured] + sorted(measured - METRICS.keys())
    return (*ordered, SECONDS) if timed else tuple(ordered)


def _pair(baseline: Group, train: Group, columns: tuple[str, ...], loaded: _Loaded, checkpoint: str) -> Pair:
    before, after = [[loaded[run.id] for run in group.runs] for group in (baseline, train)]
    left, right = [_side(group, columns, loaded, checkpoint) for group in (baseline, train)]
    apart = {metric: threat_differences(metric, before, after) for metric in columns}
    return Pair(
        label=left.label,
        baseline=left,
        train=right,
        delta={metric: paired_difference(_by_seed(before, metric), _by_seed(after, metric)) for metric in columns},
        differs=(*differences(before, after), *(entry for found in apart.values() for entry in found)),
        unequal=tuple(metric for metric, found in apart.items() if found),
        paper=paper.published(before[0].settings, after[0].settings),
    )


def _alone(group: Group, columns: tuple[str, ...], loaded: _Loaded, checkpoint: str) -> Side:
    runs = [loaded[run.id] for run in group.runs]
    side = _side(group, columns, loaded, checkpoint)
    return replace(side, notes=(*side.notes, *mixtures(runs)), paper=paper.published_alone(runs[0].settings))


def _by_seed(side: list[Member], metric: str) -> dict[object, float | None]:
    return {member.run.seed: member.value(metric) for member in side}


def _side(group: Group, columns: tuple[str, ...], loaded: _Loaded, checkpoint: str) -> Side:
    side = [loaded[run.id] for run in group.runs]
    threats: dict[str, list[Threat]] = {}
    for member in side:
        for metric in columns:
            threat = member.threat(metric)
            if threat is not None and threat not in threats.setdefault(metric, []):
                threats[metric].append(threat)
    return Side(
        label=group.label,
        dataset=group.runs[0].dataset,
        model=group.runs[0].model,
        protocol=str(side[0].settings.get("eval.protocol", "")),
        rule=" or ".join(dict.fromkeys(member.rule for member in side if member.rule)),
        runs=tuple(run.id for run in group.runs),
        seeds=tuple(run.seed for run in group.runs),
        metrics={metric: spread(member.value(metric) for member in side) for metric in columns},
        threats=threats,
        notes=tuple(_notes(group, side, columns, checkpoint)),
    )


def _notes(group: Group, side: list[Member], columns: tuple[str, ...], checkpoint: str) -> Iterable[str]:
    """What a reader must know about all numbers of a row."""
    unfinished = [f"{run.id} is {run.status}" for run in group.runs if run.status != "done"]
    if any(run.our_reading for run in group.runs):
        yield "our reading: " + "; ".join(dict.fromkeys(run.our_reading for run in group.runs if run.our_reading))
    if unfinished:
        yield "not done: " + ", ".join(unfinished)
    if checkpoint == "best" and any(member.settings.get("eval.select") == "test" for member in side):
        yield "`best` was chosen on the test set"
    if group.older:
        yield f"{group.older} older run{'s' * (group.older > 1)} of the same seed left out"
    for metric in columns:
        have = sum(member.value(metric) is not None for member in side)
        if 0 < have < len(side):
            yield f"{metric}: {have} of {len(side)} runs have a value"
