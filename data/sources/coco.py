"""COCO instance annotations: what an image shows, and its semantic mask, drawn when it is read.

Nothing is kept of a polygon but its place in the file: a sample knows the bytes of its own annotations, and
reads them again when its mask is wanted. Format: https://cocodataset.org/#format-data

COCO 2014, 2017 and whatever is laid out like them: annotations/instances_<split>.json and <split>/.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.images import UInt8
from data.json_stream import stream_items
from data.masks import Facts
from data.regions import Region, checked_counts, polygon_region, run_length_region, unpacked_counts
from data.sources.rows import Origin, RawListing, Row, check_rows, existing_folder, with_masks
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import UserError, listed

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
            seen.add(IGNORE if record.get("iscrowd") else label)
        return Facts(digest=digest.hexdigest(), size=self.size, labels=tuple(sorted(seen)))

    def _layers(self) -> list[tuple[int, Region]]:
        """Labels and regions from the bottom to the top."""
        crowds, things = [], []
        for label, _, record in self._records():
            region = self._checked(record, draw=True)
            if record.get("iscrowd"):
                crowds.append((IGNORE, region))
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


_ANNOTATIONS = "annotations/instances_{split}.json"
_IMAGES = ("{split}", "images/{split}", "images")


def read_coco(config: DataConfig) -> RawListing:
    """Read the annotation files of both splits; a missing one of the validation split is no validation split.

    Where ``data.labels`` has no ``{split}`` in it, it is one file, and all of it is for training.

    The tags of an image are the categories of its annotations, those of crowds too. Masks are drawn from the
    annotations when they are read (see `data.sources.coco.CocoMask`), or come from the folder that ``data.masks``
    names. ``data.classes`` may leave categories out: they give no tags, and their pixels are ignored.

    Raises:
        UserError: a missing file or folder, a malformed annotation file, or two that disagree.
    """
    root = existing_folder(Path(config.root), "root")
    files = _files(root, config)
    training = files[config.train_split]
    if not training.is_file():
        raise UserError(
            f"{training}: no such file. Expected the instance annotations of the split {config.train_split!r}: "
            "unpack annotations_trainval*.zip into the root, or correct data.train_split or data.labels."
        )
    found = {split: read_instances(file) for split, file in files.items() if file.is_file()}
    categories = _categories(list(found.values()))
    classes = config.classes or tuple(categories.values())
    _check_listed(config.classes, categories, training)
    rows: list[Row] = []
    for split, instances in found.items():
        rows += _rows(instances, _folder(root, config.images, split), split, classes, config.masks == "auto")
    raw = RawListing(
        root=root,
        place=training.parent,
        images=root,
        masks=root / config.masks if config.masks else None,
        classes=classes,
        classes_from="data.classes"
        if config.classes
        else f"the categories of {training} (or set data.classes)",
        rows=tuple(rows),
        ignored={},
        notes=tuple(_notes(list(found.values()), classes)),
    )
    check_rows(raw, config.train_split)
    if config.masks in ("auto", ""):
        return replace(raw, masks=training.parent if config.masks else None)
    return with_masks(raw, [existing_folder(root / config.masks, "masks")])


def coco_origin(config: DataConfig) -> Origin | None:
    """What the listing is made from; None where masks are files of a folder, any of which may come or go."""
    if config.masks not in ("auto", ""):
        return None
    root = Path(config.root)
    files = _files(root, config)
    folders = {root / place for split in files for place in _usual(config.images, split)}
    return Origin(files=tuple(files.values()), folders=tuple(sorted(folders)))


def _files(root: Path, config: DataConfig) -> dict[str, Path]:
    """Return where the annotation file of each split should be."""
    pattern = _pattern(config)
    splits = (config.train_split, config.val_split) if "{split}" in pattern else (config.train_split,)
    return {split: root / pattern.replace("{split}", split) for split in splits}


def _pattern(config: DataConfig) -> str:
    return _ANNOTATIONS if config.labels == "auto" else config.labels


def _folder(root: Path, images: str, split: str) -> str:
    """Return the folder of a split's photographs, relative to the root."""
    usual = _usual(images, split)
    for place in usual:
        if (root / place).is_dir():
            return "" if place == "." else f"{place}/"
    raise UserError(
        f"{root}: the photographs of the split {split!r} are missing. Expected one of the folders "
        f"{', '.join(usual)} there: unpack {split}.zip, or set data.images."
    )


def _usual(images: str, split: str) -> list[str]:
    return [place.replace("{split}", split) for place in (_IMAGES if images == "auto" else (images,))]


def _categories(files: Sequence[Instances]) -> Mapping[int, str]:
    first = files[0]
    for other in files[1:]:
        if other.categories != first.categories:
            raise UserError(
                f"{other.file}: its categories are not those of {first.file}.\n"
                "Expected the same ids and names in both: export them from one project."
            )
    return first.categories


def _check_listed(classes: Sequence[str], categories: Mapping[int, str], file: Path) -> None:
    unknown = [repr(name) for name in classes if name not in categories.values()]
    if unknown:
        raise UserError(
            f"data.classes: {listed(unknown, ', ')} not among the categories of {file}.\n"
            f"Expected names out of: {listed(list(categories.values()), ', ')}."
        )


def _rows(instances: Instances, folder: str, split: str, classes: Sequence[str], draw: bool) -> list[Row]:
    label = {name: position + 1 for position, name in enumerate(classes)}
    labels = {category: label.get(name, IGNORE) for category, name in instances.categories.items()}
    return [_row(instances, image, folder, split, labels, classes, draw) for image in instances.images]


def _row(
    instances: Instances,
    image: CocoImage,
    folder: str,
    split: str,
    labels: Mapping[int, int],
    classes: Sequence[str],
    draw: bool,
) -> Row:
    own = instances.of_image(image.id)
    table = instances.table[own]
    values = [labels[category] for category in table[:, 1].tolist()]
    parts = np.column_stack([table[:, 2:], np.array(values, np.int64)])
    return Row(
        where=f"{instances.file.name} image {image.id}",
        image=folder + image.file_name,
        tags=tuple(classes[value - 1] for value in sorted(set(values)) if value != IGNORE),
        split=split,
        mask=CocoMask(instances.file, image.id, image.size, parts.tobytes())
        if draw and instances.drawn[own].all() and instances.drawn.any()
        else None,
    )


def _notes(files: Sequence[Instances], classes: Sequence[str]) -> list[str]:
    left_out = [name for name in files[0].categories.values() if name not in classes]
    if not left_out:
        return []
    return [f"data.classes leaves out {listed(left_out, ', ')}: no tags, and their pixels are ignored"]
