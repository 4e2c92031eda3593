"""t-SNE of penultimate features, natural and adversarial (Figs. 2 and 4 of the TRAIN paper).

Images of a few classes and their PGD-20 images are embedded together; test and training images each on their own.
The paper states neither perplexity nor number of images: 30, the usual one, and 100 a class are ours. Which classes
and images depends on the data set alone, so that embeddings of different runs show the same ones.

eval/CHECKPOINT-tsne.json has the settings, among them digests of the weights and of the images, and the points.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from engine.data.base import Split, Splits
from engine.data.stratify import spread
from engine.evaluate import report
from engine.evaluate.accuracy import Poll, batches, never
from engine.evaluate.protocols import attack, threat
from engine.randomness import generator
from engine.recipe import Recipe
from engine.rundir import RunDir, replace

METRIC = "tsne"
PERPLEXITY = 30.0
SEED = 0
COLUMNS = ("split", "index", "class", "adversarial", "x", "y")


def embed(
    *,
    recipe: Recipe,
    splits: Splits,
    network: nn.Module,
    checkpoint: Mapping[str, Any],
    rundir: RunDir,
    device: torch.device,
    classes: int,
    per_class: int,
    poll: Poll = never,
) -> bool:
    """Store the embedding of M' (`network`) on up to `per_class` images of each of up to `classes` classes.

    `checkpoint` has its name ("best" or "last"), epoch and the rule that chose it. False if an embedding of the same
    images under equal settings was there already. Raises ValueError for features that cannot be embedded.
    """
    kept = choose_classes(splits.test.labels, classes)
    parts = {
        name: (split, choose_images(split.labels, kept, per_class))
        for name, split in (("test", splits.test), ("train", splits.train))
    }
    settings = {
        "checkpoint": checkpoint["name"], "epoch": checkpoint["epoch"], "rule": checkpoint["rule"],
        **asdict(threat(recipe.eval, "pgd20", splits.classes)), "seed": recipe.eval.seed,
        "batch_size": recipe.eval.batch_size, "classes": kept, "of_classes": splits.classes, "per_class": per_class,
        "tsne": f"scikit-learn {version('scikit-learn')}", "tsne_seed": SEED, "tsne_perplexity": PERPLEXITY,
        "weights_digest": report.digest(network.state_dict().values()),
        **{f"{name}_digest": _digest(split, indices) for name, (split, indices) in parts.items()},
    }  # fmt: skip
    if report.finished(rundir, checkpoint["name"], METRIC, settings) is not None:
        return False
    points: list[list[Any]] = []
    perplexities = {}
    for name, (split, indices) in parts.items():
        features = _features(recipe, splits.classes, network, split, indices, device, poll)
        poll()
        perplexities[name] = perplexity(len(features))
        places = tsne(features).tolist()
        labels = split.labels[indices].tolist()
        rows = [(i, label, made) for made in (0, 1) for i, label in zip(indices.tolist(), labels, strict=True)]
        points += [[name, *row, round(x, 3), round(y, 3)] for row, (x, y) in zip(rows, places, strict=True)]
    result = {"perplexity": perplexities, "columns": COLUMNS, "points": points}
    rundir.evaluations.mkdir(parents=True, exist_ok=True)
    content = {"settings": settings, "result": result, "rows": 0}
    replace(report.path(rundir, checkpoint["name"], METRIC, "json"), json.dumps(content) + "\n")
    return True


def choose_classes(labels: Tensor, count: int) -> list[int]:
    """Up to `count` of the classes among `labels` [n], ascending, drawn at random but always the same."""
    present = torch.unique(labels.cpu())
    order = torch.randperm(len(present), generator=generator("cpu", SEED, "tsne-classes"))
    return sorted(present[order[:count]].tolist())


def choose_images(labels: Tensor, classes: list[int], per_class: int) -> Tensor:
    """Indices of up to `per_class` images of each of `classes`, ascending, among `labels` [n]; always the same ones."""
    labels = labels.cpu()
    order = spread(labels, "tsne")
    return torch.cat([order[labels[order] == label][:per_class] for label in classes]).sort().values


def perplexity(points: int) -> float:
    """That of `tsne`: PERPLEXITY, but at most a third of the neighbours that a point has."""
    return min(PERPLEXITY, (points - 1) / 3)


def tsne(features: Tensor) -> Tensor:
    """Places [n, 2] of features [n, D], n >= 2, by t-SNE (van der Maaten & Hinton, 2008), Euclidean, started from PCA.

    Raises ValueError for features that are not finite or all the same.
    """
    from sklearn.manifold import TSNE

    if not bool(features.isfinite().all()):
        raise ValueError("features that are not finite cannot be embedded: this checkpoint is of a network that broke")
    if bool((features == features[0]).all()):  # scikit-learn would crash
        raise ValueError("the features of all images are the same, so there is nothing to embed")
    form = TSNE(perplexity=perplexity(len(features)), init="pca", random_state=SEED)
    return torch.from_numpy(form.fit_transform(features.numpy()))


def _features(
    recipe: Recipe, classes: int, network: nn.Module, split: Split, indices: Tensor, device: torch.device, poll: Poll
) -> Tensor:
    """Features [2n, D] on the CPU of the images `indices` [n] of `split`: natural ones, then as PGD-20 makes them."""
    section = recipe.eval
    found = []
    for made_by in (None, attack(threat(section, "pgd20", classes))):
        for batch in batches(network, split, indices, section.batch_size, device, made_by, section.seed, METRIC, poll):
            found.append(batch.output.features.float().cpu())
    return torch.cat(found)


def _digest(split: Split, indices: Tensor) -> str:
    return report.digest([split.images[indices], split.labels[indices], indices])
