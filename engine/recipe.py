"""A whole recipe and its mistakes. No torch here: the command line imports it.

`check` turns a nested dict (as TOML gives it) into a `Recipe` and reports *all* its mistakes at once.
Which file and line a key came from is the loader's knowledge (trainctl/recipes), so a `Problem` only names the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, create_model

from engine import options
from engine.sections import (
    SECTIONS,
    Attack,
    Data,
    Eval,
    Fraction,
    Method,
    Model,
    Optim,
    Run,
    Schedule,
    Section,
    Standard,
    Terms,
    Topology,
    nearest,
)

__all__ = [
    "SECTIONS", "Attack", "Data", "Eval", "InvalidRecipe", "Method", "Model", "Optim", "Problem", "Recipe", "Run",
    "Schedule", "Standard", "Terms", "Topology", "check", "dotted", "keys", "needs_standard", "own_options",
]  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One mistake: the dotted key, what is wrong with it, and what to do instead."""

    key: str
    message: str
    hint: str = ""


class InvalidRecipe(ValueError):
    """A recipe with mistakes; `problems` holds all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.key}: {p.message}" for p in problems))
        self.problems = problems


class Recipe(Section):
    """A whole recipe. `data`, `method` and `terms` also carry the options of what was chosen there."""

    title: str = Field("", description="one line for people")
    description: str = Field("", description="what it is for and where its settings come from")
    our_reading: str = Field("", description="what its authors leave open and is our choice; every table says so")
    data: Data = Data()
    model: Model = Model()
    standard: Standard = Standard()
    method: Method = Method()
    attack: Attack = Attack()
    topology: Topology = Topology()
    terms: Terms = Terms()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    eval: Eval = Eval()
    run: Run = Run()


def check(table: dict[str, Any]) -> Recipe:
    """Validate a resolved recipe (without `extends`); raise InvalidRecipe with every mistake in it."""
    problems: list[Problem] = []
    schema = _schema(table, problems)
    broken = {problem.key.split(".")[0] for problem in problems}
    try:
        recipe = schema.model_validate(table)
    except ValidationError as error:
        details: list[dict[str, Any]] = [dict(detail) for detail in error.errors(include_url=False)]
        problems += [_problem(detail, schema) for detail in details]
        broken |= {str(detail["loc"][0]) for detail in details}
    if broken:
        # What the sound sections say together is still worth checking.
        recipe = schema.model_validate({key: part for key, part in table.items() if key not in broken})
    problems += _impossible(recipe, broken)
    if problems:
        raise InvalidRecipe(problems)
    return recipe


def keys() -> dict[str, str]:
    """Every dotted key of the fixed schema with its description."""
    return {
        f"{name}.{key}": field.description or ""
        for name, section in SECTIONS.items()
        for key, field in section.model_fields.items()
    }


def dotted(path: Iterable[str]) -> str:
    """A key as TOML writes it: optim.lr, or optim."l r"."""
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False) for part in path)


def own_options(recipe: Recipe, section: Literal["method", "data"]) -> dict[str, Any]:
    """The options that the chosen method or data set adds to its section's fixed keys."""
    part = getattr(recipe, section)
    return {key: getattr(part, key) for key in type(part).model_fields if key not in SECTIONS[section].model_fields}


def needs_standard(recipe: Recipe) -> bool:
    """True if M takes part: for TRAIN, for the method, or for one of the terms."""
    parts = options.constants(recipe.method.name, recipe.terms.model_dump(), "needs_standard")
    return recipe.topology.enabled or bool(parts)


_BARE = re.compile("[A-Za-z0-9_-]+")
# In the order of `_assembled`.
_CHOOSERS = {"method": ("Method", "name", "method"), "data": ("DataSource", "dataset", "data set")}


