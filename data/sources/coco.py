"""COCO instance annotations: what an image shows, and its semantic mask, drawn when it is read.

Read are COCO 2014, 2017 and whatever is laid out like them: annotations/instances_<split>.json and <split>/. Format:
https://cocodataset.org/#format-data. Nothing is kept of a region but its place in the file: a mask knows where its
regions are, and reads them again when it is wanted.
"""

import codecs
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from data.cache import Memory, Remembered, Stamp, remembered, stamp_of
from data.images import UInt8, read_bytes
from data.masks import Facts, Mask
from data.sources.listing import Entry, Listing, check_entries, existing_folder, with_masks
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import UserError, listed

_FAR = 4  # coordinates may lie outside by this many times the image's longer side
_LISTS = "annotations/instances_{split}.json"
_IMAGES = ("{split}", "images/{split}", "images")

# ---- the format

_Id: TypeAlias = Annotated[int, Meta(ge=-(2**53), le=2**53)]
_Side: TypeAlias = Annotated[int, Meta(ge=1, le=65_500)]


class _Image(msgspec.Struct, gc=False):
    id: _Id
    file_name: str
    height: _Side
    width: _Side


class _Annotation(msgspec.Struct, gc=False):
    image_id: _Id
    category_id: _Id
    segmentation: msgspec.Raw = msgspec.Raw(b"[]")
    iscrowd: int | bool = 0


class _Category(msgspec.Struct):
    id: _Id
    name: str


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation] = []


class _RunLengths(msgspec.Struct):
    size: tuple[int, int]
    counts: str | list[Annotated[int, Meta(ge=0, lt=2**32)]]


_REGION = msgspec.json.Decoder(list[list[float]] | _RunLengths)

# ---- what an annotation file says


