"""The schema of a recipe: every key, its type, its default, its limits. No torch here: the command line imports it.

`check` turns a nested dict (as TOML gives it) into a `Recipe` and reports *all* its mistakes at once.
Which file and line a key came from is the loader's knowledge (trainctl/recipes), so a `Problem` only names the key.

A number without a unit in its name is in the literature's unit: eps and step_size are fractions of the
pixel range [0, 1] and may be written as "8/255".
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from engine import options


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


def _fraction(value: object) -> object:
    """Read "8/255" as a number; leave anything else to the type check."""
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        try:
            return float(above) / float(below) if slash else value
        except (ValueError, ZeroDivisionError):
            return value
    return value


ARCHES = ("small-cnn", "resnet-18", "wrn-34-10", "mobilenetv3-large")


def _architecture(name: str) -> str:
    """A buildable architecture; wrn-D-W needs D = 6n + 4 with n >= 1, and W >= 1."""
    kind, *numbers = name.split("-")
    if kind == "wrn" and len(numbers) == 2 and all(n.isascii() and n.isdigit() and len(n) < 4 for n in numbers):
        depth, width = map(int, numbers)
        if depth < 10 or depth % 6 != 4 or width < 1:
            raise ValueError("a wrn-D-W has depth D = 10, 16, 22, 28, 34, 40, … and width W of at least 1")
    elif name not in ARCHES:
        raise ValueError(f"no such architecture; {_nearest(name, ARCHES)}")
    return name


def _ascending(milestones: list[int]) -> list[int]:
    if milestones != sorted(milestones):
        raise ValueError("milestones must ascend")
    return milestones


Fraction = Annotated[float, BeforeValidator(_fraction)]
Architecture = Annotated[str, AfterValidator(_architecture)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Attack20 = Literal["pgd10", "pgd20", "cw20", "aa"]


class Section(BaseModel):
    """Base of every section: unknown keys and silent conversions are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=False)


class Data(Section):
    """[data] the data set and how its batches are augmented. A data set's own options stand here too."""

    dataset: str = Field("digits", description="name of a data set")
    root: str = Field("", description="folder that holds data sets; empty: TRAINCTL_DATA or the user's cache")
    verify: bool = Field(True, description="check the checksums of downloaded files")
    download: bool = Field(True, description="fetch a missing data set where that is possible")
    validation: float = Field(0.1, ge=0.0, lt=0.9, description="share of the training set held out to choose `best`")
    train_examples: Count = Field(0, description="train on this many examples, class by class; 0: all")
    crop: Count = Field(0, description="random crop after padding by this many pixels; 0: none")
    padding: Literal["zeros", "reflect"] = Field("zeros", description="what the crop pads with")
    flip: bool = Field(False, description="random horizontal flip")


class Model(Section):
    """[model] the adversarial network M'."""

    arch: Architecture = Field("small-cnn", description="small-cnn, resnet-18, wrn-D-W, mobilenetv3-large")
    width: Count = Field(0, description="channels of the first stage; 0: the architecture's own")
    strides: Literal["standard", "lbgat"] = Field("standard", description="resnet-18: 1-2-2-2, or LBGAT's 1-1-2-2")
    stem: Literal["cifar", "imagenet"] = Field("cifar", description="mobilenetv3: stride of the first layers")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="wrn: dropout inside its blocks")
    mean: list[float] = Field([], description="input normalisation inside the network, per channel; empty: none")
    std: list[float] = Field([], description="input normalisation inside the network, per channel; empty: none")


class Standard(Model):
    """[standard] the standard network M, trained on natural images beside M'."""

    arch: Architecture = Field("resnet-18", description="as model.arch")
    weights: str = Field("", description="variant star: a checkpoint of a finished standard run; empty: train M first")


class Method(Section):
    """[method] the training method; its own options stand beside its name."""

    name: str = Field("trades", description="name of a method")


