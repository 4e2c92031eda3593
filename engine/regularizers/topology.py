"""TRAIN's topology loss L_TP: the neighbourhood graph of M' follows that of the standard network M.

The relation of two samples is the cosine of their penultimate features (the kernel of PKT, Passalis & Tefas 2018),
taken relative to the distance rho to the nearest neighbour and compared as fuzzy sets (UMAP, McInnes et al. 2018).
What the paper's text leaves open is a `Reading`; its defaults are the reading that fits the paper's own numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.losses import wide
from engine.regularizers.base import Regularizer

if TYPE_CHECKING:
    from engine import recipe
    from engine.step import Step

RESCALED_BATCH = 128  # the paper's batch size, for which its weights were chosen


@dataclass(frozen=True)
class Reading:
    """How the formula of L_TP is read. Names and values are those of the recipe's [topology]."""

    rho: Literal["batch", "set", "none"] = "batch"
    """Where the nearest neighbour is looked for; none: affinities 1 + s_ij."""
    rho_gradient: bool = True
    """Let the gradient flow through the nearest-neighbour distance."""
    denominator: Literal["column", "literal"] = "column"
    """sum over k of a_kj, so that columns sum to 1; or of a_jk, the indices as printed."""
    diagonal: Literal["exclude", "include"] = "exclude"
    """Include: the terms i = j are counted as well (they are never in the denominator)."""
    reduction: Literal["sum", "mean-columns", "mean-pairs"] = "sum"
    """Over all pairs; or that sum divided by N, or by the number of pairs."""
    divergence: Literal["bernoulli", "kl", "cross-entropy"] = "bernoulli"
    """p ln(p/q) + (1-p) ln((1-p)/(1-q)); the first term; or -p ln q."""
    rescale: bool = False
    """Multiply the sum, which grows with N, by 128/N."""

    @classmethod
    def of(cls, section: recipe.Topology) -> Reading:
        """The reading that a recipe's [topology] names."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})


DEFAULT = Reading()


def neighbor_graph(features: Tensor, reading: Reading = DEFAULT, outside: Tensor | None = None) -> Tensor:
    """Probabilities p_{i|j} that sample i is a neighbour of sample j, in column j. TRAIN eq. 9-12.

    features [N, D] -> [N, N] of float32 or wider, with a zero diagonal (unless the reading includes it).
    `outside` [N] holds each sample's distance to the nearest sample that is not in the batch; the reading rho="set"
    needs it. Raises ValueError for fewer than 3 samples.
    """
    count = len(features)
    if features.dim() != 2 or count < 3:
        raise ValueError(
            f"features of shape {tuple(features.shape)}: a neighbourhood graph needs [N, D] with N >= 3, "
            "so a batch of 3 samples or more"
        )
    with torch.autocast(features.device.type, enabled=False):
        unit = _unit(features)
        similarity = unit @ unit.T
        itself = torch.eye(count, dtype=torch.bool, device=features.device)
        rho = _nearest(similarity.masked_fill(itself, -torch.inf), reading, outside)
        affinity = (1 + similarity + rho).masked_fill(itself, 0)
        total = affinity.sum(dim=0 if reading.denominator == "column" else 1)
        if reading.diagonal == "include":
            affinity = affinity + torch.diag_embed((2 + rho).expand(count))
        return affinity / total.clamp_min(torch.finfo(total.dtype).tiny)


def topology_loss(standard: Tensor, adversarial: Tensor, reading: Reading = DEFAULT, *, detach: bool = True) -> Tensor:
    """L_TP between the features of M [N, D] and of M' [N, D2] on the same N samples; a scalar. TRAIN eq. 13-15.

    With `detach` no gradient reaches `standard`; TRAIN' is detach=False. Computed in float32 or wider, also under
    autocast: p is about 1/N and p/q within a few per cent of 1. Raises ValueError for fewer than 3 samples.
    """
    p = neighbor_graph(standard.detach() if detach else standard, reading)
    return _divergence(p, neighbor_graph(adversarial, reading), reading)


def ramp(epoch: int, form: str, first: int, period: int, epochs: int) -> float:
    """a(t), the factor of lambda in epoch `epoch` (counted from 1) of `epochs`; t counts from `first`.

    form "dann": 2/(1 + exp(-10 t/T)) - 1, from 0 to 1 (Ganin & Lempitsky 2015); "literal": 2/(1 + exp(-10 t/T - 1)), as
    printed. T is `period`, or `epochs` if that is 0.
    """
    progress = 10 * (epoch - 1 + first) / (period or epochs)
    return 2 / (1 + math.exp(-progress - 1)) if form == "literal" else 2 / (1 + math.exp(-progress)) - 1


class TopologyTerm(Regularizer):
    """L_TP as a term of a training run: its weight, its share of a step's forwards and, for rho="set", its memory."""

    measure: ClassVar[str] = "l_tp"

    def __init__(self, section: recipe.Topology, epochs: int, train_size: int, device: torch.device | str) -> None:
        """`section` is the recipe's [topology]; `train_size` counts the training samples that Batch.index points to."""
        self._section = section
        self._epochs = epochs
        self._reading = Reading.of(section)
        self._sources = ("adversarial", "natural") if section.source == "both" else (section.source,)
        banked = ("standard", *self._sources) if section.rho == "set" else ()
        self._banks = {name: FeatureBank(train_size, device) for name in banked}

    @property
    def needs(self) -> tuple[str, ...]:
        """M on x, and M' on what `source` says."""
        return ("standard", *self._sources)

    def scale(self, epoch: int) -> float:
        """lambda(t) in `epoch`, counted from 1."""
        part = self._section
        if not part.ramp:
            return part.weight
        return part.weight * ramp(epoch, part.ramp_form, part.ramp_first, part.ramp_period, self._epochs)

    def loss(self, step: Step) -> Tensor:
        """Unweighted L_TP of one step; the mean of two for source="both".

        Fewer than 3 samples, as the last batch of an epoch may hold, have no neighbourhoods that could differ (each
        p is 1 or there is none): 0.
        """
        standard = step.standard.features
        if len(standard) < 3:
            return wide(standard).new_zeros(())
        p = self._graph("standard", standard if self._section.variant == "prime" else standard.detach(), step)
        values = [
            _divergence(p, self._graph(source, getattr(step, source).features, step), self._reading)
            for source in self._sources
        ]
        return torch.stack(values).mean()

    def share(self, part: int, whole: int) -> float:
        """The sum over j goes over the whole batch, and so does what the reading divides it by; only the neighbours of
        j are those of its part.
        """
        if self._reading.reduction == "mean-pairs":
            itself = self._reading.diagonal == "exclude"
            return part * (part - itself) / (whole * (whole - itself))
        return part / whole if self._reading.reduction == "mean-columns" or self._reading.rescale else 1.0

    def _graph(self, name: str, features: Tensor, step: Step) -> Tensor:
        bank, outside = self._banks.get(name), None
        if bank is not None:
            outside = bank.nearest(features, step.batch.index)
            bank.remember(features, step.batch.index)
        return neighbor_graph(features, self._reading, outside)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold to go on exactly: the memory banks, by name."""
        return {f"{name}.{key}": value for name, bank in self._banks.items() for key, value in bank.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` returned."""
        for name, bank in self._banks.items():
            bank.load_state({key: state[f"{name}.{key}"] for key in ("rows", "seen") if f"{name}.{key}" in state})


