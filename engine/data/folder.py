"""Folders of images, one folder a class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.data._images import decode
from engine.data.base import DataError, DataSource, Source, Split, Splits
from engine.options import option

LAYOUT = "expected train/<class>/*.png and test/<class>/*.png (or val/), with the formats that Pillow reads"


@dataclass(frozen=True)
class Folder(DataSource):
    """Your own images: data.path with train/<class>/ and test/<class>/ (or val/), resized to data.image_size."""

    path: str = option("", help="folder with train/ and test/ (or val/); a relative one is looked for in data.root")
    image_size: int = option(32, ge=8, help="images become this many pixels a side")

    def load(self, source: Source) -> Splits:
        """Images as RGB. With both val/ and test/, val/ is the validation split; val/ alone is the test split."""
        if not self.path:
            raise DataError("data.path is empty", f"set it to a folder; {LAYOUT}")
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
        from torchvision.datasets import ImageFolder

        try:
            listing = ImageFolder(str(folder))
        except FileNotFoundError as error:  # no class folder, or one without an image
            raise DataError(f"{folder}: {error}", LAYOUT) from None
        images = decode([Path(path) for path, _ in listing.samples], self.image_size)
        return Split(images, torch.tensor(listing.targets, dtype=torch.int64)), list(listing.classes)
