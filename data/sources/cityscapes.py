"""Cityscapes with fine labels: leftImg8bit/<split>/<city>/ and gtFine/<split>/<city>/.

Names, ids and train ids: https://github.com/mcordts/cityscapesScripts (helpers/labels.py)
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from data.images import read_bytes
from data.masks import TranslatedPng
from data.sources.listing import Entry, Listing, check_entries, existing_folder
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import UserError, listed

_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""The id in labelIds files of each class, in the order of the train ids 0..18."""
CITYSCAPES_CLASSES = tuple(_IDS)

_IMAGE, _LABELS, _POLYGONS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_polygons.json"
_UNLABELLED = "test"  # its label files hold nothing but the frame
_NOTE = (
    "Cityscapes has no image-level tags: those of an image are the names of its labelled polygons. "
    "Nearly every class is in nearly every image, so tags teach little: meant for segment.supervision = 'full'"
)


class _Polygon(msgspec.Struct):
    label: str


class _Polygons(msgspec.Struct):
    objects: list[_Polygon]


def read_cityscapes(config: DataConfig) -> Listing:
    """Read the images of both splits with their fine labels, translated from label ids to train ids.

    Train id t is the label t + 1; what has no train id is ignored. No pixel is background. ``data.classes`` may
    leave classes out: their pixels are ignored. The split ``test`` has neither tags nor masks.

    Raises:
        UserError: a missing folder, an image without its labels, or a label file that is malformed.
    """
    root = existing_folder(Path(config.root), "root")
    classes = config.classes or CITYSCAPES_CLASSES
    unknown = [repr(name) for name in classes if name not in _IDS]
    if unknown:
        raise UserError(
            f"data.classes: {listed(unknown, ', ')} not among the classes of Cityscapes.\n"
            f"Expected names out of: {', '.join(CITYSCAPES_CLASSES)}."
        )
    entries = _images(root, config.train_split, required=True)
    entries += _images(root, config.val_split, required=False)
    usual = "the 19 classes of Cityscapes (or set data.classes)"
    listing = Listing(
        root=root,
        place=root / "leftImg8bit",
        images=root / "leftImg8bit",
        masks=root / "gtFine" if config.masks else None,
        classes=classes,
        classes_from="data.classes" if config.classes else usual,
        entries=tuple(entries),
        notes=(_NOTE,),
        unlabelled=_UNLABELLED,
    )
    check_entries(listing, config.train_split)
    return replace(listing, entries=_labelled(entries, root / "gtFine", classes, masks=bool(config.masks)))


def _images(root: Path, split: str, *, required: bool) -> list[Entry]:
    folder = root / "leftImg8bit" / split
    if required and not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder. Expected the images of the split {split!r}, a folder per city: "
            "unpack leftImg8bit_trainvaltest.zip into the root."
        )
    names = sorted(f"{split}/{path.parent.name}/{path.name}" for path in folder.glob(f"*/*{_IMAGE}"))
    return [Entry(where="image", image=name, split=split) for name in names]


def _labelled(
    entries: Sequence[Entry], folder: Path, classes: Sequence[str], *, masks: bool
) -> tuple[Entry, ...]:
    table = _table(classes)
    found, problems = [], []
    for entry in entries:
        if entry.split == _UNLABELLED:
            found.append(entry)
            continue
        stem = folder / entry.image.removesuffix(_IMAGE)
        labels = stem.with_name(stem.name + _LABELS)
        if masks and not labels.is_file():
            problems.append(f"{labels} does not exist")
            continue
        try:
            tags = _tags(stem.with_name(stem.name + _POLYGONS), classes)
        except UserError as error:
            problems.append(str(error))
            continue
        mask = TranslatedPng(labels, table) if masks else None
        found.append(msgspec.structs.replace(entry, tags=tags, mask=mask))
    if problems:
        raise UserError(
            f"{folder}: {len(problems)} image(s) without usable labels:\n{listed(problems)}.\n"
            "Expected *_gtFine_labelIds.png and *_gtFine_polygons.json for each: unpack gtFine_trainvaltest.zip."
        )
    return tuple(found)


def _tags(path: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Which of the classes a polygon file names; ``cargroup`` counts as ``car``. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        polygons = msgspec.json.decode(read_bytes(path), type=_Polygons).objects
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no polygon file with objects and their label ({error})") from error
    names = {polygon.label.removesuffix("group") for polygon in polygons}
    return tuple(name for name in classes if name in names)


def _table(classes: Sequence[str]) -> bytes:
    """The label of each of the 256 values of a labelIds file."""
    labels = {_IDS[name]: position + 1 for position, name in enumerate(classes)}
    return bytes(labels.get(value, IGNORE) for value in range(256))
