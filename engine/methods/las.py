"""LAS (Jia et al., CVPR 2022): a strategy network S, trained beside M', chooses how each image is attacked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from engine.attacks.pgd import PGD, batchnorm_mode, misclassified
from engine.losses import cross_entropy, cross_entropy_per_sample, kl_divergence_per_sample, smoothed_cross_entropy
from engine.methods.at import At
from engine.methods.awp import Awp
from engine.methods.base import Method, Order
from engine.models.strategy import Strategy, sample, strategy_loss
from engine.networks import learning_rate
from engine.options import option
from engine.randomness import derive
from engine.step import Perturbed

if TYPE_CHECKING:
    from engine.recipe import Recipe
    from engine.step import Batch, Position, Step
    from engine.task import Task

UNITS = 8  # radii and step lengths are counted in eighths of attack.eps, 255ths where attack.eps is 8/255
LARGEST = {"at": 10.0, "trades": 20.0, "awp": 10.0}  # where the reward's first part is cut


@dataclass(frozen=True)
class Chosen(Perturbed):
    """x' of base trades, with the weight `beta` [B] that S has chosen for the KL term of each image."""

    beta: Tensor


@dataclass(frozen=True)
class Las(Method):
    """LAS (Jia et al. 2022): AT, TRADES or AWP on x' whose radius, steps and step length a strategy network chooses.

    eps, step_size and steps of [attack] are those of the attack that the reward measures robust accuracy with.
    """

    needs_whole_batch: ClassVar[bool] = True  # S learns from all of it

    base: str = option("at", choices=("at", "trades", "awp"), help="what it is combined with")
    eps_lowest: int = option(3, ge=1, help="smallest radius that S may choose, in eighths of attack.eps")
    eps_options: int = option(13, ge=1, help="number of radii, each an eighth larger than the one before")
    steps_lowest: int = option(3, ge=1, help="smallest number of steps that S may choose")
    steps_options: int = option(12, ge=1, help="how many numbers of steps there are, each one more")
    step_size_lowest: int = option(1, ge=1, help="smallest step length that S may choose, in eighths of attack.eps")
    step_size_options: int = option(5, ge=1, help="number of step lengths, each an eighth larger than the one before")
    beta_lowest: int = option(5, ge=0, help="smallest weight of the KL term that S may choose; base trades only")
    beta_options: int = option(5, ge=1, help="number of weights, each one more; base trades only")
    every: int = option(20, ge=1, help="steps of M' from one update of S to the next")
    robust_reward: float = option(4.0, ge=0.0, help="c2: weight of the robust accuracy in the reward")
    natural_reward: float = option(2.0, ge=0.0, help="c3: weight of the natural accuracy in the reward")
    restarts: int = option(2, ge=1, help="restarts of the attack behind the robust accuracy")
    strategy_width: int = option(64, ge=1, help="channels of the first stage of S, a ResNet-18")
    strategy_lr: float = option(1e-4, ge=0.0, help="learning rate of S before the first milestone")
    strategy_momentum: float = option(0.0, ge=0.0, lt=1.0, help="momentum of S")
    strategy_weight_decay: float = option(0.0, ge=0.0, help="weight decay of S")
    label: float = option(0.7, ge=0.0, le=1.0, help="target of the true class in the cross-entropy; not for trades")
    gamma: float = option(0.01, ge=0.0, help="size of AWP's perturbation of a layer; base awp only")

    recipe: Recipe | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Of the run; set by `prepared`."""

    @property
    def forwards(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant elsewhere, but here it depends on base
        """Those of the base."""
        return ("natural", "adversarial") if self.base == "trades" else ("adversarial",)

    def official(self, attack: PGD) -> Order:
        """Base awp runs x once more for its log. What the reward adds for base trades, it adds in any case."""
        return Order(self.forwards, after=("natural",) if self.base == "awp" else ())

    def attack_form(self) -> tuple[str, str]:
        """The KL from a Gaussian start for base trades, CE from a uniform one else."""
        return ("kl", "gaussian") if self.base == "trades" else ("ce", "uniform")

    def prepared(self, task: Task) -> Self:
        """With a fresh S, whose initial weights depend on the seed alone."""
        choices = [self.eps_options, self.steps_options, self.step_size_options]
        if self.base == "trades":
            choices.append(self.beta_options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(task.recipe.run.seed, "init", "strategy"))
            strategy = Strategy(task.image[0], choices, self.strategy_width)
        return replace(self, memory=strategy.to(task.device), recipe=task.recipe)

    # --- x' -------------------------------------------------------------------------------------------------

    def perturb(
        self, network: nn.Module, batch: Batch, attack: PGD, position: Position, generator: torch.Generator
    ) -> Perturbed:
        """Where it is due, S learns from x' made for that purpose; x' for M' follows from S as it then is.

        For base awp that x' is clipped back to attack.eps.
        """
        strategy = self._strategy()
        if self._steps(position) % self.every == 0:
            self.teach(network, batch, attack, position, generator)
        strategy.eval()
        with torch.no_grad():
            actions = sample(strategy(batch.x), generator)
        perturbed = self.attacked(network, batch, attack, actions, generator)
        if self.base == "awp":
            clipped = perturbed.images.clamp(batch.x - attack.eps, batch.x + attack.eps)
            perturbed = replace(perturbed, images=clipped)
        return perturbed

    def attacked(
        self, network: nn.Module, batch: Batch, attack: PGD, actions: list[Tensor], generator: torch.Generator
    ) -> Perturbed:
        """PGD as `actions` [B] have it: radius, steps, step length and beta of each sample, from the lowest on.

        A uniform start lies within attack.eps, whatever the radius.
        """
        lowest = (self.eps_lowest, self.steps_lowest, self.step_size_lowest, self.beta_lowest)
        eps, steps, step_size, *beta = (low + action for low, action in zip(lowest, actions, strict=False))
        own = replace(
            attack,
            eps=eps.to(batch.x) / UNITS * attack.eps,
            steps=steps,
            step_size=step_size.to(batch.x) / UNITS * attack.eps,
            start_eps=attack.eps,
        )
        images, correct, _ = own(network, batch.x, batch.y, generator)
        return Chosen(batch, images, correct, beta[0].to(batch.x)) if beta else Perturbed(batch, images, correct)

    # --- M' -------------------------------------------------------------------------------------------------

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Smoothed CE on x' for AT, TRADES' loss with S' betas, or plain CE on x', taken at moved weights, for AWP."""
        if self.base == "trades":
            return trades_losses(step.natural.logits, step.adversarial.logits, cast(Chosen, step.perturbed))
        if self.base == "awp":
            return At().losses(step)
        return {"ce": smoothed_cross_entropy(step.adversarial.logits, step.y, self.label)}

    def displaced(
        self, network: nn.Module, robust_loss: Callable[[nn.Module], Tensor], position: Position
    ) -> AbstractContextManager[None]:
        """AWP's moved weights for base awp, M' as it is for the others."""
        if self.base != "awp":
            return nullcontext()
        return Awp(base="at", gamma=self.gamma).displaced(network, robust_loss, position)

    # --- S --------------------------------------------------------------------------------------------------

    def teach(
        self, network: nn.Module, batch: Batch, attack: PGD, position: Position, generator: torch.Generator
    ) -> None:
        """One update of S, which samples in train mode, by what its x' did to M' and would do to it."""
        strategy = self._strategy()
        with aside(batch.x.device, generator):
            strategy.train()
            decisions = strategy(batch.x)
            actions = sample(decisions, generator)
            perturbed = self.attacked(network, batch, attack, actions, generator)
            loss = strategy_loss(decisions, actions, self.reward(network, perturbed, attack, position, generator))
            rate = self.strategy_rate(position)
            strategy.descend(loss, rate, self.strategy_momentum, self.strategy_weight_decay)

    def strategy_rate(self, position: Position) -> float:
        """S' learning rate. It falls at the milestones of M', which base at counts in updates of S as its authors do:
        with `every` above 1 it never comes to them.
        """
        recipe, counted = self._recipe(), self._steps(position)
        if self.base == "at":
            counted //= self.every
        epoch = counted // position.batches + 1
        return self.strategy_lr * learning_rate(recipe.optim, recipe.schedule, epoch) / recipe.optim.lr

    def reward(
        self, network: nn.Module, perturbed: Perturbed, attack: PGD, position: Position, generator: torch.Generator
    ) -> Tensor:
        """R1 + R2 + R3, a scalar: the loss of M' on x', and c2 times the robust and c3 times the natural accuracy, each
        in [0, 1], of what one step on x' would make of M'.

        The authors' code for LAS-AWP on CIFAR-10 leaves the normalisation of images out of some of these forwards. Here
        it is inside the network, so it is in all of them.
        """
        x, y = perturbed.batch.x, perturbed.batch.y
        hardness = self.hardness(network, perturbed)
        updated = self.updated(network, perturbed, position)
        images = self.strongest(updated, perturbed.batch, attack, generator)
        robust, natural = accuracy(updated, images, y), accuracy(updated, x, y)
        return hardness + self.robust_reward * robust + self.natural_reward * natural

    @torch.no_grad()
    def hardness(self, network: nn.Module, perturbed: Perturbed) -> Tensor:
        """R1: CE on x' with M' in eval mode; TRADES' loss with M' as it is, in train mode, which moves its BatchNorm's
        statistics as in the authors' code. Cut at 10, or 20 for TRADES.
        """
        if self.base == "trades":
            natural, adversarial = network(perturbed.batch.x).logits, network(perturbed.images).logits
            loss = torch.stack(list(trades_losses(natural, adversarial, cast(Chosen, perturbed)).values())).sum()
        else:
            with batchnorm_mode(network, "eval"):
                loss = cross_entropy(network(perturbed.images).logits, perturbed.batch.y)
        return loss.clamp(0, LARGEST[self.base])

    def updated(self, network: nn.Module, perturbed: Perturbed, position: Position) -> nn.Module:
        """A copy of M' after one step of SGD on x', w - lr (g + weight_decay w), in train mode. The loss is that of M';
        for base awp it is smoothed and taken at w + v, v as for M'.
        """
        student, images, y = copy.deepcopy(network).train(), perturbed.images, perturbed.batch.y
        recipe = self._recipe()
        rate = learning_rate(recipe.optim, recipe.schedule, position.epoch)
        with self.displaced(student, lambda moved: cross_entropy(moved(images).logits, y), position):
            if self.base == "trades":
                natural, adversarial = student(perturbed.batch.x).logits, student(images).logits
                loss = torch.stack(list(trades_losses(natural, adversarial, cast(Chosen, perturbed)).values())).sum()
                with torch.no_grad():
                    student(perturbed.batch.x)  # as TRADES' code does, for BatchNorm's statistics
            else:
                loss = smoothed_cross_entropy(student(images).logits, y, self.label)
            weights = list(student.parameters())
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.sub_(rate * (gradient + recipe.optim.weight_decay * weight))
        return student

    def strongest(self, network: nn.Module, batch: Batch, attack: PGD, generator: torch.Generator) -> Tensor:
        """Of several restarts of PGD on CE, each sample's x' with the highest CE; on a tie the later one.

        BatchNorm is in train mode, so each forward moves its statistics. Misclassified samples stop, but for base awp.
        """
        own = replace(
            attack,
            loss="ce",
            start="uniform",
            clip_start=True,
            batchnorm="train",
            stop=None if self.base == "awp" else misclassified,
        )
        images, highest = batch.x, torch.full(batch.y.shape, -torch.inf, device=batch.x.device)
        for _ in range(self.restarts):
            tried = own(network, batch.x, batch.y, generator).images
            with torch.no_grad(), batchnorm_mode(network, "train"):
                loss = cross_entropy_per_sample(network(tried).logits, batch.y)
            images = torch.where((loss >= highest).reshape(-1, *[1] * (tried.dim() - 1)), tried, images)
            highest = torch.maximum(loss, highest)
        return images

    def _strategy(self) -> Strategy:
        assert isinstance(self.memory, Strategy), "prepared() makes S"
        return self.memory

    def _recipe(self) -> Recipe:
        assert self.recipe is not None, "prepared() sets the recipe"
        return self.recipe

    def _steps(self, position: Position) -> int:
        """Steps of M' so far."""
        return (position.epoch - 1) * position.batches + position.batch


def trades_losses(natural: Tensor, adversarial: Tensor, chosen: Chosen) -> dict[str, Tensor]:
    """CE(z'(x), y) and mean_b beta_b KL_b(natural || adversarial prediction) of logits [B, C]."""
    divergence = kl_divergence_per_sample(natural, adversarial)
    return {"ce": cross_entropy(natural, chosen.batch.y), "kl": (chosen.beta * divergence).mean()}


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, y: Tensor) -> Tensor:
    """Share of images [B, ...] that `network` classifies as y [B] in eval mode."""
    with batchnorm_mode(network, "eval"):
        right: Tensor = network(images).logits.argmax(dim=1) == y
    return right.float().mean()


@contextmanager
def aside(device: torch.device, generator: torch.Generator) -> Iterator[None]:
    """What is computed beside the step of M': dropout draws from a seed of its own, and autocast casts all weights
    anew each time, because the casts that it keeps would be those of weights from before their update.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    dtype, enabled = torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.autocast(device.type, dtype, enabled, cache_enabled=False),
    ):
        torch.manual_seed(seed)
        yield