class Attack(Section):
    """[attack] the training attack: projected gradient ascent inside the l-infinity ball."""

    eps: Fraction = Field(0.031, gt=0.0, le=1.0, description="radius of the ball")
    step_size: Fraction = Field(0.007, gt=0.0, le=1.0, description="length of a step")
    steps: Positive = Field(10, description="number of steps")
    loss: Literal["auto", "ce", "kl", "margin"] = Field("auto", description="what it climbs; auto: the method's own")
    start: Literal["auto", "gaussian", "uniform", "none"] = Field("auto", description="auto: the method's own")
    batchnorm: Literal["eval", "train"] = Field("eval", description="mode of M' during the attack")


class Topology(Section):
    """[topology] TRAIN's loss L_TP. Each reading of the paper's text is an option; docs/train.md explains them."""

    enabled: bool = Field(False, description="+TRAIN; --pair and --train switch it on")
    weight: float = Field(5.0, ge=0.0, description="lambda")
    ramp: bool = Field(False, description="multiply lambda by a(t), which rises from 0 to 1")
    ramp_form: Literal["dann", "literal"] = Field("dann", description="a(t) = 2/(1+exp(-10t/T)) - 1, or as printed")
    ramp_first: Literal[0, 1] = Field(1, description="number of the first epoch in a(t)")
    ramp_period: Count = Field(100, description="T of a(t); 0: the number of epochs")
    variant: Literal["joint", "prime", "star"] = Field(
        "joint", description="TRAIN, TRAIN' (M follows too), TRAIN* (M frozen)"
    )
    source: Literal["adversarial", "natural", "both"] = Field(
        "adversarial", description="images that M' features come from"
    )
    rho: Literal["batch", "set", "none"] = Field("batch", description="where the nearest neighbour is looked for")
    rho_gradient: bool = Field(True, description="let the gradient flow through the nearest-neighbour distance")
    denominator: Literal["column", "literal"] = Field(
        "column", description="normalise by column, or with the printed indices"
    )
    diagonal: Literal["exclude", "include"] = Field("exclude", description="the terms i = j")
    reduction: Literal["sum", "mean-columns", "mean-pairs"] = Field("sum", description="how the pairs are added up")
    divergence: Literal["bernoulli", "kl", "cross-entropy"] = Field(
        "bernoulli", description="both terms, the first, or -p ln q"
    )
    rescale: bool = Field(False, description="scale batches of N to 128, since the sum grows with N")


class Optim(Section):
    """[optim] SGD for M' and M alike."""

    lr: float = Field(0.1, gt=0.0, description="learning rate")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="momentum")
    weight_decay: float = Field(2e-4, ge=0.0, description="on all parameters")
    nesterov: bool = Field(False, description="Nesterov momentum")
    batch_size: Positive = Field(128, description="images a step")


class Schedule(Section):
    """[schedule] epochs count from 1; the rate is multiplied by gamma from each milestone epoch on."""

    epochs: Positive = Field(100, description="number of epochs")
    milestones: Annotated[list[Positive], AfterValidator(_ascending)] = Field(
        [75, 90], description="epochs from which the rate is multiplied by gamma"
    )
    gamma: float = Field(0.1, gt=0.0, le=1.0, description="the factor")
    factors: list[Annotated[float, Field(gt=0.0, le=1.0)]] = Field([], description="one a milestone; empty: gamma")
    first_epoch_lr: float = Field(0.0, ge=0.0, description="rate of epoch 1; 0: as optim.lr (LBGAT's code: 0.02)")