def _schema(table: dict[str, Any], problems: list[Problem]) -> type[Recipe]:
    """The schema with the chosen method's and data set's own options, and all terms, added to their sections."""
    chosen: list[type[Section]] = []
    for section, (kind, key, noun) in _CHOOSERS.items():
        known = options.catalog(kind)
        part = table.get(section, {})
        name = part.get(key, SECTIONS[section].model_fields[key].default) if isinstance(part, dict) else None
        if isinstance(name, str) and name in known:
            chosen.append(_extend(kind, known[name]))
        elif isinstance(name, str):
            problems.append(Problem(f"{section}.{key}", f"there is no {noun} {name[:60]!r}", nearest(name, known)))
            chosen.append(_open(section))  # its options are unknown as well: saying so once is enough
        else:
            chosen.append(SECTIONS[section])
    terms = tuple((name, _extend("Term", entry)) for name, entry in options.catalog("Term").items())
    return _assembled(terms, *chosen)


@lru_cache(maxsize=256)  # pydantic takes milliseconds to make one
def _assembled(
    terms: tuple[tuple[str, type[Section]], ...], method: type[Section], data: type[Section]
) -> type[Recipe]:
    optional: dict[str, Any] = {name: (section | None, None) for name, section in terms}
    parts = {"terms": create_model("Terms", __base__=Terms, **optional), "method": method, "data": data}
    fields: dict[str, Any] = {name: (section, section()) for name, section in parts.items()}
    return create_model("Recipe", __base__=Recipe, **fields)


class _Open(Section):
    model_config = ConfigDict(extra="allow")


@cache
def _open(section: str) -> type[Section]:
    """The section with any further keys."""
    return create_model(section.title(), __base__=(SECTIONS[section], _Open))


def _extend(kind: str, entry: options.Entry) -> type[Section]:
    """The section of one method, data set or term, with its own options."""
    return _extended(kind, entry.name, str(entry.path), entry.path.stat().st_mtime_ns)


@cache
def _extended(kind: str, name: str, path: str, mtime: int) -> type[Section]:
    fields: dict[str, Any] = {}
    for key, item in options.catalog(kind)[name].options.items():
        bounds = {word: value for word, value in item.bounds.items() if word != "choices"}
        choices = item.bounds.get("choices")
        type_: Any = Literal[tuple(choices)] if choices else Fraction if item.type is float else item.type
        fields[key] = (type_, Field(item.default, description=item.help, **bounds))
    bases: dict[str, type[Section]] = {"Method": Method, "DataSource": Data, "Term": Section}
    return create_model(kind, __base__=bases[kind], **fields)


def _problem(detail: dict[str, Any], schema: type[Recipe]) -> Problem:
    """A pydantic error in our words: what stands there, what was expected, the nearest right name."""
    where = [part for part in detail["loc"] if isinstance(part, str)]
    key = dotted(where)
    if detail["type"] == "extra_forbidden":
        if len(where) == 3:
            known = list(options.catalog("Term")[where[1]].options)
        else:
            section = schema.model_fields[where[0]].annotation if len(where) == 2 else schema
            known = list(getattr(section, "model_fields", {}))
        return Problem(key, "unknown key", nearest(where[-1], known))
    text = detail["msg"].replace("Input should be", "expected").removeprefix("Value error, ")
    if detail["type"] == "string_pattern_mismatch" and len(where) == 2:
        text = f"expected {_described(schema, *where)}"
    if detail["type"] in ("model_type", "model_attributes_type"):
        text = f"expected a table, written [{key}]"
    given = detail.get("input")
    shown = str(given).lower() if isinstance(given, bool) else repr(given)
    return Problem(key, f"{shown[:60]} is not allowed: {text}" if "input" in detail else text, _choices(detail))


def _described(schema: type[Recipe], section: str, key: str) -> str:
    """What the schema says of a key."""
    fields: dict[str, Any] = getattr(schema.model_fields[section].annotation, "model_fields", {})
    return str(fields[key].description)


def _choices(detail: dict[str, Any]) -> str:
    given = detail.get("input")
    expected = str(detail.get("ctx", {}).get("expected", ""))
    names = [part.strip(" '") for part in expected.replace(" or ", ", ").split(",")]
    return nearest(given, names) if isinstance(given, str) and detail["type"] == "literal_error" else ""


# Whether a recipe is refused, by which key, with which words and hint, and the other sections that have a say in it.
_Refusal = tuple[bool, str, str, str, *tuple[str, ...]]


