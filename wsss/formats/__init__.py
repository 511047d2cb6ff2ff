"""Label masks in the formats of other programs: arrays in, files out. Equal masks give equal bytes.

    rle           run lengths: COCO's compressed string, Label Studio's packed bits
    voc           palette PNGs with a list, as in the PASCAL VOC devkit
    coco          instances JSON
    cvat          archive "Segmentation mask 1.1"
    labelstudio   tasks with brush predictions

Mask values everywhere: 0 background, c + 1 class c, 255 unsure. Where a format has no word for unsure, no
annotation covers such pixels, as none covers background.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

IGNORE = 255
MAX_OBJECTS = 254


@dataclass(frozen=True)
class LabelledImage:
    """One image that is exported.

    Attributes:
        id: relative path without extension, ``/`` between folders.
        file_name: the same with the extension of the photograph.
        labels: (H, W) uint8.
    """

    id: str
    file_name: str
    labels: NDArray[np.uint8]


Put = Callable[[str, bytes], None]
"""Takes a relative path and the content of a file."""


def regions(labels: NDArray[np.uint8], *, instances: bool) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """What gets an annotation of its own.

    Args:
        labels: (H, W) uint8.
        instances: every connected component (8 neighbours) of a class by itself; else each class as a whole.
            Tags do not say where one object ends and the next begins, and a component is not an object: two
            that touch are one, one that is hidden in part is two.

    Yields:
        Class index 0..C-1 and (H, W) bool, classes in order.
    """
    for value in np.unique(labels).tolist():
        if value in (0, IGNORE):
            continue
        mask = labels == value
        if not instances:
            yield value - 1, mask
            continue
        numbered = connected_components(mask, connectivity=2)  # type: ignore[no-untyped-call]
        for number in range(1, int(numbered.max()) + 1):
            yield value - 1, numbered == number
