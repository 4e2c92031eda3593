"""Who of the queue may start now, and what the others wait for: one rule, for the scheduler and for who watches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainctl.launch.slots import Need


@dataclass(frozen=True)
class Held:
    """What the run `run` (its id) holds while it works: a share of the cores, and the number of a GPU or ""."""

    run: str
    share: float
    gpu: str


@dataclass(frozen=True)
class Verdict:
    """`gpu` is the GPU to start on, "" for none, or None: it waits.

    Then `lacks` is "cores", "gpu" or "turn" (one before it waits for the same), and `holders` are the runs in its way.
    """

    wanted: Need
    gpu: str | None
    lacks: str = ""
    holders: tuple[Held, ...] = ()

    def words(self, names: Mapping[str, str], cores: int) -> str:
        """Why it waits; `names` are those of runs by id, and the machine has `cores`."""
        who = [names.get(held.run, held.run) for held in self.holders]
        if self.gpu is not None:
            return "starts next"
        if self.lacks == "turn":
            return f"behind {who[0]}, which waits for the same"
        if self.lacks == "gpu":
            what = "a GPU" if self.wanted.gpu == "any" else f"GPU {self.wanted.gpu}"
            return f"waits for {what}, taken by {_listed(who)}"
        taken = sum(held.share for held in self.holders)
        need = f"needs {count(self.wanted.share, cores)} of {cores} cores"
        return f"{need}; {count(taken, cores)} taken by {_listed(who)}"


def judge(wanted: Need, held: Sequence[Held], gpus: Sequence[str], before: Mapping[str, str]) -> Verdict:
    """Whether a run may start beside those at work. `before` are the runs that wait in front of it, by `kind`.

    The first run on an empty machine fits whatever it asks for; nobody overtakes one that waits for the same.
    """
    used = sum(each.share for each in held)
    if used and used + wanted.share > 1 + 1e-9:
        return Verdict(wanted, None, "cores", tuple(each for each in held if each.share))
    gpu: str | None = ""
    if wanted.gpu:
        # Where nvidia-smi is missing, "cuda" is taken to be one GPU.
        candidates = (gpus or ["0"]) if wanted.gpu == "any" else [wanted.gpu]
        taken = {each.gpu for each in held}
        gpu = next((number for number in candidates if number not in taken), None)
        if gpu is None:
            return Verdict(wanted, None, "gpu", tuple(each for each in held if each.gpu in candidates))
    if first := before.get(kind(wanted)):
        return Verdict(wanted, None, "turn", (Held(first, wanted.share, wanted.gpu),))
    return Verdict(wanted, gpu)


def kind(wanted: Need) -> str:
    """What a run queues for: the cores, any GPU, or one GPU."""
    return wanted.gpu or "cores"


def explain(queue: Sequence[tuple[str, Need]], held: Sequence[Held], gpus: Sequence[str]) -> list[Verdict]:
    """A verdict for each run (id, need) of the queue, in its order, as the scheduler's next round will find."""
    working, before, verdicts = list(held), dict[str, str](), list[Verdict]()
    for run, wanted in queue:
        verdicts.append(verdict := judge(wanted, working, gpus, before))
        if verdict.gpu is None:
            before.setdefault(kind(wanted), run)
        else:
            working.append(Held(run, wanted.share, verdict.gpu))
    return verdicts


def count(share: float, cores: int) -> str:
    """A share of the cores as their number."""
    return f"{round(share * cores, 1):g}"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and 3 more`."""
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"
