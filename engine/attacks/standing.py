"""APGD and FAB of the package on the points that stand, several targets at once where these are few."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.attacks.sparing import FEWEST, Predict, Sure, renewed


class AllFell(Exception):
    """No row of a run stands any more: there is nothing left to attack."""


class Standing:
    """The network as a gradient attack sees it that runs on `targets` copies of the same points, one copy after the
    other: only rows that stand are asked about. A row that fell keeps its logits, and its gradient is 0.
    """

    def __init__(self, exact: Predict, y: Tensor, targets: int) -> None:
        self.exact, self.y, self.targets = exact, y, targets
        self.fell = torch.zeros_like(y, dtype=torch.bool)
        self.over = self.fell.clone()
        """Rows that aren't asked about any more, fallen or not."""
        self.images: Tensor | None = None
        """What each row that fell was misclassified on, in the place of the row."""
        self.logits: Tensor | None = None

    def predict(self, x: Tensor) -> Tensor:
        """Logits [b, K]."""
        logits = renewed(self.exact, x, self.logits, ~self.over)
        self.logits = logits.detach()
        return logits

    def note(self, x: Tensor, fallen: Tensor) -> None:
        """Those of the rows x [b, ...] that are `fallen` [b] bool for the first time fell by these images."""
        new = fallen & ~self.over
        if new.any():
            self.images = x.detach().clone() if self.images is None else self.images
            self.images[new] = x.detach()[new]
            self.fell |= new

    def end(self, over: Tensor) -> None:
        """Ask no more about rows `over` [b] bool. Raises AllFell if none is left."""
        self.over |= over
        if self.over.all():
            raise AllFell


class Climb(Standing):
    """APGD's view. It draws a start for each point that stands when a target's turn comes: once a point falls by one
    target, the starts of all later targets are others, so what these were about to find is void.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [b, K] of the iterates."""
        begins = self.logits is None
        logits = self.predict(x)
        self.note(x, logits.detach().max(dim=1).indices != self.y)
        void = torch.arange(self.targets, device=x.device) >= self.tried
        if not begins:  # at the start the package still looks for gradients that are 0
            self.end(self.fell | void.repeat_interleave(len(x) // self.targets))
        return logits

    @property
    def tried(self) -> int:
        """Targets up to the first by which a point fell, all if none did."""
        fell = self.fell.view(self.targets, -1).any(dim=1).tolist()
        return fell.index(True) + 1 if True in fell else self.targets


class Boundary(Standing):
    """FAB's view: a point has fallen once any target leads it over the boundary within `eps` of its image in `x`."""

    def __init__(self, sure: Sure, x: Tensor, y: Tensor, targets: int, eps: float) -> None:
        super().__init__(sure.exact, y, targets)
        self.sure, self.x, self.eps = sure, x, eps

    def labels(self, x: Tensor) -> Tensor:
        """Predictions [b] for the iterates, and of rows that are over their own class: FAB stays where it is."""
        if len(x) < FEWEST or len(x) != len(self.y):
            return self.sure.labels(x)
        labels, count = self.y.clone(), max(int((~self.over).sum()), FEWEST)
        some = self.over.to(torch.int8).argsort(stable=True)[:count]
        labels[some] = torch.where(self.over[some], self.y[some], self.sure.labels(x[some]))
        self.note(x, (labels != self.y) & ((x - self.x).abs().flatten(1).amax(dim=1) <= self.eps))
        self.end(self.fell.view(self.targets, -1).any(dim=0).repeat(self.targets))
        return labels


def climb(apgd: Any, exact: Predict, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
    """APGD of the package on x [b, C, H, W] with labels y [b]: images that fool, the others as they were.

    A point that falls is left alone from then on, so it falls by the first image that fools and not by the last.
    Targets are tried one after the other on the points that stand; as long as none falls, as many as fit into a batch
    are tried at once, each from the start that it has in its turn.
    """
    apgd.init_hyperparam(x)
    logits = exact(x)
    standing, ranked = logits.max(dim=1).indices == y, logits.sort(dim=1).indices
    fooling, target, fit = x.clone(), 2, 1
    end = apgd.n_target_classes + 2 if apgd.loss == "dlr-targeted" else 3  # one turn without a target
    torch.random.manual_seed(apgd.seed)
    while target < end and standing.any():
        points = standing.nonzero().flatten()
        count = min(fit, end - target) if len(points) >= FEWEST else 1
        rows, before = points.repeat(count), torch.get_rng_state()
        apgd.y_target = torch.cat([ranked[points, -t] for t in range(target, target + count)])
        apgd.model = found = Climb(exact, y[rows], count)
        with suppress(AllFell):
            apgd.attack_single_run(x[rows].clone(), y[rows])
        tried = found.tried
        torch.set_rng_state(before)
        torch.rand(tried * len(points), *x.shape[1:])  # what the package has drawn by now
        last = slice((tried - 1) * len(points), tried * len(points))
        fell = found.fell[last]
        if fell.any():
            assert found.images is not None
            fooling[points[fell]] = found.images[last][fell]
            standing[points[fell]] = False
        fit = 1 if fell.any() else max(1, batch_size // len(points))
        target += tried
    return fooling


def targets_together(fab: Any, sure: Sure, x: Tensor, y: Tensor, eps: float, batch_size: int) -> Tensor:
    """Targeted FAB of the package on x [b, C, H, W] with labels y [b]: images that fool, the others as they were.

    The package tries one target class after the other on the points that stand, and looks for the nearest image that
    fools. Nothing in it is random and no point matters to another, so as many targets as fit into a batch are tried at
    once, and a point is left alone as soon as one of them fools within `eps`. A few points go one target at a time, to
    the end, as FEWEST says.
    """
    logits = sure.exact(x)
    standing, ranked = logits.max(dim=1).indices == y, logits.sort(dim=1).indices
    fooling, target = x.clone(), 2
    while target < fab.n_target_classes + 2 and standing.any():
        points = standing.nonzero().flatten()
        count = min(max(1, batch_size // len(points)), fab.n_target_classes + 2 - target)
        count = count if len(points) >= FEWEST else 1
        wanted = torch.cat([ranked[points, -t] for t in range(target, target + count)])
        rows = points.repeat(count)
        asked = Boundary(sure, x[rows], y[rows], count, eps)
        # The package aims at the class of rank `target_class` among these "logits".
        fab.target_class = 1
        fab._predict_fn = lambda _, wanted=wanted: F.one_hot(wanted, ranked.shape[1])
        fab.predict, fab._get_predicted_label = asked.predict, asked.labels
        found = x[rows]
        with suppress(AllFell):
            found = fab.attack_single_run(x[rows].clone(), y[rows], use_rand_start=False, is_targeted=True)
        if asked.images is not None:
            found[asked.fell] = asked.images[asked.fell]
        fooled = (sure.exact(found).max(dim=1).indices != y[rows]) & ((found - x[rows]).abs().flatten(1).amax(1) <= eps)
        first = fooled & (fooled.view(count, -1).cumsum(dim=0) == 1).flatten()  # of a point's rows
        fooling[rows[first]] = found[first]
        standing[rows[first]] = False
        target += count
    return fooling
