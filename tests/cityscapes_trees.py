"""A tiny data set in the layout of Cityscapes: images and fine labels, with the published names and keys."""

import json
from pathlib import Path

import numpy as np

from data.sources.cityscapes import CITYSCAPES_CLASSES
from tests.trees import UInt8, write_png
from wsss.config import DataConfig

IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
VOID = [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255]
STEMS = {"train": ("aachen", "aachen_000000_000019"), "val": ("ulm", "ulm_000001_000019")}


def label_ids() -> UInt8:
    """A label file with every value that the published ones hold."""
    return np.array([*IDS, *VOID], np.uint8).reshape(5, 7)


def make_cityscapes_tree(root: Path) -> DataConfig:
    """One image per split, with the published names and keys."""
    for split, (city, stem) in STEMS.items():
        write_png(
            root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", np.zeros((5, 7, 3), np.uint8)
        )
        folder = root / "gtFine" / split / city
        write_png(folder / f"{stem}_gtFine_labelIds.png", label_ids())
        write_png(folder / f"{stem}_gtFine_instanceIds.png", label_ids())
        write_png(folder / f"{stem}_gtFine_color.png", np.zeros((5, 7, 4), np.uint8))
        names = [*CITYSCAPES_CLASSES, "ego vehicle", "cargroup", "license plate"]
        objects = [{"label": name, "polygon": [[0, 0], [3, 0], [3, 4]]} for name in names]
        content = {"imgHeight": 5, "imgWidth": 7, "objects": objects}
        (folder / f"{stem}_gtFine_polygons.json").write_text(json.dumps(content, indent=4))
    return DataConfig(source="cityscapes", root=str(root))
