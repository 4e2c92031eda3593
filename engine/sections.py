"""The sections of a recipe: every fixed key, its type, its default, its limits. No torch here.

A number without a unit in its name is in the literature's unit: eps and step_size are fractions of the
pixel range [0, 1] and may be written as "8/255".
"""

from __future__ import annotations

import difflib
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_serializer


def nearest(word: str, known: Any) -> str:
    """A hint for `word`, which is none of `known`."""
    close = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _fraction(value: object) -> object:
    """Read "8/255" as a number; leave anything else to the type check."""
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        try:
            quotient = float(above) / float(below) if slash else math.nan
        except (ValueError, ZeroDivisionError):
            return value
        return quotient if math.isfinite(quotient) else value
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
        raise ValueError(f"no such architecture; {nearest(name, ARCHES)}")
    return name


def _ascending(milestones: list[int]) -> list[int]:
    if milestones != sorted(milestones):
        raise ValueError("milestones must ascend")
    return milestones


def _gpus(number: float) -> float:
    if number > 1 and number % 1:
        raise ValueError("a part of one GPU (up to 1.0), or a whole number of them")
    return number


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
    crop: Count = Field(0, le=1024, description="random crop after padding by this many pixels; 0: none")
    padding: Literal["zeros", "reflect"] = Field("zeros", description="what the crop pads with")
    flip: bool = Field(False, description="random horizontal flip")


class Model(Section):
    """[model] the adversarial network M'."""

    arch: Architecture = Field("small-cnn", description="small-cnn, resnet-18, wrn-D-W, mobilenetv3-large")
    width: Count = Field(0, le=65_536, description="channels of the first stage; 0: the architecture's own")
    strides: Literal["standard", "lbgat"] = Field("standard", description="resnet-18: 1-2-2-2, or LBGAT's 1-1-2-2")
    stem: Literal["cifar", "imagenet"] = Field("cifar", description="mobilenetv3: stride of the first layers")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="wrn: dropout inside its blocks")
    mean: list[float] = Field([], description="input normalisation inside the network, per channel; empty: none")
    std: list[float] = Field([], description="input normalisation inside the network, per channel; empty: none")


class Standard(Model):
    """[standard] the standard network M, trained on natural images beside M'."""

    arch: Architecture = Field("resnet-18", description="as model.arch")
    weights: str = Field("", description="variant star: a checkpoint, or any .safetensors; empty: train M first")
    torch_weights: bool = Field(
        False, description="weights may be a .pt: a pickle, which can hold code; only its tensors are read"
    )


class Method(Section):
    """[method] the training method; its own options stand beside its name."""

    name: str = Field("trades", description="name of a method")
    forwards: Literal["shared", "official"] = Field(
        "shared", description="train-mode forwards: each once, or in the sequence of the authors' code"
    )


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


class Terms(Section):
    """[terms.NAME] further losses beside the method's own; each has its weight and its own options."""

    @model_serializer(mode="wrap")
    def _present(self, dump: Any) -> dict[str, Any]:
        """Only the terms that are there: TOML has no word for nothing."""
        return {name: part for name, part in dump(self).items() if part is not None}


class Optim(Section):
    """[optim] SGD for M' and M alike."""

    lr: float = Field(0.1, gt=0.0, description="learning rate")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="momentum")
    weight_decay: float = Field(2e-4, ge=0.0, description="on all parameters")
    nesterov: bool = Field(False, description="Nesterov momentum")
    batch_size: Positive = Field(128, le=1_000_000, description="images a step")


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
    batch_size: Positive = Field(256, le=1_000_000, description="images a batch")
    seed: Count = Field(0, description="seed of random starts and of AutoAttack")


class Run(Section):
    """[run] how it is carried out."""

    seed: Count = Field(1, description="initial weights, order, augmentation, attack starts")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where it is fast")
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile; auto: in long runs on a GPU")
    fold: bool = Field(True, description="attack with BatchNorm folded into convolutions; equal but for rounding")
    deterministic: bool = Field(False, description="only deterministic kernels; matters on a GPU")
    threads: Count = Field(
        0, le=4096, description="CPU threads; 0: shared out at launch and recorded, for the sums depend on it"
    )
    log_every: Positive = Field(10, description="steps between two step events")
    gpus: Annotated[float, AfterValidator(_gpus)] = Field(
        1.0,
        gt=0.0,
        le=64.0,
        description="GPUs it takes, where there are some: 0.25 shares one with others, 2 takes two",
    )
    max_hours: float = Field(0.0, ge=0.0, description="write a checkpoint and stop as `timeout` after it; 0: no limit")
    retries: Count = Field(
        0, le=1000, description="times that the queue goes on by itself with a lost or preempted run"
    )
    shrink_on_oom: bool = Field(False, description="retries: out of memory too, anew with half the micro_batch")
    micro_batch: Count = Field(
        0, description="images a forward while it trains; 0: the whole batch. BatchNorm and L_TP see no more than these"
    )


SECTIONS: dict[str, type[Section]] = {
    "data": Data, "model": Model, "standard": Standard, "method": Method, "attack": Attack, "topology": Topology,
    "terms": Terms, "optim": Optim, "schedule": Schedule, "eval": Eval, "run": Run,
}  # fmt: skip
