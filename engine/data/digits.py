"""Digits: the 1 797 handwritten digits that scikit-learn carries, so no download is needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.data.base import DataSource, Source, Split, Splits
from engine.data.stratify import spread


@dataclass(frozen=True)
class Digits(DataSource):
    """1 797 real 8x8 grey images of handwritten digits, shipped with scikit-learn.

    The split into 1 258 training, 180 validation and 359 test images is stratified and fixed: it is cut from
    `stratify.spread`, which uses SHA-256 and no random number generator.
    """

    def load(self, source: Source) -> Splits:
        """Read scikit-learn's copy; grey levels 0..16 become 0..255. `source` is not needed."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
        labels = torch.from_numpy(bunch.target.astype(np.int64))
        order = spread(labels, "digits")
        test, validation = round(0.2 * len(order)), round(0.1 * len(order))
        parts = order.tensor_split((test, test + validation))
        cut = [Split(images[part], labels[part]) for part in (indices.sort().values for indices in parts)]
        return Splits(train=cut[2], validation=cut[1], test=cut[0], classes=10)
