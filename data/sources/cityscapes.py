"""Cityscapes with fine labels: leftImg8bit/<split>/<city>/ and gtFine/<split>/<city>/.

Names, ids and train ids: https://github.com/mcordts/cityscapesScripts (helpers/labels.py)
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.masks import TranslatedPng
from data.sources.rows import RawListing, Row, check_rows, existing_folder
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

_PHOTO, _LABELS, _POLYGONS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_polygons.json"
_UNLABELLED = "test"  # its label files hold nothing but the frame
_NOTE = (
    "Cityscapes has no image-level tags: those of an image are the names of its labelled polygons. "
    "Nearly every class is in nearly every image, so tags teach little: meant for segment.supervision = 'full'"
)


def read_cityscapes(config: DataConfig) -> RawListing:
    """Read the photographs of both splits with their fine labels, translated from label ids to train ids.

    Train id t is the label t + 1; what has no train id is ignored. No pixel is background. ``data.classes`` may
    leave classes out: their pixels are ignored. The split ``test`` has neither tags nor masks.

    Raises:
        UserError: a missing folder, a photograph without its labels, or a label file that is malformed.
    """
    root = existing_folder(Path(config.root), "root")
    classes = config.classes or CITYSCAPES_CLASSES
    unknown = [repr(name) for name in classes if name not in _IDS]
    if unknown:
        raise UserError(
            f"data.classes: {listed(unknown, ', ')} not among the classes of Cityscapes.\n"
            f"Expected names out of: {', '.join(CITYSCAPES_CLASSES)}."
        )
    rows = _photographs(root, config.train_split, required=True)
    rows += _photographs(root, config.val_split, required=False)
    raw = RawListing(
        root=root,
        place=root / "leftImg8bit",
        images=root / "leftImg8bit",
        masks=root / "gtFine" if config.masks else None,
        classes=classes,
        classes_from="data.classes"
        if config.classes
        else "the 19 classes of Cityscapes (or set data.classes)",
        rows=tuple(rows),
        ignored={},
        notes=(_NOTE,),
        unlabelled=_UNLABELLED,
    )
    check_rows(raw, config.train_split)
    return replace(raw, rows=_labelled(raw.rows, root / "gtFine", classes, masks=bool(config.masks)))


def _photographs(root: Path, split: str, *, required: bool) -> list[Row]:
    folder = root / "leftImg8bit" / split
    if not folder.is_dir():
        if required:
            raise UserError(
                f"{folder}: no such folder. Expected the photographs of the split {split!r}, a folder per city: "
                "unpack leftImg8bit_trainvaltest.zip into the root."
            )
        return []
    names = [
        f"{split}/{city.name}/{photo.name}"
        for city in os.scandir(folder)
        if city.is_dir()
        for photo in os.scandir(city.path)
        if photo.name.endswith(_PHOTO)
    ]
    return [Row(where="photograph", image=name, tags=(), split=split) for name in sorted(names)]


def _labelled(rows: Sequence[Row], folder: Path, classes: Sequence[str], *, masks: bool) -> tuple[Row, ...]:
    table = _table(classes)
    found, problems = [], []
    for row in rows:
        if row.split == _UNLABELLED:
            found.append(row)
            continue
        stem = folder / row.image.removesuffix(_PHOTO)
        labels = stem.with_name(stem.name + _LABELS)
        if masks and not labels.is_file():
            problems.append(f"{labels} does not exist")
            continue
        try:
            tags = read_labels(stem.with_name(stem.name + _POLYGONS), classes)
        except UserError as error:
            problems.append(str(error))
            continue
        found.append(replace(row, tags=tags, mask=TranslatedPng(labels, table) if masks else None))
    if problems:
        raise UserError(
            f"{folder}: {len(problems)} photograph(s) without usable labels:\n{listed(problems)}.\n"
            "Expected *_gtFine_labelIds.png and *_gtFine_polygons.json for each: unpack gtFine_trainvaltest.zip."
        )
    return tuple(found)


def read_labels(path: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Return which of the ``classes`` a polygon file names; ``cargroup`` counts as ``car``.

    Raises:
        UserError: the file is missing or not of the published form.
    """
    try:
        objects = json.loads(path.read_bytes())["objects"]
        names = {str(thing["label"]).removesuffix("group") for thing in objects}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no polygon file with objects and their label ({error})") from error
    return tuple(name for name in classes if name in names)


def _table(classes: Sequence[str]) -> bytes:
    """Return the label of each of the 256 values of a labelIds file."""
    labels = {_IDS[name]: position + 1 for position, name in enumerate(classes)}
    return bytes(labels.get(value, IGNORE) for value in range(256))