class FeatureBank:
    """The most recent features of every training sample, as unit vectors."""

    def __init__(self, size: int, device: torch.device | str) -> None:
        self._seen = torch.zeros(size, dtype=torch.bool, device=device)
        self._rows: Tensor | None = None  # [size, D], made when D is known

    def nearest(self, features: Tensor, index: Tensor) -> Tensor:
        """Distance [N] of each of features [N, D] to its nearest remembered sample other than the samples `index` [N];
        infinite where none is known. Carries gradient to `features`, none to the memory.
        """
        unit = _unit(features)
        rows = self._memory(unit)
        others = self._seen.clone()
        others[index] = False
        with torch.no_grad(), torch.autocast(unit.device.type, enabled=False):
            closest = (unit @ rows.T).masked_fill(~others, -torch.inf).argmax(dim=1)
        distance = 1 - (unit * rows[closest]).sum(dim=1)
        return torch.where(others.any(), distance, torch.inf)

    def remember(self, features: Tensor, index: Tensor) -> None:
        """From now on the samples `index` [N] have these features [N, D]."""
        unit = _unit(features.detach())
        self._memory(unit)[index] = unit
        self._seen[index] = True

    def _memory(self, unit: Tensor) -> Tensor:
        if self._rows is None:
            self._rows = unit.new_zeros(len(self._seen), unit.shape[1])
        return self._rows

    def state(self) -> dict[str, Tensor]:
        """`seen` [size] and, once there are any, `rows` [size, D]."""
        return {"seen": self._seen} if self._rows is None else {"seen": self._seen, "rows": self._rows}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` returned."""
        device = self._seen.device
        self._seen = state["seen"].to(device, copy=True)
        self._rows = state["rows"].to(device, copy=True) if "rows" in state else None


def _unit(features: Tensor) -> Tensor:
    """Rows of length 1 in float32 or wider; a zero row stays zero."""
    return F.normalize(wide(features), dim=1, eps=1e-12)


def _nearest(similarity: Tensor, reading: Reading, outside: Tensor | None) -> Tensor:
    """rho_j [N], or a scalar 0 without it. `similarity` [N, N] has -inf on its diagonal."""
    if reading.rho == "none":
        return similarity.new_zeros(())
    rho = 1 - similarity.amax(dim=0)
    if reading.rho == "set":
        if outside is None:
            raise ValueError('rho="set" needs the distances to samples outside the batch; TopologyTerm keeps them')
        rho = torch.minimum(rho, outside)
    return rho if reading.rho_gradient else rho.detach()


def _divergence(p: Tensor, q: Tensor, reading: Reading) -> Tensor:
    """The divergence of two graphs [N, N], added up as the reading says."""
    with torch.autocast(p.device.type, enabled=False):
        # Open interval, so that every logarithm is finite; zero diagonals of p and q then cancel exactly.
        limits = torch.finfo(p.dtype)
        p, q = (graph.clamp(limits.tiny, 1 - limits.eps) for graph in (p, q))
        terms = -p * q.log() if reading.divergence == "cross-entropy" else p * (p.log() - q.log())
        if reading.divergence == "bernoulli":
            terms = terms + (1 - p) * (torch.log1p(-p) - torch.log1p(-q))
        count = len(p)
        if reading.reduction == "mean-columns":
            return terms.sum() / count
        if reading.reduction == "mean-pairs":
            return terms.sum() / (count * count if reading.diagonal == "include" else count * (count - 1))
        return terms.sum() * (RESCALED_BATCH / count if reading.rescale else 1)