class Eval(Section):
    """[eval] the threat model of the evaluation, and the rule that chooses the checkpoint `best`."""

    attacks: list[Attack20] = Field(["pgd20", "cw20"], description="besides natural accuracy")
    protocol: Literal["lbgat", "las"] = Field("lbgat", description="update rule, start, and default eps and step size")
    eps: Fraction = Field(0.0, ge=0.0, le=1.0, description="radius; 0: the protocol's own")
    step_size: Fraction = Field(0.0, ge=0.0, le=1.0, description="step; 0: the protocol's own")
    select: Literal["validation", "test"] = Field("validation", description="where `best` is chosen")
    best_by: Literal["natural", "pgd10", "pgd20"] = Field("pgd10", description="the accuracy that chooses `best`")
    every: Positive = Field(1, description="epochs between two looks for `best`")
    checkpoints: list[Literal["best", "last"]] = Field(["best", "last"], description="which are evaluated at the end")
    topology: bool = Field(True, description="kNN topology scores")
    topology_k: Positive = Field(30, description="neighbours that vote")
    topology_distance: Literal["cosine", "euclidean"] = Field("cosine", description="distance of features")
    topology_support: Count = Field(0, description="training images in the support set; 0: all")
    examples: Count = Field(0, description="test images, spread over the classes; 0: all")
    aa_examples: Count = Field(0, description="test images for AutoAttack, spread over the classes; 0: all")
    batch_size: Positive = Field(256, description="images a batch")
    seed: Count = Field(0, description="seed of random starts and of AutoAttack")


class Run(Section):
    """[run] how it is carried out."""

    seed: Count = Field(1, description="initial weights, order, augmentation, attack starts")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on GPUs that have it")
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile; auto: off")
    deterministic: bool = Field(False, description="only deterministic kernels; matters on a GPU")
    threads: Count = Field(
        0, description="CPU threads; 0: shared out at launch and recorded, for the sums depend on it"
    )
    log_every: Positive = Field(10, description="steps between two step events")


SECTIONS: dict[str, type[Section]] = {
    "data": Data, "model": Model, "standard": Standard, "method": Method, "attack": Attack, "topology": Topology,
    "optim": Optim, "schedule": Schedule, "eval": Eval, "run": Run,
}  # fmt: skip


class Recipe(Section):
    """A whole recipe. `data` and `method` also carry the options of the chosen data set and method."""

    title: str = Field("", description="one line for people")
    description: str = Field("", description="what it is for and where its settings come from")
    data: Data = Data()
    model: Model = Model()
    standard: Standard = Standard()
    method: Method = Method()
    attack: Attack = Attack()
    topology: Topology = Topology()
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


def own_options(recipe: Recipe, section: Literal["method", "data"]) -> dict[str, Any]:
    """The options that the chosen method or data set adds to its section's fixed keys."""
    part = getattr(recipe, section)
    return {key: getattr(part, key) for key in type(part).model_fields if key not in SECTIONS[section].model_fields}


def _schema(table: dict[str, Any], problems: list[Problem]) -> type[Recipe]:
    """The schema with the chosen method's and data set's own options added to their sections."""
    fields: dict[str, Any] = {}
    for kind, section, key, noun in (
        ("Method", "method", "name", "method"),
        ("DataSource", "data", "dataset", "data set"),
    ):
        known = options.catalog(kind)
        part = table.get(section, {})
        name = part.get(key, SECTIONS[section].model_fields[key].default) if isinstance(part, dict) else None
        if isinstance(name, str) and name in known:
            extended = _extend(section, known[name])
            fields[section] = (extended, extended())
        elif isinstance(name, str):
            problems.append(Problem(f"{section}.{key}", f"there is no {noun} {name!r}", _nearest(name, known)))
            fields[section] = (create_model(section.title(), __base__=SECTIONS[section]), SECTIONS[section]())
            # its options are unknown as well: saying so once is enough
            fields[section][0].model_config["extra"] = "allow"
            fields[section][0].model_rebuild(force=True)
    return create_model("Recipe", __base__=Recipe, **fields)


@cache
def _extended(section: str, path: str, mtime: int, name: str) -> type[Section]:
    entry = options.catalog({"method": "Method", "data": "DataSource"}[section])[name]
    fields: dict[str, Any] = {}
    for key, item in entry.options.items():
        bounds = {word: value for word, value in item.bounds.items() if word != "choices"}
        choices = item.bounds.get("choices")
        kind: Any = Literal[tuple(choices)] if choices else Fraction if item.type is float else item.type
        fields[key] = (kind, Field(item.default, description=item.help, **bounds))
    return create_model(section.title(), __base__=SECTIONS[section], **fields)


def _extend(section: str, entry: options.Entry) -> type[Section]:
    return _extended(section, str(entry.path), entry.path.stat().st_mtime_ns, entry.name)


