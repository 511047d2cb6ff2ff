"""The PASCAL VOC devkit layout: JPEGImages, Annotations, ImageSets/Segmentation, SegmentationClass.

Source of the layout: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.sources.rows import RawListing, Row, check_rows, existing_folder, mask_folder, read_text, with_masks
from wsss.config import DataConfig
from wsss.errors import UserError, listed

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_LISTS = "ImageSets/Segmentation"


def read_voc(config: DataConfig) -> RawListing:
    """Read the two split lists and the tags of their images from the annotations.

    The tags of an image are the names of its objects, difficult ones too. ``data.labels`` and
    ``data.images`` do not apply. Without ``data.classes`` the classes are the 20 of VOC in their published
    order, so that a mask value is a class position + 1.

    Raises:
        UserError: a folder, list or annotation that is missing or malformed.
    """
    root = _devkit(existing_folder(Path(config.root), "root"))
    rows = []
    for split, required in ((config.train_split, True), (config.val_split, False)):
        rows += _read_list(root / _LISTS / f"{split}.txt", split, required=required)
    raw = RawListing(
        root=root,
        place=root / _LISTS,
        images=root / "JPEGImages",
        masks=mask_folder(root, config.masks, "SegmentationClass"),
        classes=config.classes or VOC_CLASSES,
        classes_from="data.classes" if config.classes else "the 20 VOC classes",
        rows=tuple(rows),
        ignored={},
    )
    check_rows(raw, config.train_split)  # before the annotations: a bad id must not be opened
    raw = replace(raw, rows=_with_tags(raw.rows, root / "Annotations"))
    return with_masks(raw, [raw.masks]) if raw.masks else raw


def _devkit(root: Path) -> Path:
    """Return the folder that holds JPEGImages: ``root`` itself or the VOC2012 inside."""
    places = (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012")
    for place in places:
        if (place / "JPEGImages").is_dir():
            return place
    looked = ", ".join(str(place / "JPEGImages") for place in places)
    raise UserError(f"{root}: not a VOC devkit. Expected one of the folders {looked}: correct data.root.")


def _read_list(path: Path, split: str, *, required: bool) -> list[Row]:
    """Return the rows of a split list, still without tags; a list that is not required may be missing."""
    if not path.is_file():
        if required:
            raise UserError(
                f"{path}: no such file. Expected the list of the split {split!r}, one image id per line."
            )
        return []
    rows, wrong = [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = line.strip()
        if len(name.split()) > 1:
            wrong.append(f"line {number} is {name!r}")
        elif name:
            rows.append(Row(where=f"{path.name} line {number}", image=f"{name}.jpg", tags=(), split=split))
    if wrong:
        raise UserError(
            f"{path}: expected one image id per line, such as 2007_000032; {listed(wrong)}: correct the list."
        )
    return rows


def _with_tags(rows: Sequence[Row], annotations: Path) -> tuple[Row, ...]:
    tagged, problems = [], []
    for row in rows:
        path = annotations / f"{row.id}.xml"
        try:
            tags = read_annotation(path)
        except UserError as error:
            problems.append(f"{row.where}: {error}")
            continue
        tagged.append(replace(row, where=f"{row.where} ({row.id}.xml)", tags=tags))
    if problems:
        raise UserError(f"{annotations}: {len(problems)} annotation(s) cannot be used:\n{listed(problems)}")
    return tuple(tagged)


def read_annotation(path: Path) -> tuple[str, ...]:
    """Return the sorted, distinct names of the objects in a VOC annotation, without those of their parts.

    Raises:
        UserError: a file that is missing, not XML, has a DOCTYPE, or is not a VOC annotation.
    """
    try:
        parser = ET.XMLParser(target=_NoDoctype())
        parser.feed(path.read_bytes())
        tree = parser.close()
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist, expected the image's annotation: add it or unlist the image"
        ) from error
    except (OSError, ET.ParseError, _RefusedError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not a readable XML annotation ({error}): replace it") from error
    names = [thing.findtext("name") for thing in tree.findall("object")]
    if tree.tag != "annotation" or not all(names):
        raise UserError(
            f"{path} is not a VOC annotation: expected <annotation> with a <name> in each <object>"
        )
    return tuple(sorted({name for name in names if name}))


class _RefusedError(Exception):
    """A construct that an annotation has no use for."""


class _NoDoctype(ET.TreeBuilder):
    """Stops at a DOCTYPE, before any entity is declared: no expansion, however large, can happen."""

    def doctype(self, *_: str | None) -> None:
        raise _RefusedError("it has a DOCTYPE, which may define entities")
