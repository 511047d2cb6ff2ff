"""Looking at a folder that somebody collected: what is it, and how is it read?

`inspect_folder` tries `READERS` in order: the known layouts, lists, exports of labelling tools, folders named by
class. `new_list` makes of what was found a list that the folder source reads, `stratified_validation` its validation
split.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from data.own.exports import find_export
from data.own.layouts import find_cityscapes, find_class_folders, find_coco, find_split_folders, find_voc
from data.own.tables import find_table
from data.own.tree import WRITTEN, Found, Tree, scan_tree
from data.sources.folder import entries_as_csv
from data.sources.listing import Entry, fold
from wsss.errors import UserError, listed, plural

__all__ = ["READERS", "WRITTEN", "Found", "inspect_folder", "list_text", "new_list", "stratified_validation"]

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


def inspect_folder(root: Path) -> Found:
    """Say what a folder holds and how it is read; nothing is written.

    Raises:
        UserError: no images, no tags, or a list that is damaged.
    """
    tree = scan_tree(root)
    reasons = []
    for find in READERS:
        found = find(tree)
        if isinstance(found, Found):
            return found
        reasons.append(found)
    raise UserError(
        f"{root}: {plural(len(tree.images), 'image')} and no tags: {'; '.join(reasons)}.\n"
        "Expected a folder per class, a CSV image,tags, a COCO JSON, VOC annotations, or an export of Label Studio or "
        "CVAT: add one of them (docs/data.md)."
    )


# ---- a new list


def new_list(found: Found) -> Found:
    """What was found as a list that the folder source reads without complaint; `list_text` is what is written.

    Tags are cleaned, one image of each id is kept, and the entries are sorted.
    """
    spelled, problems = _one_spelling(found.entries)
    kept, doubled = _one_per_id(spelled)
    images = "images" if all(entry.image.startswith("images/") for entry in kept) else "."
    return Found(
        what=found.what,
        data={"source": "folder", "labels": WRITTEN[1], "images": images},
        entries=tuple(kept),
        problems=(*found.problems, *problems, *doubled),
    )


def list_text(new: Found) -> str:
    """The CSV of a new list; its paths are relative to ``data.images``."""
    folder = "images/" if new.data["images"] == "images" else ""
    entries = [
        msgspec.structs.replace(entry, image=entry.image.removeprefix(folder)) for entry in new.entries
    ]
    return entries_as_csv(entries, splits=True)


def _one_spelling(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Write tags that differ in letter case or spaces alone as the most frequent of them; drop 'background'."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        for tag in map(_tidy, entry.tags):
            spellings[fold(tag)][tag] += 1
    chosen = {key: min(found, key=lambda tag: (-found[tag], tag)) for key, found in spellings.items()}
    reserved = chosen.get("background", "")
    cleaned = [
        msgspec.structs.replace(
            entry, tags=tuple(sorted({chosen[fold(_tidy(tag))] for tag in entry.tags} - {reserved}))
        )
        for entry in entries
    ]
    several = [
        f"{', '.join(sorted(found))} as {chosen[key]}" for key, found in spellings.items() if len(found) > 1
    ]
    return cleaned, [f"spellings taken for one class: {listed(several)}"] if several else []


def _tidy(tag: str) -> str:
    return " ".join(tag.replace(";", ",").split())


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
