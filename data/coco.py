"""COCO instance annotations: what an image shows, and its semantic mask, drawn when it is read.

Nothing is kept of a polygon but its place in the file: a sample knows the bytes of its own annotations, and
reads them again when its mask is wanted. Format: https://cocodataset.org/#format-data
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.images import UInt8
from data.json_stream import stream_items
from data.masks import Facts
from data.regions import Region, checked_counts, polygon_region, run_length_region, unpacked_counts
from wsss.errors import UserError

IGNORED = 255
_LARGEST = 1 << 28  # pixels of an image; more is taken for a mistake
_FAR = 4  # coordinates may lie outside by this many times the image's longer side
_ARRAYS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CocoImage:
    """An image of the file: its path, its size ``(H, W)``."""

    id: int
    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Instances:
    """What one annotation file says, without any polygon.

    Attributes:
        file: the JSON file.
        categories: names by category id, in the order of the ids.
        images: in the order of the file.
        table: int64 ``(n, 4)``: image id, category id, first byte and length of each annotation, sorted by image
            and, within one, in the order of the file.
        drawn: bool ``(n,)``, whether the annotation has a region.
    """

    file: Path
    categories: Mapping[int, str]
    images: tuple[CocoImage, ...]
    table: NDArray[np.int64]
    drawn: NDArray[np.bool_]

    def of_image(self, image_id: int) -> slice:
        """Return the rows of ``table`` and ``drawn`` that belong to an image."""
        first, last = np.searchsorted(self.table[:, 0], [image_id, image_id + 1])
        return slice(int(first), int(last))


@dataclass(frozen=True)
class CocoMask:
    """The semantic mask of one image.

    Crowd regions are ignored (255), except where an instance lies on them. Where instances overlap, the one
    with fewer pixels is on top; of two with equally many, the later in the file.

    Attributes:
        file: the JSON file.
        image: the image's id in it.
        size: ``(H, W)`` as the file says.
        parts: int64 ``(n, 3)`` as bytes: first byte, length and label of each annotation.
    """

    file: Path
    image: int
    size: tuple[int, int]
    parts: bytes

    @property
    def part(self) -> str:
        """The image, under this assignment of labels."""
        return f"{self.image}-{hashlib.sha256(self.parts).hexdigest()[:12]}"

    def read(self) -> UInt8:
        """Draw the mask."""
        labels = np.zeros(self.size, np.uint8, order="F")  # as regions are: column by column
        for label, region in self._layers():
            np.copyto(labels, label, where=region)
        return np.ascontiguousarray(labels)

    def examine(self) -> Facts:
        """Check every region without drawing it."""
        digest = hashlib.sha256(json.dumps(self.size).encode())
        seen = {0}
        for label, raw, record in self._records():
            self._checked(record, draw=False)
            digest.update(bytes([label]) + raw)
            seen.add(IGNORED if record.get("iscrowd") else label)
        return Facts(digest=digest.hexdigest(), size=self.size, labels=tuple(sorted(seen)))

    def _layers(self) -> list[tuple[int, Region]]:
        """Labels and regions from the bottom to the top."""
        crowds, things = [], []
        for label, _, record in self._records():
            region = self._checked(record, draw=True)
            if record.get("iscrowd"):
                crowds.append((IGNORED, region))
            else:
                things.append((label, region))
        return crowds + sorted(things, key=lambda layer: -np.count_nonzero(layer[1].T))

    def _records(self) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
        """Label, bytes and content of each annotation, in the order of the file."""
        try:
            with self.file.open("rb") as file:
                for start, length, label in np.frombuffer(self.parts, np.int64).reshape(-1, 3).tolist():
                    file.seek(start)
                    raw = file.read(length)
                    record = json.loads(raw)
                    if record["image_id"] != self.image:
                        raise ValueError("another image's annotation")
                    yield label, raw, record
        except OSError as error:
            raise UserError(f"{self.file}: cannot be read ({error.strerror}): check the file.") from error
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.file}: changed while it was in use ({error}): run again.") from error

    def _checked(self, record: Mapping[str, Any], *, draw: bool) -> Region:
        try:
            return _region(record["segmentation"], self.size, draw=draw)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise UserError(
                f"{self.file}: annotation {record.get('id')} of image {self.image}: its segmentation cannot be used "
                f"({error}).\nExpected polygons [[x, y, ...], ...] of three points or more, or run lengths "
                "{counts, size}: correct or remove it."
            ) from error

    def __str__(self) -> str:
        return f"{self.file} image {self.image}"


def read_instances(path: Path) -> Instances:
    """Read an annotation file once, keeping places instead of polygons.

    Raises:
        UserError: the file is damaged, is no COCO instance file, or an entry is not of the documented form.
    """
    categories: dict[int, str] = {}
    images: dict[int, CocoImage] = {}
    rows, drawn, keys = [], [], set()
    for number, item in enumerate(stream_items(path, _ARRAYS, skip="segmentation")):
        keys.add(item.key)
        value = item.value
        try:
            if item.key == "annotations":
                rows.append(
                    (_whole(value["image_id"]), _whole(value["category_id"]), item.start, item.length)
                )
                drawn.append(bool(value.get("segmentation")))
            elif item.key == "images":
                image = _image(value)
                if images.setdefault(image.id, image) is not image:
                    raise ValueError(f"image {image.id} is there twice")
            else:
                categories[_whole(value["id"])] = _text(value["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise _unexpected(path, item.key, number, value, error) from error
    if not {"images", "categories"} <= keys:
        raise UserError(
            f"{path}: no COCO instance annotations. Expected the arrays images, annotations and categories, "
            f"found {', '.join(sorted(keys)) or 'none of them'}: name the instances_*.json file."
        )
    table = np.array(rows, np.int64).reshape(-1, 4)
    order = np.argsort(table[:, 0], kind="stable")
    instances = Instances(
        file=path,
        categories=dict(sorted(categories.items())),
        images=tuple(images.values()),
        table=table[order],
        drawn=np.array(drawn, np.bool_)[order],
    )
    _check_references(instances, images)
    return instances


def _image(value: Mapping[str, Any]) -> CocoImage:
    size = (_whole(value["height"]), _whole(value["width"]))
    if min(size) < 1 or size[0] * size[1] > _LARGEST:
        raise ValueError(f"size {size[1]}x{size[0]}")
    return CocoImage(_whole(value["id"]), _text(value["file_name"]), size)


def _whole(value: object) -> int:
    if type(value) is not int or not -(2**62) < value < 2**62:
        raise ValueError(f"{value!r} is no whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _unexpected(path: Path, key: str, number: int, value: object, error: Exception) -> UserError:
    named = f"id {value['id']!r}" if isinstance(value, dict) and "id" in value else f"entry {number}"
    reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
    return UserError(
        f"{path}: {key}, {named}: {reason}. Expected what COCO's format documents "
        "(whole-number ids; width, height, file_name; image_id, category_id): correct this entry."
    )


def _check_references(instances: Instances, images: Mapping[int, CocoImage]) -> None:
    for column, known, what in ((0, images, "images"), (1, instances.categories, "categories")):
        missing = sorted(set(np.unique(instances.table[:, column]).tolist()) - set(known))
        if missing:
            raise UserError(
                f"{instances.file}: annotations name {len(missing)} id(s) that {what} does not list, first "
                f"{missing[0]}. Expected every id among {what}: export the file again."
            )


def _region(segmentation: Any, size: tuple[int, int], *, draw: bool) -> Region:
    """Draw a segmentation, or with ``draw`` False only check it (the result is then empty)."""
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if list(segmentation["size"]) != list(size):
            raise ValueError(
                f"size {segmentation['size']}, expected {list(size)}, as the image's height and width"
            )
        numbers = unpacked_counts(counts) if isinstance(counts, str) else counts
        if draw:
            return run_length_region(numbers, size)
        checked_counts(numbers, size)
        return _nothing(size)
    region = np.zeros(size, np.bool_, order="F") if draw else _nothing(size)
    for polygon in segmentation:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError(f"a polygon of {points.size} numbers")
        if not (abs(points) <= _FAR * max(size)).all():  # false for what is no number, too
            raise ValueError("a polygon with a coordinate far outside of the image, or none")
        if draw:
            region |= polygon_region(points.reshape(-1, 2), size)
    return region


def _nothing(size: tuple[int, int]) -> Region:
    """An empty region that takes no memory."""
    return np.broadcast_to(np.False_, size)
