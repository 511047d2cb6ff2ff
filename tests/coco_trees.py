"""A tiny data set in the layout of COCO 2017: two annotation files, two folders of images."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.trees import UInt8, make_scene, write_jpeg
from wsss.config import DataConfig

CATEGORIES = {1: "person", 3: "car", 18: "dog"}
"""The published ids have gaps."""


def make_coco_tree(
    root: Path, *, n_train: int = 6, n_val: int = 3, size: tuple[int, int] = (36, 48)
) -> DataConfig:
    """Write both splits; image i shows the category ``i % 3`` and every other image one more."""
    rng = np.random.default_rng(0)
    number = 0
    for split, images in (("train2017", n_train), ("val2017", n_val)):
        entries: list[Any] = []
        annotations: list[Any] = []
        for _ in range(images):
            labels = [number % 3 + 1] if number % 2 else [number % 3 + 1, (number + 1) % 3 + 1]
            pixels, mask = make_scene(labels, size, rng)
            name = f"{number + 9:012d}.jpg"
            write_jpeg(root / split / name, pixels)
            entries.append(image_entry(number + 9, name, size))
            for label in labels:
                box = outline(mask == label)
                annotations.append(
                    annotation(len(annotations) + 1, number + 9, list(CATEGORIES)[label - 1], [box])
                )
            number += 1
        write_instances(root / "annotations" / f"instances_{split}.json", entries, annotations)
    return DataConfig(source="coco", root=str(root), train_split="train2017", val_split="val2017")


def outline(where: UInt8 | np.ndarray[Any, np.dtype[np.bool_]]) -> list[float]:
    """The bounding box of a region as a polygon."""
    y, x = np.nonzero(where)
    left, top, right, bottom = (float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1))
    return [left, top, right, top, right, bottom, left, bottom]


def image_entry(number: int, name: str, size: tuple[int, int]) -> dict[str, Any]:
    """An entry of ``images`` with every published key."""
    return {
        "license": 4,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "height": size[0],
        "width": size[1],
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg",
        "id": number,
    }


def annotation(number: int, image: int, category: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    """An entry of ``annotations`` with every published key."""
    return {
        "segmentation": segmentation,
        "area": 702.1057499999998,
        "iscrowd": crowd,
        "image_id": image,
        "bbox": [0.0, 0.0, 1.0, 1.0],
        "category_id": category,
        "id": number,
    }


def write_instances(
    path: Path, images: list[Any], annotations: list[Any], categories: dict[int, str] = CATEGORIES
) -> None:
    """Write an annotation file with the published keys in the published order, in one line."""
    content = {
        "info": {"description": "COCO 2017 Dataset", "version": "1.0", "year": 2017},
        "licenses": [
            {"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}
        ],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"supercategory": "thing", "id": key, "name": name} for key, name in categories.items()
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
