"""COCO 2014, 2017 and whatever is laid out like them: annotations/instances_<split>.json and <split>/."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.coco import IGNORED, CocoImage, CocoMask, Instances, read_instances
from data.sources.rows import Origin, RawListing, Row, check_rows, existing_folder, with_masks
from wsss.config import DataConfig
from wsss.errors import UserError, listed

_ANNOTATIONS = "annotations/instances_{split}.json"
_IMAGES = ("{split}", "images/{split}", "images")


def read_coco(config: DataConfig) -> RawListing:
    """Read the annotation files of both splits; a missing one of the validation split is no validation split.

    Where ``data.labels`` has no ``{split}`` in it, it is one file, and all of it is for training.

    The tags of an image are the categories of its annotations, those of crowds too. Masks are drawn from the
    annotations when they are read (see `data.coco.CocoMask`), or come from the folder that ``data.masks``
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
    labels = {category: label.get(name, IGNORED) for category, name in instances.categories.items()}
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
        tags=tuple(classes[value - 1] for value in sorted(set(values)) if value != IGNORED),
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
