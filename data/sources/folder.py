"""A folder of images and a CSV ``image,tags[,split][,derived_from]``: read, written, and derived from masks."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from data.cache import check_files, stamps_of
from data.masks import Facts, Mask
from data.sources.listing import (
    Entry,
    Listing,
    check_class_names,
    check_entries,
    existing_folder,
    is_plain,
    read_text,
    refuse_images,
    tidy,
    with_masks,
)
from data.sources.table import (
    IMAGE_SUFFIXES,
    Matcher,
    files_below,
    image_files,
    joined_tags,
    merged,
    read_list,
)
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import UserError, listed, plural


def read_folder(config: DataConfig) -> Listing:
    """Read the listing of a folder.

    Without a column ``split`` every image is for training. Rows of other splits than the two of ``config`` are only
    counted. `data.sources.table` says how a list is read.

    Raises:
        UserError: a missing folder or CSV, no training images, or a CSV that cannot be read.
    """
    root, images, masks = _folders(config)
    place = root / ("labels.csv" if config.labels == "auto" else config.labels)
    if not place.is_file():
        raise UserError(
            f"{place}: no such file. Expected a CSV with the header image,tags[,split]: see data.labels."
        )
    splits = (config.train_split, config.val_split)
    found = read_list(place, splits=splits)
    used = [entry for entry in found.entries if entry.split in splits]
    entries, notes = _on_disk(used, images, place.name)
    classes, classes_from = _class_list(root, config)
    listing = Listing(
        root=root,
        place=place,
        images=images,
        masks=masks,
        classes=classes,
        classes_from=classes_from or f"the tags of {place}",
        entries=tuple(entries),
        ignored=Counter(entry.split for entry in found.entries if entry.split not in splits),
        notes=(*(f"{place.name}: {note}" for note in found.notes), *notes),
    )
    refuse_images(listing, found.wrong)
    check_entries(listing, config.train_split)
    return with_masks(listing, [masks]) if masks else listing


def _on_disk(entries: Sequence[Entry], folder: Path, name: str) -> tuple[list[Entry], list[str]]:
    """One entry per image, under the path of the file that is meant; a name without a file stays as it is."""
    known = set(files_below(folder, []))
    unclear = [entry for entry in entries if entry.image not in known and not _is_there(folder, entry.image)]
    others = known - {entry.image for entry in entries} if unclear else set()
    matcher = Matcher(sorted(path for path in others if path.lower().endswith(IMAGE_SUFFIXES)))
    files = {entry.image: matcher.find(entry.image, entry.split) or entry.image for entry in unclear}
    one_each, notes = merged(msgspec.structs.replace(e, image=files.get(e.image, e.image)) for e in entries)
    renamed = [f"{old} as {new}" for old, new in files.items() if old != new]
    if renamed:
        notes.append(
            f"names of {plural(len(renamed), 'image')} matched with the files: {listed(renamed[:3], ', ')}"
        )
    return one_each, [f"{name}: {note}" for note in notes]


def _is_there(folder: Path, image: str) -> bool:
    return is_plain(image) and os.path.isfile(folder / image)  # noqa: PTH113  # Path raises on names that are too long


def entries_as_csv(entries: Sequence[Entry], *, splits: bool) -> str:
    """Return the CSV ``image,tags[,split][,derived_from]``, the last column where any tags were derived."""
    derived = any(entry.derived_from for entry in entries)
    columns = ["image", "tags", *(["split"] if splits else []), *(["derived_from"] if derived else [])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for entry, tags in zip(entries, joined_tags([entry.tags for entry in entries]), strict=True):
        fields = {**{name: getattr(entry, name) for name in columns}, "tags": tags}
        writer.writerow([fields[column] for column in columns])
    return text.getvalue()


def folder_tags(config: DataConfig, *, progress: bool) -> tuple[Entry, ...]:
    """Tags of every image below ``data.images``, from its mask. Raises UserError as `data.sources.derive_tags`."""
    root, images, masks = _folders(config)
    if masks is None:
        raise UserError(f"{root}: no folder of masks. Expected one to derive tags from: set data.masks.")
    classes, classes_from = _class_list(root, config)
    if not classes_from:
        raise UserError(
            f"{root}/classes.txt: no such file. Expected the class names in the order of the mask values 1..C, "
            "one per line, or data.classes."
        )
    check_class_names(classes, classes_from)
    entries = [Entry(where="image", image=name, split=_split(name, config)) for name in image_files(images)]
    listing = Listing(
        root=root,
        place=images,
        images=images,
        classes=classes,
        classes_from=classes_from,
        entries=tuple(entries),
    )
    check_entries(listing, config.train_split)
    return tags_from_masks(with_masks(listing, [masks]), progress=progress)


def tags_from_masks(listing: Listing, *, progress: bool) -> tuple[Entry, ...]:
    """The entries with the classes in their masks as tags. Raises UserError where a mask is missing or does not fit."""
    missing = [entry.image for entry in listing.entries if entry.mask is None]
    if missing:
        raise UserError(
            f"{listing.root}: {len(missing)} image(s) with neither tags nor a mask: {listed(missing, ', ')}.\n"
            "Expected a mask for each (data.masks): add them, or remove the images from the list."
        )
    masks = [entry.mask for entry in listing.entries if entry.mask]
    facts = check_files(masks, stamps_of(masks), progress=progress)
    return tuple(
        Entry(
            where=entry.where,
            image=entry.image,
            tags=_tags_of(mask, found, listing.classes),
            split=entry.split,
            derived_from=f"their masks in {_top_folder(mask.file, listing.root)}",
        )
        for entry, mask, found in zip(listing.entries, masks, facts, strict=True)
    )


def _tags_of(mask: Mask, facts: Facts, classes: Sequence[str]) -> tuple[str, ...]:
    labels = [label for label in facts.labels if label not in (0, IGNORE)]
    if labels and labels[-1] > len(classes):
        raise UserError(
            f"{mask}: label {labels[-1]} is beyond the {len(classes)} classes. Expected labels 0..{len(classes)} or "
            f"{IGNORE}: correct the mask or the class list."
        )
    return tuple(classes[label - 1] for label in labels)


def _top_folder(file: Path, root: Path) -> str:
    return file.relative_to(root).parts[0] if file.is_relative_to(root) else file.parent.name


def _folders(config: DataConfig) -> tuple[Path, Path, Path | None]:
    """Root, images, and masks where there are any."""
    root = existing_folder(Path(config.root), "root")
    images = existing_folder(root / ("images" if config.images == "auto" else config.images), "images")
    if config.masks == "auto":
        return root, images, root / "masks" if (root / "masks").is_dir() else None
    return root, images, existing_folder(root / config.masks, "masks") if config.masks else None


def _class_list(root: Path, config: DataConfig) -> tuple[tuple[str, ...], str]:
    """The classes that data.classes or classes.txt names, and where; empty where neither is there."""
    if config.classes:
        return config.classes, "data.classes"
    path = root / "classes.txt"
    if not path.is_file():
        return (), ""
    names = tuple(tidy(line) for line in read_text(path).splitlines() if line.strip())
    check_class_names(names, str(path))
    return names, str(path)


def _split(name: str, config: DataConfig) -> str:
    first = name.split("/")[0]
    return first if first == config.val_split else config.train_split
