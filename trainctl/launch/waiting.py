"""Who of the queue may start now, and what the others wait for: one rule, for the scheduler and for who watches it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from trainctl.launch.slots import Need

CORES = "cores"
ROUNDING = 1e-9  # three thirds are a whole
UNSERVED = "there is room, but no scheduler to start it"
PARTS = {0.25: "a quarter of", 0.5: "half of", 0.75: "three quarters of"}


@dataclass(frozen=True)
class Held:
    """What the run `run` (its id) holds while it works: a share of the cores, and GPUs.

    `gpu` are their numbers as "0" or "0,1", or ""; `part` is how much of each, in (0, 1].
    """

    run: str
    share: float
    gpu: str
    part: float = 1.0

    @property
    def gpus(self) -> tuple[str, ...]:
        """Their numbers."""
        return tuple(self.gpu.split(",")) if self.gpu else ()


def hold(run: str, wanted: Need, gpu: str) -> Held:
    """What a run with the need `wanted` holds once it was started on `gpu`."""
    return Held(run, wanted.share, gpu, min(1.0, wanted.gpus))


@dataclass(frozen=True)
class Verdict:
    """`gpu` are the GPUs to start on, as "0" or "0,1", "" for none, or None: it waits.

    Then `lacks` is "cores", "gpu", "turn" (one before it waits for the same), "held" or "paused", `holders` are the
    runs in its way, and `keeps` is what nobody behind it may take: CORES, or numbers of GPUs. `machine` is how many
    GPUs there are.
    """

    wanted: Need
    gpu: str | None
    lacks: str = ""
    holders: tuple[Held, ...] = ()
    keeps: tuple[str, ...] = ()
    machine: int = 0

    def words(self, names: Mapping[str, str], cores: int) -> str:
        """Why it waits; `names` are those of runs by id, and the machine has `cores`."""
        who = _listed([names.get(held.run, held.run) for held in self.holders])
        if self.gpu is not None:
            return "starts next"
        if self.lacks == "held":
            return "held, until `trainctl queue continue` names it"
        if self.lacks == "paused":
            return "the queue is paused"
        if self.lacks == "turn":
            return f"behind {who}, which waits for the same"
        if self.lacks == "gpu":
            return self._gpus(who)
        taken = sum(held.share for held in self.holders)
        need = f"needs {count(self.wanted.share, cores)} of {cores} cores"
        return f"{need}; {count(taken, cores)} taken by {who}"

    def _gpus(self, who: str) -> str:
        wanted = self.wanted
        if wanted.gpus > 1:
            taken = len({number for held in self.holders for number in held.gpus})
            return f"needs {wanted.gpus:g} of {self.machine} GPUs; {taken} taken by {who}"
        if wanted.gpus == 1:
            return f"waits for {gpus(wanted)}, taken by {who}"
        lacking = "none has" if wanted.gpu == "any" else "it has not"
        return f"needs {gpus(wanted)}; {lacking} that much left beside {who}"


def judge(wanted: Need, held: Sequence[Held], gpus: Sequence[str], before: Mapping[str, str]) -> Verdict:
    """Whether a run may start beside those at work. `before` is what is kept for runs in front of it: CORES or the
    number of a GPU, and the run's id.

    The first run on an empty machine fits whatever it asks for. Nobody overtakes one that waits for the same, and the
    same is what is kept for the one that waits: all cores, if it lacks cores; and of the GPUs its own, if it is
    pinned, or as many as it needs, those that are least taken. Whoever works on them ends some day and nobody new
    comes, so that a run that needs several GPUs, or a whole one among runs that share, is never starved; the other
    GPUs may be filled meanwhile by the runs behind it.
    """
    used = sum(each.share for each in held)
    # Where nvidia-smi is missing, "cuda" is taken to be one GPU.
    candidates = [] if not wanted.gpu else list(gpus or ["0"]) if wanted.gpu == "any" else [wanted.gpu]
    load = {number: sum(each.part for each in held if number in each.gpus) for number in candidates}
    left = [number for number in candidates if number not in before]
    wants = {*candidates, CORES} if wanted.share else set(candidates)

    def waits(lacks: str, holders: Sequence[Held]) -> Verdict:
        keeps = (CORES,) * (lacks == "cores") + _least(left, load, wanted.gpus)
        return Verdict(wanted, None, lacks, tuple(holders), keeps, len(candidates))

    if used and wanted.share and used + wanted.share > 1 + ROUNDING:
        return waits("cores", [each for each in held if each.share])
    if wanted.gpu and _chosen(candidates, load, wanted.gpus) is None:
        return waits("gpu", [each for each in held if load.keys() & set(each.gpus)])
    chosen = _chosen(left, load, wanted.gpus) if wanted.gpu else ""
    if chosen is None or (wanted.share and CORES in before):
        first = next(run for kept, run in before.items() if kept in wants)
        return waits("turn", [Held(first, wanted.share, wanted.gpu)])
    return Verdict(wanted, chosen)


def _chosen(numbers: Sequence[str], load: Mapping[str, float], gpus: float) -> str | None:
    """The GPUs of `numbers` to start on. A part goes where least stays free, so that whole ones stay whole."""
    room = [number for number in numbers if load[number] + min(1.0, gpus) <= 1 + ROUNDING]
    many = max(1, int(gpus))
    if len(room) < many:
        return None
    return ",".join(room[:many]) if gpus >= 1 else max(room, key=lambda number: load[number])


def _least(numbers: Sequence[str], load: Mapping[str, float], gpus: float) -> tuple[str, ...]:
    return tuple(sorted(numbers, key=lambda number: load[number])[: max(1, int(gpus))])


def explain(
    queue: Sequence[tuple[str, Need]],
    held: Sequence[Held],
    gpus: Sequence[str],
    *,
    resting: Collection[str] = (),
    paused: bool = False,
) -> list[Verdict]:
    """A verdict for each run (id, need) of the queue, in its order, as the scheduler's next round will find.

    `resting` are the ids of runs that are held: others pass them. A queue that is `paused` starts nothing.
    """
    working, before, verdicts = list(held), dict[str, str](), list[Verdict]()
    for run, wanted in queue:
        if run in resting or paused:
            verdicts.append(Verdict(wanted, None, "held" if run in resting else "paused"))
            continue
        verdicts.append(verdict := judge(wanted, working, gpus, before))
        if verdict.gpu is not None:
            working.append(hold(run, wanted, verdict.gpu))
        for kept in verdict.keeps:
            before.setdefault(kept, run)
    return verdicts


def gpus(wanted: Need) -> str:
    """What is wanted of the GPUs: `a GPU`, `half of GPU 1`, `2 GPUs`; "" for none."""
    if not wanted.gpu or wanted.gpus > 1:
        return f"{wanted.gpus:g} GPUs" if wanted.gpu else ""
    part = "" if wanted.gpus == 1 else PARTS.get(wanted.gpus, f"{wanted.gpus:.2g} of") + " "
    return part + ("a GPU" if wanted.gpu == "any" else f"GPU {wanted.gpu}")


def count(share: float, cores: int) -> str:
    """A share of the cores as their number."""
    return f"{round(share * cores, 1):g}"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and 3 more`."""
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"
