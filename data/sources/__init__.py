"""From a data set's layout on disk to one checked listing: a reader per layout, the same checks for all."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from data.cache import Memory
from data.sources.cityscapes import read_cityscapes
from data.sources.coco import read_coco
from data.sources.folder import folder_tags, read_folder
from data.sources.listing import Entry, Listing, settle_classes
from data.sources.table import image_files
from data.sources.voc import VOC_CLASSES, read_voc, voc_tags
from wsss.config import DataConfig
from wsss.errors import UserError, listed, plural

__all__ = ["VOC_CLASSES", "Entry", "Listing", "derive_tags", "read_listing"]

_READERS: dict[str, Callable[[DataConfig, Memory | None], Listing]] = {
    "folder": lambda config, _: read_folder(config),
    "voc": lambda config, _: read_voc(config),
    "coco": read_coco,
    "cityscapes": lambda config, _: read_cityscapes(config),
}


def read_listing(config: DataConfig, memory: Memory | None = None) -> Listing:
    """Read and check the listing that ``config`` describes, entries sorted by id; no image is looked for.

    Args:
        config: where the data set lies and how it is laid out.
        memory: of what large annotation files said.

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
    listing = settle_classes(_READERS[config.source](config, memory), config.train_split)
    return replace(
        listing,
        entries=tuple(sorted(listing.entries, key=lambda entry: entry.id)),
        notes=(*listing.notes, *_notes(listing, config.val_split)),
    )


def derive_tags(config: DataConfig, *, progress: bool = False) -> tuple[Entry, ...]:
    """Derive tags from other annotations, once and on request; `entries_as_csv` writes them down with their origin.

    Nothing of the pipeline calls this: a weak stage reads tags from lists alone. Tags that come from masks say so, in
    the list and in the notes of the data set.

    For the VOC layout: of both splits, from the annotation where an image has one, else from its mask. For a
    folder: of every image under ``data.images``, from its mask in ``data.masks``; a class list is needed, and
    the first folder of an image's path is its split where it is named like one.

    Raises:
        UserError: another layout, no masks, no class list, or a mask that cannot be used.
    """
    derive = {"voc": voc_tags, "folder": folder_tags}.get(config.source)
    if derive is None:
        raise UserError(
            f"data.source = {config.source!r}: its annotations give the tags. Expected source 'voc' or 'folder'."
        )
    return derive(config, progress=progress)


def _notes(listing: Listing, val: str) -> Iterator[str]:
    """What the user should know of any listing."""
    origins = Counter(entry.derived_from for entry in listing.entries if entry.derived_from)
    for origin, number in sorted(origins.items()):
        yield f"tags of {plural(number, 'image')} were derived from {origin}"
    if listing.ignored:
        names = listed([f"{name!r} ({n})" for name, n in sorted(listing.ignored.items())], ", ")
        yield f"{plural(sum(listing.ignored.values()), 'image')} of other splits are ignored: {names}"
    if any(entry.split == listing.unlabelled for entry in listing.entries):
        yield f"the split {listing.unlabelled!r} has neither tags nor masks: predicted, and not scored"
    if not any(entry.split == val for entry in listing.entries):
        yield f"no validation images: no image has the split {val!r}"
    labelled = [entry for entry in listing.entries if entry.split != listing.unlabelled]
    untagged = sum(not entry.tags for entry in labelled)
    if untagged:
        verb = "has" if untagged == 1 else "have"
        yield f"{plural(untagged, 'image')} {verb} no tags: treated as showing background only"
    unmasked = sum(entry.mask is None for entry in labelled)
    if listing.masks and unmasked:
        yield f"{unmasked} of {plural(len(labelled), 'image')} without a mask in {listing.masks}"
        others = image_files(listing.masks) if unmasked == len(labelled) else []
        if others:
            unused = f"{plural(len(others), 'file')} there not used ({others[0]})"
            yield f"{unused}: a mask is named as its image ({labelled[0].id}.png)"
