"""PASCAL VOC: ``SegmentationClass/<id>.png`` with the VOC palette, and the list of a split."""

from collections.abc import Iterable, Sequence

from wsss.formats import LabelledImage, Put
from wsss.palette_png import encode_mask


def voc_files(ids: Iterable[str], split: str) -> list[str]:
    """The files that `write_voc` writes, relative."""
    return [*(_mask(image_id) for image_id in ids), _list(split), "classes.txt"]


def write_voc(images: Iterable[LabelledImage], classes: Sequence[str], split: str, put: Put) -> None:
    """Write masks, then the list of their ids, and the class names in the order of the values 1..C.

    Unsure pixels keep the value 255, which VOC ignores too.
    """
    ids = []
    for image in images:
        put(_mask(image.id), encode_mask(image.labels))
        ids.append(image.id)
    put("classes.txt", "".join(f"{name}\n" for name in classes).encode())
    put(_list(split), "".join(f"{image_id}\n" for image_id in ids).encode())


def _mask(image_id: str) -> str:
    return f"SegmentationClass/{image_id}.png"


def _list(split: str) -> str:
    return f"ImageSets/Segmentation/{split}.txt"
