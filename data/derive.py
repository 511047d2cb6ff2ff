"""Tags derived from other annotations, once and on request, written down with what they were derived from.

Nothing of the pipeline calls this: a weak stage reads tags from lists alone. Tags that come from masks say so, in
the list and in the notes of the data set.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from data.cache import index_files
from data.masks import Facts, Mask
from data.sources.folder import class_list
from data.sources.rows import RawListing, Row, check_rows, existing_folder, find_mask, mask_folder
from data.sources.tags import check_class_names
from data.sources.voc import UNLABELLED, list_voc, read_annotation
from wsss.config import DataConfig
from wsss.errors import UserError, listed

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def derive_tags(config: DataConfig, *, progress: bool = False) -> tuple[Row, ...]:
    """Return rows with tags for the images of a data set that has masks and lacks a list of tags.

    For the VOC layout: of both splits, from the annotation where an image has one, else from its mask. For a
    folder: of every image under ``data.images``, from its mask in ``data.masks``; a class list is needed, and
    the first folder of an image's path is its split where it is named like one.

    Raises:
        UserError: another layout, no masks, no class list, or a mask that cannot be used.
    """
    if config.source == "voc":
        return _of_voc(config, progress)
    if config.source == "folder":
        return _of_folder(config, progress)
    raise UserError(
        f"data.source = {config.source!r}: its annotations give the tags. Expected source 'voc' or 'folder'."
    )


def as_csv(rows: Sequence[Row], *, splits: bool) -> str:
    """Return the rows as the CSV ``image,tags[,split][,derived_from]``, the last where any was derived."""
    derived = any(row.derived_from for row in rows)
    columns = ["image", "tags", *(["split"] if splits else []), *(["derived_from"] if derived else [])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        fields = {
            "image": row.image,
            "tags": ";".join(row.tags),
            "split": row.split,
            "derived_from": row.derived_from,
        }
        writer.writerow([fields[column] for column in columns])
    return text.getvalue()


def _of_voc(config: DataConfig, progress: bool) -> tuple[Row, ...]:
    raw = list_voc(config)
    rows = [row for row in raw.rows if row.split != UNLABELLED]
    annotations = {row.id: raw.root / "Annotations" / f"{row.id}.xml" for row in rows}
    lacking = [row for row in rows if not annotations[row.id].is_file()]
    derived = {row.id: row for row in _from_masks(lacking, raw, raw.classes or (), progress)}
    return tuple(
        derived[row.id] if row.id in derived else _from_annotation(row, annotations[row.id]) for row in rows
    )


def _from_annotation(row: Row, path: Path) -> Row:
    return Row(
        where=row.where,
        image=row.image,
        tags=read_annotation(path),
        split=row.split,
        derived_from="their XML annotations",
    )


def _of_folder(config: DataConfig, progress: bool) -> tuple[Row, ...]:
    root = existing_folder(Path(config.root), "root")
    images = existing_folder(root / ("images" if config.images == "auto" else config.images), "images")
    masks = mask_folder(root, config.masks, "masks")
    if masks is None:
        raise UserError(f"{root}: no folder of masks. Expected one to derive tags from: set data.masks.")
    classes, where = class_list(root, config, root)
    if classes is None:
        raise UserError(
            f"{root}/classes.txt: no such file. Expected the class names in the order of the mask values 1..C, "
            "one per line, or data.classes."
        )
    check_class_names(classes, where)
    names = sorted(
        path.relative_to(images).as_posix()
        for path in images.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    )
    rows = [Row(where="image", image=name, tags=(), split=_split(name, config)) for name in names]
    raw = RawListing(
        root=root,
        place=images,
        images=images,
        masks=masks,
        classes=classes,
        classes_from=where,
        rows=tuple(rows),
        ignored={},
    )
    check_rows(raw, config.train_split)
    return tuple(_from_masks(rows, raw, classes, progress))


def _split(name: str, config: DataConfig) -> str:
    first = name.split("/")[0]
    return first if first == config.val_split else config.train_split


def _from_masks(rows: Sequence[Row], raw: RawListing, classes: Sequence[str], progress: bool) -> list[Row]:
    found = {row.id: row.mask or (find_mask([raw.masks], row.id) if raw.masks else None) for row in rows}
    missing = [row.image for row in rows if found[row.id] is None]
    if missing:
        raise UserError(
            f"{raw.root}: {len(missing)} image(s) with neither tags nor a mask: {listed(missing, ', ')}.\n"
            "Expected a mask for each (data.masks): add them, or remove the images from the list."
        )
    masks = [mask for mask in found.values() if mask]
    facts = index_files([], masks, root=raw.root, cache=None, progress=progress)
    return [_from_mask(row, mask, facts[mask], raw.root, classes) for row in rows if (mask := found[row.id])]


def _from_mask(row: Row, mask: Mask, facts: Facts, root: Path, classes: Sequence[str]) -> Row:
    labels = [label for label in facts.labels if label not in (0, 255)]
    if labels and labels[-1] > len(classes):
        raise UserError(
            f"{mask}: label {labels[-1]} is beyond the {len(classes)} classes. Expected labels 0..{len(classes)} or "
            "255: correct the mask or the class list."
        )
    folder = mask.file.relative_to(root).parts[0] if mask.file.is_relative_to(root) else mask.file.parent.name
    return Row(
        where=row.where,
        image=row.image,
        tags=tuple(classes[label - 1] for label in labels),
        split=row.split,
        derived_from=f"their masks in {folder}",
    )
