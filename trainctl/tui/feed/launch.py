"""The recipes that can be launched, and what choosing one means here: its price, its data set, its +TRAIN twin."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tomli

from engine import options
from engine.recipe import SECTIONS, Recipe, own_options
from trainctl.errors import TrainctlError, UsageError
from trainctl.home import Home
from trainctl.recipes import datasets, locate
from trainctl.recipes.layers import MAX_BYTES
from trainctl.recipes.load import RecipeProblems, resolve
from trainctl.recipes.plan import Planned, group_of, pair_of
from trainctl.registry import price
from trainctl.registry.watch import Watch

FIRST = "digits-trades"  # where the cursor stands: it takes a minute and needs no download
BUDGET = 0.25  # seconds of reading between two answers, so that the list fills up in sight
MAX_FILES = 200  # of a folder
PRICES = 10.0  # seconds for which prices stand: runs at work change the index all the time, and prices hardly


@dataclass(frozen=True)
class Offer:
    """A line of the picker. All but `recipe` and `own` is empty until it has been `read`, or if it has mistakes."""

    recipe: str
    """As the command line is given it: a name or a path."""
    own: bool
    """A file and no shipped recipe."""
    read: bool = False
    mistakes: str = ""
    title: str = ""
    dataset: str = ""
    method: str = ""
    epochs: int | None = None
    description: str = ""
    our_reading: str = ""
    train: str = ""
    """What +TRAIN would be."""
    data: str = ""
    """Where the data set lies, or that it does not."""
    seconds: float | None = None
    like: int = 0
    """How many past runs the price is from."""


@dataclass(frozen=True)
class Offers:
    """The picker: the recipes that fit what was typed, out of how many; `error` is that of a path."""

    typed: str
    shown: tuple[Offer, ...]
    total: int
    complete: bool
    error: str = ""


class OffersFeed:
    """Answers of the picker; keeps what it has read. Used by one thread at a time."""

    def __init__(self, home: Home, watcher: Watch) -> None:
        self.home = home
        self._watcher = watcher
        self._read: dict[tuple[str, int], tuple[Offer, Planned | None]] = {}
        self._past: price.Past = {}
        self._reckoned = -math.inf
        self._version = -1
        self._listed: tuple[Offer, ...] = ()
        self._last: tuple[object, ...] = ()

    def offers(self, typed: str, near: str) -> Offers | None:
        """What fits `typed` (words, or a path); None if nothing has changed since the last answer.

        The recipes beside `near`, where the cursor stands, are read first.
        """
        if not self._listed:  # the names at once, what stands in the files with the next answers
            self._listed = tuple(_listed())
            return self._answer(typed, False)
        self._prices()
        error, listed = "", self._listed
        if is_path(typed):
            try:
                listed = tuple(_at(typed))
            except UsageError as mistake:
                listed, error = (), _line(mistake)
        deadline = time.monotonic() + BUDGET
        middle = next((index for index, offer in enumerate(listed) if offer.recipe == (near or FIRST)), 0)
        for _, offer in sorted(enumerate(listed), key=lambda at: abs(at[0] - middle)):
            if _identity(offer) not in self._read and time.monotonic() < deadline:
                self._read[_identity(offer)] = _read(offer)
        complete = all(_identity(offer) in self._read for offer in listed)
        asked = (typed, listed, len(self._read), self._version, error)
        if asked == self._last:
            return None
        self._last = asked
        return self._answer(typed, complete, listed, error)

    def _answer(self, typed: str, complete: bool, listed: tuple[Offer, ...] = (), error: str = "") -> Offers:
        offers = [self._priced(offer) for offer in listed or self._listed] if not error else []
        fitting = offers if is_path(typed) else [offer for offer in offers if _fits(offer, typed)]
        return Offers(typed, tuple(fitting), len(self._listed), complete, error)

    def _prices(self) -> None:
        if time.monotonic() - self._reckoned < PRICES:
            return
        # Without an index there are no prices, and everything else is as it was.
        with contextlib.suppress(TrainctlError):
            version = self._watcher.look()
            if version != self._version:
                self._version, self._past = version, price.past(self.home)
            self._reckoned = time.monotonic()

    def _priced(self, offer: Offer) -> Offer:
        offer, run = self._read.get(_identity(offer), (offer, None))
        found = price.cost(run, self._past) if run else None
        if run is None or found is None:
            return offer
        return replace(offer, seconds=price.seconds(run, self._past), like=found.runs)


def is_path(typed: str) -> bool:
    """Whether what was typed means a file or a folder."""
    return "/" in typed or typed.endswith(".toml") or typed.startswith("~")


def about(seconds: float | None, like: int) -> str:
    """`about 4 min here (12 runs like it)`"""
    if seconds is None:
        return "no run like it yet"
    return f"about {span(seconds)} here ({like} run{'s' * (like != 1)} like it)"


def span(seconds: float) -> str:
    """A length of time in words, to two digits: `40 s`, `4 min`, `3.5 h`, `12 d`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 99.5 * size else f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"


