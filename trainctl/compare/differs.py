"""What differs between the two sides of a pair besides the regulariser: an unfair comparison should look like one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from trainctl.compare.members import Member
from trainctl.registry.readings import constants
from trainctl.registry.threats import Threat

# What is recorded more truly elsewhere: the seeds are matched, device and threads stand in env.json.
_SILENT = {
    "run.seed", "run.device", "run.threads", "run.log_every", "run.gpus", "run.max_hours", "run.retries",
    "run.shrink_on_oom",
}  # fmt: skip
MICRO_BATCH, FOLD = "run.micro_batch", "run.fold"
_ENVIRONMENT = ("python", "device", "device_type", "cuda", "threads", "precision", "compiled", "plugins")
_SHOWN = 4  # settings in a sentence
# What steps compute depends on these, no group's hash does: runs that are averaged may differ in them, which is said
# also where both sides do so alike.
_WITHIN = (MICRO_BATCH, FOLD, "precision", "compiled")


def differences(baseline: list[Member], train: list[Member]) -> tuple[dict[str, Any], ...]:
    """{"key", "baseline", "train"} for each recipe setting, version, device, commit and rule that is not the same.

    A value is a list where the runs of one side differ among themselves. [topology] is what the pair is about and is
    left out, as is [standard] where only TRAIN uses it.
    """
    left, right = [_facts(side) for side in (baseline, train)]
    found = []
    for key in dict.fromkeys([*left, *right]):
        before, after = left.get(key, [None]), right.get(key, [None])
        apart = before != after or (key in _WITHIN and _mixed(before))
        if apart and (not key.startswith("standard.") or _needs_standard(baseline)):
            found.append({"key": key, "baseline": _one(before), "train": _one(after)})
    return tuple(found)


def mixtures(side: list[Member]) -> list[str]:
    """In words, what the runs of one side differ in although they are averaged."""
    facts = _facts(side)
    mixed = {key: facts[key] for key in _WITHIN if _mixed(facts.get(key, []))}
    return [f"the runs differ in {key}: {' and '.join(map(_word, values))}" for key, values in mixed.items()]


def among_namesakes(groups: list[list[Member]]) -> list[str]:
    """In words, for each of several groups of one name, its settings where theirs are not all the same; "" for none."""
    tables = [dict(_settings(side[0])) for side in groups]
    keys = dict.fromkeys(key for table in tables for key in table)
    apart = [key for key in keys if len({repr(table.get(key)) for table in tables}) > 1]
    apart.sort(key=lambda key: key.startswith("eval."))  # what was trained says more than what was measured
    found = []
    for table in tables:
        words = [f"{key} = {_word(table[key])}" for key in apart if key in table]
        more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
        found.append(f"one of several of this name, with {', '.join(words[:_SHOWN])}{more}" if words else "")
    return found


def threat_differences(metric: str, baseline: list[Member], train: list[Member]) -> list[dict[str, Any]]:
    """The same for the settings that `metric` was measured under, over the seeds that both sides have it for."""
    left, right = [_threats(side, metric) for side in (baseline, train)]
    pairs = [(left[seed], right[seed]) for seed in left if seed in right]
    if not pairs and left and right:
        pairs = [(next(iter(left.values())), next(iter(right.values())))]
    apart = [(before, after) for before, after in pairs if before != after]
    found = []
    for key in dict.fromkeys(key for pair in apart for threat in pair for key in threat):
        values = [(before.get(key), after.get(key)) for before, after in apart if before.get(key) != after.get(key)]
        if values:
            sides = [list(dict.fromkeys(side)) for side in zip(*values, strict=True)]
            found.append({"key": f"{metric} {key}", "baseline": _one(sides[0]), "train": _one(sides[1])})
    return found


def _threats(side: list[Member], metric: str) -> dict[int | None, Threat]:
    found = {member.run.seed: member.threat(metric) for member in side}
    return {seed: threat for seed, threat in found.items() if threat is not None}


def _facts(side: list[Member]) -> dict[str, list[Any]]:
    """The distinct values of each key over the runs of a side, in an order that does not depend on theirs."""
    found: dict[str, list[Any]] = {}
    tables = [dict(_of(member)) for member in side]
    for key in dict.fromkeys(key for table in tables for key in table):
        values = {repr(table.get(key)): table.get(key) for table in tables}
        found[key] = [value for _, value in sorted(values.items())]
    return found


def _of(member: Member) -> Iterable[tuple[str, Any]]:
    yield from ((key, value) for key, value in _settings(member) if not key.startswith("topology."))
    env = {"compiled": False, **member.env} if member.env else {}  # it is younger than the rest
    yield from ((key, env.get(key)) for key in _ENVIRONMENT if key in env)
    packages, git = env.get("packages"), env.get("git")
    if isinstance(packages, dict):
        yield from packages.items()
    if isinstance(git, dict):
        yield "git commit", str(git.get("commit"))[:12]
        patch = git.get("patch")
        yield "uncommitted changes", hashlib.sha256(str(patch).encode()).hexdigest()[:8] if patch else "none"
    if member.rule:
        yield "checkpoint rule", member.rule


def _settings(member: Member) -> Iterable[tuple[str, Any]]:
    for key, value in _completed(member.settings).items():
        if "." in key and key not in _SILENT:  # others are words, as the title
            yield key, value


def _mixed(values: list[Any]) -> bool:
    """True if the runs of a side are known to differ: None is a run without env.json, as one that waits."""
    return sum(value is not None for value in values) > 1


def _completed(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` with what a recipe stands for that is older than a key: the engine folded nothing then."""
    return {**settings, FOLD: settings.get(FOLD, False), MICRO_BATCH: _micro_batch(settings)}


def _micro_batch(settings: dict[str, Any]) -> Any:
    """0 where a step takes the whole batch, as in recipes that are older than the key."""
    part, batch = settings.get(MICRO_BATCH, 0), settings.get("optim.batch_size")
    return 0 if isinstance(part, int) and isinstance(batch, int) and part >= batch else part


def _needs_standard(side: list[Member]) -> bool:
    """True if the baseline's own method, or one of its terms, trains M."""
    return bool(constants(side[0].settings, "needs_standard"))


def _word(value: Any) -> str:
    """As a recipe has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _one(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
