"""From a data set's layout on disk to one checked listing: ids, tags as class indices, splits, files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.masks import Mask
from data.sources.cityscapes import read_cityscapes
from data.sources.coco import coco_origin, read_coco
from data.sources.folder import read_folder
from data.sources.rows import Origin, RawListing, origin_notes, plural, split_notes
from data.sources.tags import check_training_classes, settle_classes
from data.sources.voc import VOC_CLASSES, read_voc
from wsss.config import DataConfig
from wsss.errors import UserError

__all__ = ["VOC_CLASSES", "Entry", "Listing", "Origin", "origin_of", "read_listing"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image of the listing, checked: its file exists, its id is unique, its tags are indices 0..C-1."""

    id: str
    image: Path
    tags: tuple[int, ...]
    split: str
    mask: Mask | None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The checked listing, entries sorted by id."""

    root: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


_READERS = {
    "folder": read_folder,
    "voc": read_voc,
    "coco": read_coco,
    "cityscapes": read_cityscapes,
}


_ORIGINS: Mapping[str, Callable[[DataConfig], Origin | None]] = {"coco": coco_origin}


def origin_of(config: DataConfig) -> Origin | None:
    """What the listing will be made from, or None where that is not a few files: nothing is read for it."""
    find = _ORIGINS.get(config.source)
    return find(config) if find else None


def read_listing(config: DataConfig) -> Listing:
    """Read and check the listing that ``config`` describes; no image is opened.

    Raises:
        UserError: whatever is wrong with the settings, the folders, the list, the tags or the classes.
    """
    if not config.root:
        raise UserError("data.root is not set. Expected the folder of the data set.")
    if config.train_split == config.val_split:
        raise UserError(
            f"data.train_split and data.val_split are both {config.train_split!r}. Expected two names: "
            "validation images must not be learned from."
        )
    raw = _READERS[config.source](config)
    classes = settle_classes(raw)
    check_training_classes(raw, classes, config.train_split)
    entries = _entries(raw, classes)
    notes = (
        *raw.notes,
        *origin_notes(raw.rows),
        *split_notes(raw, config.val_split),
        *_entry_notes(entries, raw),
    )
    return Listing(root=raw.root, classes=classes, entries=entries, notes=notes)


def _entries(raw: RawListing, classes: Sequence[str]) -> tuple[Entry, ...]:
    index = {name: position for position, name in enumerate(classes)}
    entries = (
        Entry(
            id=row.id,
            image=raw.images / row.image,
            tags=tuple(sorted(index[tag] for tag in row.tags)),
            split=row.split,
            mask=row.mask,
        )
        for row in raw.rows
    )
    return tuple(sorted(entries, key=lambda entry: entry.id))


def _entry_notes(every: Sequence[Entry], raw: RawListing) -> list[str]:
    notes = []
    entries = [entry for entry in every if entry.split != raw.unlabelled]
    untagged = sum(not entry.tags for entry in entries)
    if untagged:
        verb = "has" if untagged == 1 else "have"
        notes.append(f"{plural(untagged, 'image')} {verb} no tags: treated as showing background only")
    unmasked = sum(entry.mask is None for entry in entries)
    if raw.masks and unmasked:
        notes.append(f"{unmasked} of {plural(len(entries), 'image')} without a mask in {raw.masks}")
    return notes