def _listed() -> Iterator[Offer]:
    """The recipes of the working directory, then the shipped ones; by name alone."""
    yield from _files(Path())
    for name in locate.shipped():
        yield Offer(name, own=False)


def _at(typed: str) -> Iterator[Offer]:
    """The recipes of a folder, or the one file; UsageError if there is none."""
    path = Path(os.path.expanduser(typed))  # noqa: PTH111 - unlike pathlib's, it never raises
    if os.path.isdir(path):  # noqa: PTH112
        found = list(_files(path))
        if not found:
            raise UsageError(f"no recipe in {typed}", "a recipe is a .toml file; esc lists the shipped ones")
        yield from found
    else:
        locate.find(typed)
        yield Offer(typed, own=True)


def _files(folder: Path) -> Iterator[Offer]:
    """The .toml files of a folder that can be recipes."""
    try:
        files = sorted(file for file in folder.glob("[!_.]*.toml") if file.is_file())
    except OSError:
        return
    for file in files[:MAX_FILES]:
        if _may_be_recipe(file):
            name = locate.display(file)
            yield Offer(f"./{name}" if name.startswith("-") else name, own=True)


def _may_be_recipe(file: Path) -> bool:
    """Whether a file has a recipe's tables; one that cannot be read may be a recipe with a mistake."""
    try:
        if file.stat().st_size > MAX_BYTES:
            return False
        table = tomli.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return not table or not {"extends", *SECTIONS}.isdisjoint(table)


def _identity(offer: Offer) -> tuple[str, int]:
    """A person's own file is read again when it has changed."""
    try:
        return offer.recipe, Path(offer.recipe).expanduser().stat().st_mtime_ns if offer.own else 0
    except (OSError, RuntimeError):
        return offer.recipe, 0


def _fits(offer: Offer, typed: str) -> bool:
    text = " ".join((offer.recipe, offer.title, offer.dataset, offer.method)).casefold()
    return all(word in text for word in typed.casefold().split())


def _read(offer: Offer) -> tuple[Offer, Planned | None]:
    try:
        resolved = resolve(offer.recipe)
    except UsageError as error:
        return replace(offer, read=True, mistakes=_line(error)), None
    recipe, name = resolved.recipe, resolved.name
    run = Planned(recipe, name, name, group_of(recipe, name), pair_of(recipe, name), recipe.run.seed)
    read = replace(
        offer, read=True, title=recipe.title, dataset=recipe.data.dataset, method=recipe.method.name,
        epochs=recipe.schedule.epochs, description=recipe.description.strip(), our_reading=recipe.our_reading.strip(),
        train=train(recipe), data=data(recipe),
    )  # fmt: skip
    return read, run


def train(recipe: Recipe) -> str:
    """What +TRAIN adds to a recipe, in a line."""
    entry = options.readable("Method").get(recipe.method.name)
    if entry is not None and not entry.constants.get("adversarial", True):
        return f"not with {recipe.method.name}, which makes no adversarial images"
    topology = recipe.topology
    parts = [f"L_TP × {topology.weight:g}", "ramped" if topology.ramp else "", f"M is {recipe.standard.arch}"]
    parts += [topology.variant if topology.variant != "joint" else "", "on already" if topology.enabled else ""]
    return ", ".join(filter(None, parts))


def data(recipe: Recipe) -> str:
    """Where the data set of a recipe lies, or that it does not."""
    own = own_options(recipe, "data").get("path")
    place = datasets.locate(recipe.data.dataset, recipe.data.root, own)
    if place is None:
        return ""
    if own is not None:
        return f"at {own}" if place.found else f"there is no {own}" if own else "data.path is to be set"
    if not place.places:
        return place.summary
    if place.found:
        return f"at {place.found}"
    return f"not in {place.root}; {'it is downloaded first' if recipe.data.download else 'put it there'}"


def _line(error: UsageError) -> str:
    """A mistake in one line; of several the first, and how many there are."""
    if isinstance(error, RecipeProblems) and len(error.problems) > 1:
        return f"{error.problems[0]} … and {len(error.problems) - 1} more"
    return f"{error} — {error.hint}" if error.hint else str(error)
