"""AutoAttack's attacks as the package has them, spared the exact forwards whose outcome is certain without them.

A point falls by its first image that fools, so APGD and FAB ask no more about it, and they try several targets at once
where few points stand: standing.py.

Square and FAB ask yes-or-no questions of most images: is this candidate better than the best one, is that image still
classified correctly? The network with BatchNorm folded (engine/models/fold.py) answers them in less time, and wherever
its answer could be owed to rounding, the network itself is asked: `Sure`, and square.py. What needs logits or gradients
themselves always has them from the network. So every step on a point that stands is that of the package alone.

On a CPU an image's logits and gradient don't depend on the others of its batch, bit for bit, from FEWEST images on; on
a GPU they may, in the package as here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.losses import margin
from engine.models.fold import folded

Predict = Callable[[Tensor], Tensor]
"""Images [b, C, H, W] -> logits [b, K]."""

FEWEST = 16
"""Images a forward at least: convolutions of very few take other paths, which round otherwise (gradients of up to 11
with two threads; benchmarks/evaluate.py --rounding looks)."""
SAFETY = 1000.0
"""The rounding that is reckoned with, in units of the largest seen."""


class Sure:
    """Logits of `exact` where a question needs them, and those of the faster `rough` where they suffice."""

    def __init__(self, exact: Predict, rough: Predict, images: Tensor) -> None:
        """`images` [b, C, H, W] show how much the two differ. No difference: there was nothing to fold."""
        self.exact, self.rough = exact, rough
        with torch.no_grad():
            expected = exact(images)
            error = float((expected - rough(images)).abs().max())
        self.same = error == 0.0
        # Relative to the logits at least float32's own precision. A margin moves by at most twice what the logits do.
        self.tolerance = 2 * SAFETY * max(error, torch.finfo(torch.float32).eps * float(expected.abs().max()))

    def few(self, images: Tensor) -> Tensor:
        """Exact logits of some images of a batch of FEWEST or more, as in that batch."""
        lacking = FEWEST - len(images)
        if lacking <= 0:
            return self.exact(images)
        return self.exact(torch.cat([images, images[:1].expand(lacking, *images.shape[1:])]))[: len(images)]

    @torch.no_grad()
    def labels(self, images: Tensor) -> Tensor:
        """Predictions [b] int64 of the network for images [b, C, H, W]."""
        if self.same or len(images) < FEWEST:
            return self.exact(images).max(dim=1).indices
        best = self.rough(images).topk(2, dim=1)
        labels = best.indices[:, 0]
        doubtful = ~(best.values[:, 0] - best.values[:, 1] > self.tolerance)  # true for what is no number, too
        if doubtful.any():
            labels[doubtful] = self.few(images[doubtful]).max(dim=1).indices
        return labels


def sure(network: nn.Module, exact: Predict, images: Tensor) -> Sure:
    """Sure answers for `network` (in eval mode, returning Output); `exact` gives its logits."""
    twin = folded(network)
    return Sure(exact, lambda x: twin(x).logits, images)


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """z_y - max_{k != y} z_k [b] of logits [b, K] and labels y [b]."""
    return -margin(logits, y)


def renewed(predict: Predict, x: Tensor, logits: Tensor | None, needed: Tensor | None) -> Tensor:
    """`logits` [b, K] with those of the images x [b, ...] that are `needed` [b] bool asked anew; None: all are.

    FEWEST are asked about in any case, and all of a batch of less. The gradient reaches those that are asked about.
    """
    if logits is None or needed is None:
        return predict(x)
    count = max(int(needed.sum()), FEWEST)
    if count >= len(x):
        return predict(x)
    some = needed.to(torch.int8).argsort(descending=True, stable=True)[:count]
    return logits.index_copy(0, some, predict(x[some]))