def _problem(detail: dict[str, Any], schema: type[Recipe]) -> Problem:
    """A pydantic error in our words: what stands there, what was expected, the nearest right name."""
    where = [part for part in detail["loc"] if isinstance(part, str)]
    key = ".".join(where)
    if detail["type"] == "extra_forbidden":
        section = schema.model_fields[where[0]].annotation if len(where) > 1 else schema
        known = list(getattr(section, "model_fields", {}))
        return Problem(key, "unknown key", _nearest(where[-1], known))
    text = detail["msg"].replace("Input should be", "expected").removeprefix("Value error, ")
    if detail["type"] in ("model_type", "model_attributes_type"):
        text = f"expected a table, written [{key}]"
    given = detail.get("input")
    shown = str(given).lower() if isinstance(given, bool) else repr(given)
    return Problem(key, f"{shown[:60]} is not allowed: {text}" if "input" in detail else text, _choices(detail))


def _choices(detail: dict[str, Any]) -> str:
    given = detail.get("input")
    expected = str(detail.get("ctx", {}).get("expected", ""))
    names = [part.strip(" '") for part in expected.replace(" or ", ", ").split(",")]
    return _nearest(given, names) if isinstance(given, str) and detail["type"] == "literal_error" else ""


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _impossible(recipe: Recipe, broken: set[str]) -> list[Problem]:
    """Settings that are each fine and together cannot run; nothing is said about sections in `broken`."""
    found: list[Problem] = []

    def refuse(condition: bool, key: str, message: str, hint: str, *others: str) -> None:
        if condition and broken.isdisjoint({key.split(".")[0], *others}):
            found.append(Problem(key, message, hint))

    method = options.catalog("Method")[recipe.method.name]
    refuse(
        recipe.topology.enabled and not method.constants.get("adversarial", True),
        "topology.enabled", f"method {recipe.method.name!r} makes no adversarial images, which L_TP needs",
        "choose an adversarial method, or topology.enabled = false", "method",
    )  # fmt: skip
    refuse(
        recipe.topology.enabled and recipe.optim.batch_size < 3,
        "optim.batch_size", f"{recipe.optim.batch_size} is not allowed: L_TP compares neighbours, so 3 or more",
        "the paper uses 128", "topology",
    )  # fmt: skip
    refuse(
        recipe.eval.select == "validation" and recipe.data.validation == 0.0,
        "data.validation", "0.0 leaves nothing to choose `best` on",
        'hold out a share, or set eval.select = "test"', "eval",
    )  # fmt: skip
    refuse(
        len(recipe.schedule.factors) not in (0, len(recipe.schedule.milestones)), "schedule.factors",
        f"{len(recipe.schedule.factors)} factors for {len(recipe.schedule.milestones)} milestones",
        "one for each milestone, or none",
    )  # fmt: skip
    refuse(
        recipe.optim.nesterov and recipe.optim.momentum == 0.0,
        "optim.nesterov", "Nesterov momentum needs optim.momentum above 0", "set optim.momentum = 0.9",
    )  # fmt: skip
    refuse(
        bool(recipe.standard.weights) and recipe.topology.enabled and recipe.topology.variant != "star",
        "standard.weights", "only topology.variant = \"star\" starts from a trained M; elsewhere M learns beside M'",
        'set topology.variant = "star", or leave standard.weights out', "topology",
    )  # fmt: skip
    for name in ("model", "standard"):
        part: Model = getattr(recipe, name)
        refuse(
            part.arch == "mobilenetv3-large" and part.width > 0,
            f"{name}.width", "the widths of mobilenetv3-large are fixed", f"leave {name}.width at 0",
        )  # fmt: skip
        refuse(
            any(value <= 0 for value in part.std), f"{name}.std", f"{part.std}: expected numbers above 0",
            "one of each per channel",
        )  # fmt: skip
        refuse(
            len(part.mean) != len(part.std), f"{name}.std",
            f"{len(part.std)} values, but {name}.mean has {len(part.mean)}", "one of each per channel, or none",
        )  # fmt: skip
    return found
