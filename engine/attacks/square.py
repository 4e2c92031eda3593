"""Square Attack of the package, with several of its queries looked at ahead."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from engine.attacks.sparing import FEWEST, Sure, margins

WORTHWHILE = 32
"""For fewer images two forwards may take longer than an exact one."""


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
