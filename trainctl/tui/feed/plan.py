"""The runs that a draft means, before they start: where each would work, what they cost, which are there already."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.home import Home
from trainctl.launch import slots, waiting
from trainctl.launch.start import at_once, start
from trainctl.recipes.plan import Planned, plan
from trainctl.registry import price, standing
from trainctl.registry.labels import check_tag
from trainctl.registry.watch import Watch
from trainctl.tui.feed.draft import JOBS, NAME, SEEDS, Draft
from trainctl.tui.feed.form import parse_jobs


@dataclass(frozen=True)
class Candidate:
    """A run that would start. `seconds` is None if there was no run like it; `done` is the id of an equal one."""

    name: str
    method: str
    seed: int
    settings: str
    place: str
    seconds: float | None
    done: str


@dataclass(frozen=True)
class Plan:
    """What would start, `together` so many at a time, behind `before` others; `line` is the command that does it.

    `seconds` is until all have ended, of the `known` runs that have a price.
    """

    draft: Draft
    planned: tuple[Planned, ...]
    share: float | None
    runs: tuple[Candidate, ...]
    together: int
    before: int
    seconds: float
    known: int
    line: str

    @property
    def done(self) -> int:
        """How many of them have an equal one that is done."""
        return sum(bool(run.done) for run in self.runs)


def planned(home: Home, watcher: Watch, draft: Draft) -> Plan:
    """What starting `draft` would do. UsageError, and as its kind RecipeProblems, for its mistakes."""
    option = draft.option
    plans = plan(
        [draft.recipe], overrides=draft.settings, grid=draft.grid, seeds=option(SEEDS) or None,
        pair=draft.side == "pair", train=draft.side == "train", name=option(NAME) or None,
    )  # fmt: skip
    for tag in draft.tags:
        check_tag(tag)
    plans, share = slots.share_out(plans, parse_jobs(option(JOBS)) if option(JOBS) else None)
    watcher.look()
    done, past, gpus = standing.done(home), price.past(home), slots.gpus()
    runs = tuple(
        Candidate(
            run.name, run.recipe.method.name + (" +TRAIN" if run.recipe.topology.enabled else ""), run.seed,
            " ".join(run.overrides), _place(run, gpus), price.seconds(run, past), done.get((run.group, run.seed), ""),
        )
        for run in plans
    )  # fmt: skip
    costs = [run.seconds for run in runs if run.seconds is not None]
    together = at_once(plans, share, gpus)
    seconds = price.total(costs, max(1, together))
    return Plan(draft, tuple(plans), share, runs, together, standing.ahead(home), seconds, len(costs), draft.line(home))


def begin(home: Home, chosen: Plan) -> str:
    """Queue the runs of a plan, all or none, as `trainctl run -d` does; what to say of it. Errors as of `start`."""
    draft = chosen.draft
    runs = start(home, chosen.planned, tags=draft.tags, share=chosen.share, command=draft.command(home))
    return f"{len(runs)} run{'s' * (len(runs) != 1)} queued"


def _place(run: Planned, gpus: list[str]) -> str:
    how = run.recipe.run
    wanted = slots.asked(how.device, how.threads, how.gpus, None, gpus)
    return f"{waiting.gpus(wanted) or 'CPU'}, {how.threads} thread{'s' * (how.threads != 1)}"
