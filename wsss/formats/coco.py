"""COCO instances JSON with compressed RLE: what pycocotools reads."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.formats import LabelledImage, regions
from wsss.formats.rle import coco_counts


def coco_json(
    images: Iterable[LabelledImage], classes: Sequence[str], info: Mapping[str, Any], *, instances: bool
) -> bytes:
    """The document.

    A category's id is its mask value 1..C, an image's its place 1.. in the list, which is also in order of ids.

    Args:
        images: to be written.
        classes: C names.
        info: becomes the member of that name.
        instances: see `wsss.formats.regions`.
    """
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        H, W = image.labels.shape
        number = len(pictures) + 1
        pictures.append({"id": number, "file_name": image.file_name, "height": H, "width": W})
        for c, mask in regions(image.labels, instances=instances):
            annotation = _annotation(mask) | {"image_id": number, "category_id": c + 1}
            annotations.append({"id": len(annotations) + 1, **annotation})
    document = {
        "info": dict(info),
        "licenses": [],
        "images": pictures,
        "annotations": annotations,
        "categories": [{"id": c + 1, "name": name, "supercategory": name} for c, name in enumerate(classes)],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _annotation(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return {
        "segmentation": {"size": list(mask.shape), "counts": coco_counts(mask)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "iscrowd": 0,
    }
