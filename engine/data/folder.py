"""Folders of images, one folder a class, in the layout of torchvision's ImageFolder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from engine.data._images import ENDINGS, decode
from engine.data.base import DataError, DataSource, Source, Split, Splits
from engine.options import option

LAYOUT = "expected train/<class>/*.png and test/<class>/*.png (or val/), with the formats that Pillow reads"


@dataclass(frozen=True)
class Folder(DataSource):
    """Your own images: data.path with train/<class>/ and test/<class>/ (or val/), resized to data.image_size."""

    needs_path: ClassVar[bool] = True
    path: str = option("", help="folder with train/ and test/ (or val/); a relative one is looked for in data.root")
    image_size: int = option(32, ge=8, le=1024, help="images become this many pixels a side")

    def load(self, source: Source) -> Splits:
        """Images as RGB. With both val/ and test/, val/ is the validation split; val/ alone is the test split."""
        root = source.root / Path(self.path).expanduser()
        parts = [name for name in ("train", "val", "test") if (root / name).is_dir()]
        if "train" not in parts or len(parts) < 2:
            raise DataError(f"{root}: has no train/ and test/ (or val/)", LAYOUT)
        splits, classes = {}, {}
        for name in parts:
            splits[name], classes[name] = self._split(root / name)
            if classes[name] != classes["train"]:
                differ = sorted(set(classes[name]) ^ set(classes["train"]))
                raise DataError(
                    f"{root / name}: not the classes of train/; they differ in {', '.join(differ[:5])}", LAYOUT
                )
        test = splits.get("test", splits.get("val"))
        assert test is not None
        validation = splits.get("val") if "test" in splits else None
        return Splits(train=splits["train"], test=test, validation=validation, classes=len(classes["train"]))

    def _split(self, folder: Path) -> tuple[Split, list[str]]:
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        files = [_files(folder / name) for name in classes]
        if not classes:
            raise DataError(f"{folder}: has no folder of a class", LAYOUT)
        images = decode([file for found in files for file in found], self.image_size)
        labels = [label for label, found in enumerate(files) for _ in found]
        return Split(images, torch.tensor(labels, dtype=torch.int64)), classes


def _files(folder: Path) -> list[Path]:
    """The images of one class, also those in folders below, in the order of torchvision's ImageFolder.

    The class's folder may be a link, but not one below it: links can make a tree without end.
    """
    found: list[Path] = []
    for place, folders, files in sorted(os.walk(folder)):
        link = next((name for name in folders if Path(place, name).is_symlink()), None)
        if link:
            raise DataError(f"{Path(place, link)}: is a link to a folder", "put the images themselves there")
        found += [Path(place, name) for name in sorted(files) if name.lower().endswith(ENDINGS)]
    if not found:
        raise DataError(f"{folder}: holds no image ({', '.join(ENDINGS)})", LAYOUT)
    return found