class CocoImage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An image of an annotation file.

    Attributes:
        id: in the file.
        file_name: path as the file has it.
        size: ``(H, W)`` as the file says.
        categories: id of the category of each annotation, in the order of the file.
        regions: for each annotation first byte and length of its region, and 1 for a crowd: int64.
        drawn: whether all annotations have a region.
    """

    id: int
    file_name: str
    size: tuple[int, int]
    categories: tuple[int, ...]
    regions: bytes
    drawn: bool


class Instances(Remembered, kw_only=True, tag="wsss-coco-1"):
    """What one annotation file says, without any region.

    Attributes:
        categories: names by category id, in the order of the ids.
        images: in the order of the file.
    """

    categories: dict[int, str]
    images: list[CocoImage]

    def used(self) -> list[str]:
        """Names of the categories that any annotation has, in the order of the ids."""
        used = {category for image in self.images for category in image.categories}
        return [name for number, name in self.categories.items() if number in used]


def read_instances(path: Path, memory: Memory | None = None) -> Instances:
    """Read an annotation file whole, or remember what it said.

    Raises:
        UserError: the file is damaged, is no COCO instance file, or an entry is not of the documented form.
    """
    return remembered(path, Instances, _read, memory)


def _read(path: Path) -> Instances:
    content = read_bytes(path)
    start = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    try:
        file = msgspec.json.decode(memoryview(content)[start:], type=_File)
    except msgspec.ValidationError as error:
        raise _unexpected(path, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: not JSON, damaged or cut off ({error}): copy or export it again."
        ) from error
    names = {category.id: category.name for category in sorted(file.categories, key=lambda item: item.id)}
    categories: dict[int, list[int]] = {image.id: [] for image in file.images}
    if len(categories) < len(file.images):
        (number, _), *_ = Counter(image.id for image in file.images).most_common(1)
        raise _unexpected(path, f"images: two have the id {number}")
    regions = {image.id: array("q") for image in file.images}
    drawn = dict.fromkeys(categories, True)
    for number, annotation in enumerate(file.annotations):
        image, category, raw = annotation.image_id, annotation.category_id, annotation.segmentation
        if image not in categories or category not in names:
            missing = f"image {image}" if image not in categories else f"category {category}"
            raise _unexpected(path, f"annotations[{number}] names {missing}, which is not listed")
        categories[image].append(category)
        length = memoryview(raw).nbytes
        if length > len(b"null"):  # neither null nor [] nor [[]]
            start = content.find(raw, start)  # an equal text before it is as good
            regions[image].extend((start, length, annotation.iscrowd))
            start += length
        else:
            drawn[image] = False
    images = [
        CocoImage(
            id=image.id,
            file_name=image.file_name,
            size=(image.height, image.width),
            categories=tuple(categories[image.id]),
            regions=regions[image.id].tobytes(),
            drawn=drawn[image.id],
        )
        for image in file.images
    ]
    return Instances(categories=names, images=images)


def _unexpected(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path}: {problem}.\nExpected COCO's instances: images with id, file_name, width, height; annotations with "
        "image_id, category_id, segmentation; categories with id, name: correct the entry or name another file."
    )


# ---- masks


class CocoMask(Mask, frozen=True, gc=False):
    """The semantic mask of one image.

    Crowd regions are ignored (255), except where an instance lies on them. Where instances overlap, the one
    with fewer pixels is on top; of two with equally many, the later in the file.

    Attributes:
        stamp: of the annotation file when its places were read.
        image: the image's id in the file.
        size: ``(H, W)`` as the file says.
        regions: as in `CocoImage`.
        labels: the label of each region.
    """

    stamp: Stamp | None
    image: int
    size: tuple[int, int]
    regions: bytes
    labels: bytes

    @property
    def part(self) -> str:
        """The image, under this assignment of labels."""
        return f"{self.image}-{self.labels.hex()}"

    def read(self) -> UInt8:
        """Draw the mask."""
        from pycocotools import mask as coco

        regions = [(label, crowd, self._region(raw)) for label, crowd, raw in self._regions()]
        labels = np.zeros(self.size, np.uint8, order="F")  # as regions are: column by column
        # Crowds first, then from the largest to the smallest.
        for label, crowd, region in sorted(regions, key=lambda item: (not item[1], -int(coco.area(item[2])))):
            np.copyto(labels, IGNORE if crowd else label, where=coco.decode(region).view(np.bool_))
        return np.ascontiguousarray(labels)

    def examine(self) -> Facts:
        """Check every region."""
        from pycocotools import mask as coco

        digest = hashlib.sha256(msgspec.json.encode(self.size))
        seen = {0}
        for label, crowd, raw in self._regions():
            digest.update(bytes([label, crowd]) + raw)
            if coco.area(self._region(raw)):
                seen.add(IGNORE if crowd else label)
        return Facts(digest=digest.hexdigest(), size=self.size, labels=tuple(sorted(seen)))

    def _regions(self) -> Iterator[tuple[int, int, bytes]]:
        """Label, whether it is a crowd, and text of each region, in the order of the file."""
        try:
            with self.file.open("rb") as file:
                if stamp_of(file.fileno()) != self.stamp:
                    raise UserError(f"{self.file}: changed while it was in use: run again.")
                places = np.frombuffer(self.regions, np.int64).reshape(-1, 3).tolist()
                for (start, length, crowd), label in zip(places, self.labels, strict=True):
                    file.seek(start)
                    yield label, crowd, file.read(length)
        except OSError as error:
            raise UserError(f"{self.file}: cannot be read ({error.strerror}): check the file.") from error

    def _region(self, raw: bytes) -> dict[str, Any]:
        """The pixels of a region as pycocotools keeps them: compressed run lengths."""
        from pycocotools import mask as coco

        H, W = self.size
        try:
            found = _REGION.decode(raw)
            if isinstance(found, _RunLengths):
                return self._checked_run_lengths(found)
            found = [polygon for polygon in found if len(polygon) >= 6]  # a point or a line has no pixels
            for polygon in found:
                if len(polygon) % 2:
                    raise ValueError(f"a polygon of {len(polygon)} numbers")
                if max(map(abs, polygon)) > _FAR * max(H, W):
                    raise ValueError("a polygon with a coordinate far outside of the image")
            if not found:
                found = [[0.0] * 6]
            region: dict[str, Any] = coco.merge(coco.frPyObjects(found, H, W))
            return region
        except ValueError as error:  # also of msgspec
            shown = raw[:30].decode(errors="replace")
            raise UserError(
                f"{self}: its segmentation {shown}... cannot be used: {error}.\nExpected polygons [[x, y, ...], ...] "
                "of three points or more, or run lengths {counts, size}: correct or remove it."
            ) from error

    def _checked_run_lengths(self, found: _RunLengths) -> dict[str, Any]:
        """Run lengths of as many pixels as the image has: pycocotools takes any. Raises ValueError."""
        from pycocotools import mask as coco

        H, W = self.size
        if found.size != self.size:
            raise ValueError(f"size {list(found.size)}, expected {[H, W]}, the image's height and width")
        if isinstance(found.counts, list):
            if sum(found.counts) != H * W:
                raise ValueError(f"run lengths sum to {sum(found.counts)}, expected {H * W} ({W}x{H} pixels)")
            region: dict[str, Any] = coco.frPyObjects({"size": [H, W], "counts": found.counts}, H, W)
            return region
        region = {"size": [H, W], "counts": found.counts.encode()}
        if coco.encode(coco.decode(region))["counts"] != region["counts"]:
            raise ValueError(f"its run lengths are not those of {W}x{H} pixels")
        return region

    def __str__(self) -> str:
        return f"{self.file} image {self.image}"


# ---- the listing


def read_coco(config: DataConfig, memory: Memory | None = None) -> Listing:
    """Read the annotation files of both splits; a missing one of the validation split is no validation split.

    Where ``data.labels`` has no ``{split}`` in it, it is one file, and all of it is for training.

    The tags of an image are the categories of its annotations, those of crowds too. Masks are drawn from the
    annotations when they are read (see `CocoMask`), or come from the folder that ``data.masks`` names.
    ``data.classes`` may leave categories out: they give no tags, and their pixels are ignored.

    Raises:
        UserError: a missing file or folder, a malformed annotation file, or two that disagree.
    """
    root = existing_folder(Path(config.root), "root")
    pattern = _LISTS if config.labels == "auto" else config.labels
    splits = (config.train_split, config.val_split) if "{split}" in pattern else (config.train_split,)
    files = {split: root / pattern.replace("{split}", split) for split in splits}
    training = files[config.train_split]
    if not training.is_file():
        raise UserError(
            f"{training}: no such file. Expected the instance annotations of the split {config.train_split!r}: "
            "unpack annotations_trainval*.zip into the root, or correct data.train_split or data.labels."
        )
    found = {split: read_instances(file, memory) for split, file in files.items() if file.is_file()}
    names = list(found[config.train_split].categories.values())
    _check_categories(files, found, config)
    classes = config.classes or tuple(names)
    left_out = [name for name in names if name not in classes]
    note = f"data.classes leaves out {listed(left_out, ', ')}: no tags, and their pixels are ignored"
    entries: list[Entry] = []
    for split, instances in found.items():
        folder = _folder(root, config.images, split)
        entries += _entries(instances, files[split], folder, split, classes, draw=config.masks == "auto")
    usual = f"the categories of {training} (or set data.classes)"
    listing = Listing(
        root=root,
        place=training.parent,
        images=root,
        masks=training.parent if config.masks == "auto" else None,
        classes=classes,
        classes_from="data.classes" if config.classes else usual,
        entries=tuple(entries),
        notes=(note,) if left_out else (),
    )
    check_entries(listing, config.train_split)
    if config.masks in ("auto", ""):
        return listing
    masks = existing_folder(root / config.masks, "masks")
    return with_masks(replace(listing, masks=masks), [masks])


def _check_categories(files: Mapping[str, Path], found: Mapping[str, Instances], config: DataConfig) -> None:
    first = found[config.train_split].categories
    for split, instances in found.items():
        if instances.categories != first:
            raise UserError(
                f"{files[split]}: its categories are not those of {files[config.train_split]}.\n"
                "Expected the same ids and names in both: export them from one project."
            )
    unknown = [repr(name) for name in config.classes if name not in first.values()]
    if unknown:
        raise UserError(
            f"data.classes: {listed(unknown, ', ')} not among the categories of {files[config.train_split]}.\n"
            f"Expected names out of: {listed(list(first.values()), ', ')}."
        )


def _folder(root: Path, images: str, split: str) -> str:
    """Return the folder of a split's images, relative to the root."""
    usual = [place.replace("{split}", split) for place in (_IMAGES if images == "auto" else (images,))]
    for place in usual:
        if (root / place).is_dir():
            return "" if place == "." else f"{place}/"
    raise UserError(
        f"{root}: the images of the split {split!r} are missing. Expected one of the folders "
        f"{', '.join(usual)} there: unpack {split}.zip, or set data.images."
    )


def _entries(
    instances: Instances, file: Path, folder: str, split: str, classes: Sequence[str], *, draw: bool
) -> Iterator[Entry]:
    label = {name: position + 1 for position, name in enumerate(classes)}
    labels = {number: label.get(name, IGNORE) for number, name in instances.categories.items()}
    draw = draw and any(image.drawn and image.categories for image in instances.images)
    for image in instances.images:
        own = bytes(labels[category] for category in image.categories)
        mask = CocoMask(file, instances.stamp, image.id, image.size, image.regions, own)
        yield Entry(
            where=f"{file.name} image {image.id}",
            image=folder + image.file_name,
            tags=tuple(classes[value - 1] for value in sorted(set(own)) if value != IGNORE),
            split=split,
            mask=mask if draw and image.drawn else None,
        )
