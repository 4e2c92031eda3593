"""AutoAttack's attacks as the package has them, spared the exact forwards whose outcome is certain without them.

Square and FAB ask yes-or-no questions of most images: is this candidate better than the best one, is that image still
classified correctly? The network with BatchNorm folded (engine/models/fold.py) answers them in less time, and wherever
its answer could be owed to rounding, the network itself is asked. So every answer, and with them every step of the
attacks, is that of the package alone; what needs logits or gradients themselves always has them from the network.

On a CPU an image's logits don't depend on the others of its batch, bit for bit, from FEWEST images on; on a GPU they
may, in the package as here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.losses import margin
from engine.models.fold import folded

Predict = Callable[[Tensor], Tensor]
"""Images [b, C, H, W] -> logits [b, K]."""

FEWEST = 8
"""Images a forward at least: convolutions of very few take other paths, which round otherwise."""
WORTHWHILE = 32
"""For fewer images two forwards may take longer than an exact one."""
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


@contextmanager
def sure(network: nn.Module, exact: Predict, images: Tensor) -> Iterator[Sure]:
    """Sure answers for `network` (in eval mode, returning Output); `exact` gives its logits."""
    twin = copy.deepcopy(network)
    with folded(twin):
        yield Sure(exact, lambda x: twin(x).logits, images)


class Margins:
    """Square's view of the network: the margin z_y - max_{k != y} z_k of candidates.

    Square keeps a candidate only if its margin is below the lowest so far. So an image it has seen before is never
    kept, nor is one that is clearly worse than the best; for these the best one's own margin is returned, at which
    Square keeps what it has.
    """

    def __init__(self, sure: Sure) -> None:
        self.sure = sure
        self.seen: set[int] = set()  # some 80 bytes for each query of each point: 100 MB for 256 points
        self.lowest: Tensor | None = None  # margins of the points that are attacked still

    @torch.no_grad()
    def __call__(self, images: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Margins [b] of candidates [b, C, H, W], one for each point still attacked, in order; twice, for the margin
        is Square's loss as well.
        """
        if self.lowest is None:  # the candidates to begin with
            self._new(images)
            self.lowest = margins(self.sure.exact(images), y)
            return self.lowest.clone(), self.lowest.clone()
        if len(images) < len(self.lowest):
            self.lowest = self.lowest[self.lowest > 0]
        asked = self._doubtful(images, y)
        if len(asked) == 0:
            return self.lowest, self.lowest
        if len(asked) == len(images):
            found = margins(self.sure.exact(images), y)
        else:
            found = self.lowest.index_copy(0, asked, margins(self.sure.few(images[asked]), y[asked]))
        self.lowest = torch.where(found < self.lowest, found, self.lowest)
        return found, found

    def _doubtful(self, images: Tensor, y: Tensor) -> Tensor:
        """Positions of the candidates that may be kept; all of a batch of less than FEWEST."""
        assert self.lowest is not None
        if len(images) < FEWEST:
            return torch.arange(len(images), device=images.device)
        new = torch.tensor(self._new(images), dtype=torch.int64, device=images.device)
        if self.sure.same or len(new) < WORTHWHILE:
            return new
        worse = margins(self.sure.rough(images[new]), y[new]) - self.lowest[new] > self.sure.tolerance
        return new[~worse]

    def _new(self, images: Tensor) -> list[int]:
        """Positions of the images that were not seen before."""
        new = []
        for position, image in enumerate(images.cpu().numpy()):
            name = hash(image.tobytes())
            if name not in self.seen:
                self.seen.add(name)
                new.append(position)
        return new


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """z_y - max_{k != y} z_k [b] of logits [b, K] and labels y [b]."""
    return -margin(logits, y)


def targets_together(fab: Any, sure: Sure, x: Tensor, y: Tensor, eps: float, batch_size: int) -> Tensor:
    """Targeted FAB of the package on x [b, C, H, W] with labels y [b]: the images that fool, the others as they were.

    The package tries one target class after the other on the points that stand. Nothing in it is random and no point
    matters to another, so as many targets as fit into a batch are tried at once, and the first that fools counts.
    A few points go one target at a time, as FEWEST says.
    """
    ranked = sure.exact(x).sort(dim=-1).indices
    standing = ranked[:, -1] == y
    fooling = x.clone()
    target = 2
    fab._get_predicted_label = sure.labels
    while target < fab.n_target_classes + 2 and standing.any():
        points = standing.nonzero().flatten()
        count = min(max(1, batch_size // len(points)), fab.n_target_classes + 2 - target)
        count = count if len(points) >= FEWEST else 1
        wanted = torch.cat([ranked[points, -t] for t in range(target, target + count)])
        rows = points.repeat(count)
        # The package aims at the class of rank `target_class` among these "logits".
        fab.target_class = 1
        fab._predict_fn = lambda _, wanted=wanted: F.one_hot(wanted, ranked.shape[1])
        found = fab.attack_single_run(x[rows].clone(), y[rows], use_rand_start=False, is_targeted=True)
        fooled = (sure.exact(found).max(dim=1).indices != y[rows]) & ((found - x[rows]).abs().flatten(1).amax(1) <= eps)
        for row in fooled.nonzero().flatten().tolist():
            if standing[rows[row]]:
                fooling[rows[row]] = found[row]
                standing[rows[row]] = False
        target += count
    return fooling