def _impossible(recipe: Recipe, broken: set[str]) -> list[Problem]:
    """Settings that are each fine and together cannot run; nothing is said about sections in `broken`."""
    return [
        Problem(key, message, hint)
        for refused, key, message, hint, *others in chain(_contradictions(recipe), _misfits(recipe))
        if refused and broken.isdisjoint({key.split(".")[0], *others})
    ]


def _contradictions(recipe: Recipe) -> Iterator[_Refusal]:
    """What a method, the terms and training cannot do together."""
    method = options.catalog("Method")[recipe.method.name]
    natural = not method.constants.get("adversarial", True)
    yield (
        recipe.topology.enabled and natural,
        "topology.enabled", f"method {recipe.method.name!r} makes no adversarial images, which L_TP needs",
        "choose an adversarial method, or topology.enabled = false", "method",
    )  # fmt: skip
    for name in recipe.terms.model_dump():
        yield (
            natural, f"terms.{name}", f"method {recipe.method.name!r} makes no adversarial images, which this needs",
            "choose an adversarial method, or leave the term out", "method",
        )  # fmt: skip
    yield (
        recipe.topology.enabled and recipe.optim.batch_size < 3,
        "optim.batch_size", f"{recipe.optim.batch_size} is not allowed: L_TP compares neighbours, so 3 or more",
        "the paper uses 128", "topology",
    )  # fmt: skip
    yield (
        bool(options.catalog("DataSource")[recipe.data.dataset].constants.get("needs_path"))
        and not getattr(recipe.data, "path", ""),
        "data.path", f"data set {recipe.data.dataset!r} lies nowhere yet", "set data.path to where it lies",
    )  # fmt: skip
    yield (
        0 < recipe.data.train_examples < 3,
        "data.train_examples", f"{recipe.data.train_examples} is not allowed: a batch is 3 images or more",
        "0 trains on all",
    )  # fmt: skip
    whole = bool(options.constants(recipe.method.name, recipe.terms.model_dump(), "needs_whole_batch"))
    yield (
        whole and (0 < recipe.run.micro_batch < recipe.optim.batch_size or recipe.run.shrink_on_oom),
        "run.shrink_on_oom" if recipe.run.shrink_on_oom else "run.micro_batch",
        "the method, or one of the terms, needs a whole batch at once",
        "leave it out, and lower optim.batch_size if memory ends", "method", "terms", "optim",
    )  # fmt: skip
    yield (
        recipe.eval.select == "validation" and recipe.data.validation == 0.0,
        "data.validation", "0.0 leaves nothing to choose `best` on",
        'hold out a share, or set eval.select = "test"', "eval",
    )  # fmt: skip
    yield (
        len(recipe.schedule.factors) not in (0, len(recipe.schedule.milestones)), "schedule.factors",
        f"{len(recipe.schedule.factors)} factors for {len(recipe.schedule.milestones)} milestones",
        "one for each milestone, or none",
    )  # fmt: skip
    yield (
        recipe.optim.nesterov and recipe.optim.momentum == 0.0,
        "optim.nesterov", "Nesterov momentum needs optim.momentum above 0", "set optim.momentum = 0.9",
    )  # fmt: skip
    yield (
        bool(recipe.standard.weights) and recipe.topology.enabled and recipe.topology.variant != "star",
        "standard.weights", "only topology.variant = \"star\" starts from a trained M; elsewhere M learns beside M'",
        'set topology.variant = "star", or leave standard.weights out', "topology",
    )  # fmt: skip


def _misfits(recipe: Recipe) -> Iterator[_Refusal]:
    """What is wrong with M' or with M."""
    for name in ("model", "standard"):
        part: Model = getattr(recipe, name)
        yield (
            part.arch == "mobilenetv3-large" and part.width > 0,
            f"{name}.width", "the widths of mobilenetv3-large are fixed", f"leave {name}.width at 0",
        )  # fmt: skip
        yield (
            any(value <= 0 for value in part.std), f"{name}.std", f"{part.std}: expected numbers above 0",
            "one of each per channel",
        )  # fmt: skip
        yield (
            len(part.mean) != len(part.std), f"{name}.std",
            f"{len(part.std)} values, but {name}.mean has {len(part.mean)}", "one of each per channel, or none",
        )  # fmt: skip
