"""Looking at a folder that somebody collected: what is it, and how is it read?

`inspect_folder` tries `READERS` in order: the known layouts, lists, exports of labelling tools, folders named by
class. `new_list` makes of what was found a list that the folder source reads, `stratified_validation` its validation
split.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec

from data.images import read_mask
from data.own.exports import find_export, find_table
from data.own.layouts import (
    CONTAINERS,
    find_cityscapes,
    find_class_folders,
    find_coco,
    find_split_folders,
    find_voc,
)
from data.own.tree import NOTHING_SAID, WRITTEN, Found, Tree, Wanted, by_suffix, scan_tree
from data.sources import read_listing
from data.sources.folder import entries_as_csv
from data.sources.listing import Entry, one_spelling
from data.sources.table import IMAGE_COLUMNS, SPLIT_NAMES, TAG_COLUMNS
from wsss.config import from_tree
from wsss.errors import UserError, listed, plural

__all__ = [
    "READERS",
    "WRITTEN",
    "Found",
    "Wanted",
    "inspect_folder",
    "list_text",
    "new_list",
    "stratified_validation",
    "suspicious",
]

READERS: tuple[Callable[[Tree], Found | str], ...] = (
    find_voc,
    find_cityscapes,
    find_coco,
    find_split_folders,
    find_table,
    find_export,
    find_class_folders,
)
"""The first that finds something decides. The others say why not; what is theirs and damaged is a `UserError`."""

_NO_OBJECTS = (
    *CONTAINERS, *SPLIT_NAMES, "masks", "mask", "ground_truth", "gt", "labels", "annotations", "docs", "doc", "output",
    "outputs", "results", "runs", "backup", "old", "new", "tmp", "temp", "misc", "other", "others", "unknown",
    "unlabeled", "reviewed", "verified", "checked", "annotator", "difficult", "occluded", "truncated", "fold",
)  # fmt: skip


_OF_CAMERAS = re.compile(r"\d{3}[A-Z_]{5}|\d{4}[-_. ]?\d\d[-_. ]?\d\d")
"""Folders by camera (100APPLE, 101_PANA) or date."""


def inspect_folder(root: Path, wanted: Wanted = NOTHING_SAID) -> Found:
    """Say what a folder holds and how it is read; nothing is written.

    Raises:
        UserError: no images, no tags, or nothing but lists that are damaged.
    """
    tree = scan_tree(root, wanted)
    there = f"{plural(len(tree.images), 'image')} ({by_suffix(tree.images)})"
    if tree.lists:
        there += f", {plural(len(tree.lists), 'list')} ({listed(tree.lists[:3], ', ')})"
    there += "".join(
        f", {plural(len(names), 'mask')} in {folder}/" for folder, names in sorted(tree.masks.items())
    )
    failed: list[str] = []
    whole = True
    for find in (find_table, find_export) if wanted.list else READERS:
        if find is find_class_folders and not whole:
            break  # the folders of a layout are no classes
        try:
            found = find(tree)
            if isinstance(found, Found) and not found.entries:  # its lists are its own: are they whole?
                whole = False
                read_listing(from_tree({"data": {**found.data, "root": str(root)}}, origin=str(root)).data)
        except UserError as error:
            failed.append(str(error))
            continue
        if isinstance(found, Found):
            left_out = [f"left out: {text}" for text in tree.left_out]
            tried = [f"not used: {' '.join(text.splitlines())}" for text in failed]
            found = _with_training(replace(found, problems=(*left_out, *tried, *found.problems)))
            return _with_folders(replace(found, notes=(f"there: {there}", *found.notes)), tree)
    if failed:
        raise UserError("\n".join(failed))
    missing = "".join(f"Left out: {text}. " for text in tree.left_out)
    images, tags = (", ".join(names[:6]) for names in (IMAGE_COLUMNS, TAG_COLUMNS))
    raise UserError(
        f"{root}: {there}, and no tags: no folder per class, no list, no export of a labelling tool that is known.\n"
        f"{missing}Expected a folder per class; a CSV or JSON Lines with a column {images}, ... and one {tags}, ... "
        "or of 0 and 1 per class; or COCO JSON, VOC annotations, an export of Label Studio, CVAT, FiftyOne, labelme.\n"
        "Add one, or name yours: init --list FILE --image-column NAME --tag-columns NAME (docs/data.md)."
    )


def _with_training(found: Found) -> Found:
    """Where no training image has a tag and others have, all images are for training."""
    if not found.entries or any(entry.tags for entry in found.entries if entry.split == "train"):
        return found
    entries = [msgspec.structs.replace(entry, split="train") for entry in found.entries]
    names = ", ".join(sorted({entry.split for entry in found.entries}))
    told = f"no tagged image is of the split train: all images ({names}) are taken for training"
    return replace(found, entries=tuple(entries), listed=False, problems=(*found.problems, told))


def _with_folders(found: Found, tree: Tree) -> Found:
    """Add where images and masks lie: of the folders above all images, the one for which most masks are found."""
    if tree.wanted.masks == "none":
        return replace(found, data={**found.data, "masks": ""})
    if not found.entries or found.data:
        return found
    common = os.path.commonpath([PurePosixPath(entry.image).parent.as_posix() for entry in found.entries])
    above = [common, *map(str, PurePosixPath(common).parents)] if common not in ("", ".") else ["."]
    best = (0, "images" if above[-2:-1] == ["images"] else ".", "")
    reasons: dict[str, str] = {}
    for folder, names in sorted(tree.masks.items()):
        expected = f"{folder}/{PurePosixPath(found.entries[0].image).stem}.png"
        reasons[folder] = f"{names[0]}: a mask is named as its image ({expected})"
        try:
            read_mask(tree.root / names[0])
        except UserError as error:
            reasons[folder] = str(error)
            continue
        stems = {name.rpartition(".")[0] for name in names}
        for images in above:
            start = 0 if images == "." else len(images) + 1
            fitting = sum(f"{folder}/{entry.id[start:]}" in stems for entry in found.entries)
            best = max(best, (fitting, images, folder), key=lambda item: item[0])
    fitting, images, masks = best
    unused = [
        f"{plural(len(tree.masks[folder]), 'mask')} in {folder} not used: {reason}"
        for folder, reason in reasons.items()
        if folder != masks
    ]
    notes = (
        [f"masks: {fitting} of {plural(len(found.entries), 'image')} have one in {masks}/"] if masks else []
    )
    usual = found.listed and images == "images" and (masks == "masks" or not tree.masks)
    data = {} if usual else {"images": images, **({"masks": masks} if tree.masks else {})}
    return replace(found, data=data, notes=(*found.notes, *notes), problems=(*found.problems, *unused))


# ---- a new list


def new_list(found: Found) -> Found:
    """What was found as a list that the folder source reads without complaint; `list_text` is what is written.

    Tags are cleaned, one image of each id is kept, and the entries are sorted.
    """
    spelled, problems = one_spelling(found.entries)
    kept, doubled = _one_per_id(spelled)
    given = {} if "source" in found.data else found.data
    data = {"source": "folder", "labels": WRITTEN[1], "images": "images", **given}
    if not all(entry.image.startswith(f"{data['images']}/") for entry in kept):
        data["images"] = "."
    entries = [msgspec.structs.replace(entry, tags=tuple(sorted(entry.tags))) for entry in kept]
    return replace(
        found,
        data=data,
        entries=tuple(entries),
        listed=False,
        problems=(*found.problems, *problems, *doubled),
    )


def list_text(new: Found) -> str:
    """The CSV of a new list; its paths are relative to ``data.images``."""
    folder = "" if new.data["images"] == "." else f"{new.data['images']}/"
    entries = [
        msgspec.structs.replace(entry, image=entry.image.removeprefix(folder)) for entry in new.entries
    ]
    return entries_as_csv(entries, splits=True)


def suspicious(entries: Sequence[Entry]) -> Iterator[str]:
    """Class names that look like no objects, a sentence for each kind."""
    counts: Mapping[str, int] = Counter(tag for entry in entries for tag in entry.tags)
    known = [
        name
        for name in sorted(counts)
        if re.sub(r"[ _-]+", "_", name.lower()) in _NO_OBJECTS or _OF_CAMERAS.fullmatch(name)
    ]
    odd = [f"{name!r} ({counts[name]})" for name in known]
    if odd:
        yield (
            f"suspicious: classes {listed(odd, ', ')} do not sound like what an image shows. If they are not: name the "
            "columns (init --tag-columns) or the list (init --list), or move these folders elsewhere"
        )
    quoted = [repr(name) for name in sorted(counts) if re.search(r"[\[\]{}\"]|^'|'$", name)]
    if quoted:
        yield f"suspicious: class names with brackets or quotes: {listed(quoted, ', ')}. Tags may have been cut wrongly"
    if len(counts) == 1 and all(entry.tags for entry in entries):
        yield (
            f"suspicious: every image has the one tag {next(iter(counts))!r}: nothing to tell it from. Add images "
            "without it, in a folder named background"
        )


def _one_per_id(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    first: dict[str, Entry] = {}
    doubled = []
    for entry in sorted(entries, key=lambda entry: entry.image):
        if first.setdefault(entry.id, entry) is not entry:
            doubled.append(entry.image)
    problem = f"same name as another image but for its extension: {listed(doubled[:3], ', ')}; left out"
    return list(first.values()), [f"{plural(len(doubled), 'image')} of the {problem}"] if doubled else []


# ---- a validation split


def stratified_validation(entries: Sequence[Entry], share: float) -> tuple[Entry, ...]:
    """Move a share of the training images to the split ``val``, of each tag about the same share.

    Rare tags choose first (Sechidis et al., On the Stratification of Multi-Label Data, 2011); a tag keeps at least
    half of its images in training, and one with two or more has at least one in either split. Which images go
    depends on their names alone: the same on every machine, and nearly the same after a few were added.

    Args:
        entries: images of any splits; only those of ``train`` are moved.
        share: between 0 and 0.5.
    """
    training = sorted((entry for entry in entries if entry.split == "train"), key=_draw)
    counts = Counter(tag for entry in training for tag in _strata(entry))
    wanted = {tag: min(max(1, round(share * n)), n // 2) for tag, n in counts.items()}
    left = Counter(counts)
    taken: dict[str, Entry] = {}
    for tag in sorted(counts, key=lambda tag: (counts[tag], tag)):
        have = sum(tag in _strata(entry) for entry in taken.values())
        for entry in training:
            if have >= wanted[tag]:
                break
            spare = all(left[other] - 1 >= (counts[other] + 1) // 2 for other in _strata(entry))
            if tag in _strata(entry) and entry.image not in taken and spare:
                taken[entry.image] = entry
                left.subtract(_strata(entry))
                have += 1
    return tuple(
        msgspec.structs.replace(entry, split="val") if entry.image in taken else entry for entry in entries
    )


def _strata(entry: Entry) -> tuple[str, ...]:
    return entry.tags or ("",)  # images without tags are a stratum too


def _draw(entry: Entry) -> str:
    return hashlib.sha256(entry.image.encode(errors="surrogateescape")).hexdigest()
