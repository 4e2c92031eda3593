"""AutoAttack's attacks as the package has them, spared the exact forwards whose outcome is certain without them.

A point falls by its first image that fools, so APGD and FAB ask no more about it. And they try several targets at once
where few points stand.

Square and FAB ask yes-or-no questions of most images: is this candidate better than the best one, is that image still
classified correctly? The network with BatchNorm folded (engine/models/fold.py) answers them in less time, and wherever
its answer could be owed to rounding, the network itself is asked. What needs logits or gradients themselves always has
them from the network. So every step on a point that stands is that of the package alone.

On a CPU an image's logits and gradient don't depend on the others of its batch, bit for bit, from FEWEST images on; on
a GPU they may, in the package as here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.losses import margin
from engine.models.fold import folded

Predict = Callable[[Tensor], Tensor]
"""Images [b, C, H, W] -> logits [b, K]."""

FEWEST = 16
"""Images a forward at least: convolutions of very few take other paths, which round otherwise (gradients of up to 11
with two threads; benchmarks/evaluate.py --rounding looks)."""
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


def sure(network: nn.Module, exact: Predict, images: Tensor) -> Sure:
    """Sure answers for `network` (in eval mode, returning Output); `exact` gives its logits."""
    twin = folded(network)
    return Sure(exact, lambda x: twin(x).logits, images)


class Square:
    """Square Attack (Andriushchenko et al. 2020) as the package runs it with the margin z_y - max_{k != y} z_k: one
    random square a query, alike for all points, kept by a point whose margin it makes smaller.

    Few squares are kept, so several queries are looked at ahead, as many as fit into `batch_size` images: as if none of
    them kept its square, until one does. A candidate that was seen before is never kept, nor is one that is clearly
    worse than the best. Random numbers and sizes come from the package's own methods, in its order.
    """

    def __init__(self, package: Any, sure: Sure, batch_size: int) -> None:
        self.package, self.sure, self.batch_size = package, sure, batch_size
        self.seen: set[int] = set()  # some 80 bytes for each query of each point: 100 MB for 256 points
        self.drawn: list[Tensor] = []  # perturbations [C, H, W] of the queries that are not done yet
        self.next = 0  # the query to draw for
        self.points = self.best = self.lowest = torch.empty(0)  # who stands, with which image and margin

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor) -> tuple[None, Tensor]:
        """The best images [b, C, H, W] found for x with labels y [b]; first what the package does not use."""
        eps, shape = self.package.eps, (*x.shape[:2], 1, x.shape[3])
        self.best = (x + eps * self.package.random_choice(shape)).clamp(0, 1)
        self.lowest = margins(self.sure.exact(self.best), y)
        self.points = torch.arange(len(x), device=x.device)
        self.seen.update(self._names(self.best))
        result, ahead, done = self.best.clone(), 1, 0
        while done < self.package.n_queries:
            standing = self.lowest > 0
            if not standing.all():
                result[self.points] = self.best
                self.points, self.best, self.lowest = self.points[standing], self.best[standing], self.lowest[standing]
                if len(self.points) == 0:
                    return None, result
                if len(self.points) < FEWEST:
                    self.seen.clear()  # for fewer images may be rounded otherwise
            ahead = max(1, min(ahead, self.batch_size // len(self.points), self.package.n_queries - done))
            some = x[self.points]
            candidates = self.best + self._squares(ahead, x)[:, None]
            candidates = candidates.clamp(some - eps, some + eps).clamp(0, 1)
            taken = self._keep(candidates, y[self.points])
            del self.drawn[:taken]
            done += taken
            ahead = 2 * ahead if taken == ahead else taken
        result[self.points] = self.best
        return None, result

    def _squares(self, count: int, x: Tensor) -> Tensor:
        """Perturbations [count, C, H, W] of the next queries."""
        channels, height, width = x.shape[1:]
        while len(self.drawn) < count:
            share = self.package.p_selection(self.next)
            side = max(round(math.sqrt(share * channels * height * width / channels)), 1)
            side = min(side, height, width)
            top, left = (int(self.package.random_int(0, length - side)) for length in (height, width))
            square = x.new_zeros(channels, height, width)
            colour = 2.0 * self.package.eps * self.package.random_choice([channels, 1, 1])
            square[:, top : top + side, left : left + side] = colour
            self.drawn.append(square)
            self.next += 1
        return torch.stack(self.drawn[:count])

    def _keep(self, candidates: Tensor, y: Tensor) -> int:
        """Let the points keep what the first query of candidates [q, b, C, H, W] brings that brings anything.

        Returns the number of queries that are answered by that; of a later one the candidates are void.
        """
        queries, count = candidates.shape[:2]
        names, doubtful = self._doubtful(candidates, y)
        at_once = count >= FEWEST  # else a query's candidates are asked about together, as the package does
        found = self.lowest.repeat(queries, 1)
        if at_once and doubtful.any():
            found[doubtful] = margins(self.sure.few(candidates[doubtful]), y.repeat(queries, 1)[doubtful])
        for query in doubtful.any(dim=1).nonzero().flatten().tolist():
            if not at_once:
                found[query] = margins(self.sure.exact(candidates[query]), y)
            kept = found[query] < self.lowest
            if kept.any():
                self.best[kept], self.lowest[kept] = candidates[query][kept], found[query][kept]
                self.seen.update(names[: (query + 1) * count])
                return int(query) + 1
        self.seen.update(names)
        return queries

    def _doubtful(self, candidates: Tensor, y: Tensor) -> tuple[list[int], Tensor]:
        """Names of the candidates [q, b, C, H, W], and which of them may be kept, [q, b] bool."""
        queries, count = candidates.shape[:2]
        names = self._names(candidates.flatten(0, 1))
        new = [position for position, name in enumerate(names) if name not in self.seen]
        asked = torch.tensor(new, dtype=torch.int64, device=y.device)
        if len(new) >= WORTHWHILE if count >= FEWEST and not self.sure.same else len(new) > count:
            best, labels = self.lowest.repeat(queries)[asked], y.repeat(queries)[asked]
            worse = margins(self.sure.rough(candidates.flatten(0, 1)[asked]), labels) - best > self.sure.tolerance
            asked = asked[~worse]
        doubtful = torch.zeros(queries * count, dtype=torch.bool, device=y.device)
        doubtful[asked] = True
        return names, doubtful.view(queries, count)

    def _names(self, images: Tensor) -> list[int]:
        """What to remember images [q b, C, H, W] by, each of its own point."""
        points = itertools.cycle(self.points.tolist())
        return [hash((point, image.tobytes())) for point, image in zip(points, images.cpu().numpy(), strict=False)]


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
