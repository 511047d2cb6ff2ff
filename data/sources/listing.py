"""What a source gives, a listing of entries, and the checks that all of them pass before a file is opened."""

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from data.images import read_bytes
from data.masks import Mask, PngMask, SbdMask
from wsss.errors import SHOWN, UserError, listed

MAX_CLASSES = 254  # a mask pixel is one byte: 0 is background, 255 is ignored
_MASK_KINDS: tuple[tuple[str, Callable[[Path], Mask]], ...] = ((".png", PngMask), (".mat", SbdMask))
_WRONG_PATHS = (
    (r"^$", "is empty"),
    (r"[\x00-\x1f\x7f]", "holds a control character"),
    (r"\\", "holds a backslash: write / between folders"),
    (r"^(/|[A-Za-z]:)", "is an absolute path: write it relative to the images folder"),
    (r"(^|/)\.\.(/|$)", "leaves the images folder: remove the .."),
    (r"(^|/)\.?(/|$)", "is not in plain form: remove ./ and doubled /"),
)
_WRONG_PATH = re.compile("|".join(pattern for pattern, _ in _WRONG_PATHS))


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One image as it is listed.

    Attributes:
        image: path relative to the listing's images folder, with ``/`` and with its extension.
        tags: class names as written.
        split: name of its split.
        mask: where its labels are, None for none.
        where: the place to name in errors, e.g. ``line 3``.
        derived_from: what its tags were derived from, where the list says so.
    """

    image: str
    tags: tuple[str, ...] = ()
    split: str
    mask: Mask | None = None
    where: str = ""
    derived_from: str = ""

    @property
    def id(self) -> str:
        """The image's path without its extension."""
        stem, _, suffix = self.image.rpartition(".")
        return stem if stem and "/" not in suffix else self.image


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The entries of the splits that are read, and where they come from.

    Attributes:
        root: folder of the data set.
        place: the file or folder that lists the images, to name in errors.
        images: folder of the images.
        masks: where masks were looked for, None for nowhere.
        classes: C names; empty where the tags decide, until `settle_classes`.
        classes_from: where they come from, to name in errors.
        ignored: number of images in each split that is not read.
        notes: what the user should know, a sentence each.
        unlabelled: a split that is published without tags and masks.
    """

    root: Path
    place: Path
    images: Path
    masks: Path | None = None
    classes: tuple[str, ...] = ()
    classes_from: str
    entries: tuple[Entry, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unlabelled: str = ""


# ---- files


def existing_folder(path: Path, key: str) -> Path:
    """Return ``path`` if it is a folder, else raise a `UserError` that names the setting ``key``."""
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder. Expected the folder of data.{key}: create it or correct data.{key}."
        )
    return path


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, line ends untouched, without a byte order mark."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} line {line}: not UTF-8 (byte 0x{data[error.start]:02x}). Save the file as UTF-8."
        ) from error


def with_masks(listing: Listing, folders: Sequence[Path]) -> Listing:
    """Give each entry <id>.png, or <id>.mat of SBD, from the first of the ``folders`` that has one."""
    entries = [
        msgspec.structs.replace(entry, mask=_find_mask(folders, entry.id)) for entry in listing.entries
    ]
    return replace(listing, entries=tuple(entries))


def _find_mask(folders: Sequence[Path], name: str) -> Mask | None:
    for folder in folders:
        for extension, kind in _MASK_KINDS:
            place = f"{folder}/{name}{extension}"
            if os.path.isfile(place):  # noqa: PTH113  # called for every image, and Path is slow to make
                return kind(Path(place))
    return None


# ---- splits and images


def check_entries(listing: Listing, train: str) -> None:
    """Raise a `UserError` unless there are training images, and every path is safe and has an id of its own."""
    if not any(entry.split == train for entry in listing.entries):
        counts = Counter(entry.split for entry in listing.entries) + Counter(listing.ignored)
        found = listed([f"{name!r} ({n} images)" for name, n in sorted(counts.items())], ", ") or "none"
        raise UserError(
            f"{listing.place}: no training images: no image has the split {train!r}.\n"
            f"Splits found: {found}. Set data.train_split to one of them, or correct the list."
        )
    problems = []
    first: dict[str, Entry] = {}
    for entry in listing.entries:
        earlier = first.setdefault(entry.id, entry)
        if earlier is not entry:
            same = f"has the same id {entry.id!r} as {earlier.where} {earlier.image!r}"
            problems.append(f"{entry.where} {entry.image!r} {same}")
        elif _WRONG_PATH.search(entry.image):
            wrong = next(what for pattern, what in _WRONG_PATHS if re.search(pattern, entry.image))
            problems.append(f"{entry.where} {entry.image!r} {wrong}")
    _refuse_images(listing, problems)


def refuse_missing(listing: Listing, missing: Sequence[Entry]) -> None:
    """Raise a `UserError` if there are any entries without a file."""
    problems = [
        f"{entry.where} {entry.image!r} does not exist"
        f"{_hint(listing.images / entry.image) if position < SHOWN else ''}"
        for position, entry in enumerate(missing)
    ]
    _refuse_images(listing, problems)


def _refuse_images(listing: Listing, problems: Sequence[str]) -> None:
    if problems:
        raise UserError(
            f"{listing.place}: {len(problems)} image(s) cannot be used:\n{listed(problems)}.\n"
            f"Expected a file of {listing.images} in each row, each image once: correct or remove these rows."
        )


def _hint(path: Path) -> str:
    """What is there instead: a file with stray spaces less, or with another extension."""
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    if path.name.strip() in (other.name for other in beside):
        return " (there are stray spaces around its name)"
    others = [other.name for other in beside if other.suffix and other.stem in (path.name, path.stem)]
    return f" ({others[0]!r} does: write the extension as on disk)" if others else ""


# ---- classes and tags


def settle_classes(listing: Listing, train: str) -> Listing:
    """Return the listing with its class names in the order of the mask values 1..C, every tag being one of them.

    Raises:
        UserError: a bad class list (see `check_class_names`), tags that are empty, doubled, misspelt, unknown or
            with stray spaces, or a class without training images: it could not be learned.
    """
    if listing.classes:
        check_class_names(listing.classes, listing.classes_from)
        known = {fold(name): (name, listing.classes_from) for name in listing.classes}
        _check_tags(listing, known, closed=True)
        names = listing.classes
    else:
        first: dict[tuple[str, ...], str] = {}
        for entry in listing.entries:
            first.setdefault(entry.tags, entry.where)
        known = {}
        for tags, where in first.items():
            for tag in tags:
                known.setdefault(fold(tag), (tag, where))
        _check_tags(listing, known, closed=False)
        names = tuple(sorted(name for name, _ in known.values()))
        check_class_names(names, listing.classes_from)
    seen = {tag for tags in {entry.tags for entry in listing.entries if entry.split == train} for tag in tags}
    missing = [repr(name) for name in names if name not in seen]
    if missing:
        raise UserError(
            f"{listing.place}: {len(missing)} class(es) without images in the training split {train!r}: "
            f"{listed(missing, ', ')}.\n"
            f"Tag at least one training image with each, or remove them from {listing.classes_from}."
        )
    return replace(listing, classes=names)


def check_class_names(names: Sequence[str], where: str) -> None:
    """Raise a `UserError` unless there are 1 to 254 distinct, clean names, none of them 'background'."""
    if not names:
        raise UserError(
            f"{where}: no classes. Expected at least one class name: tag the images or list the classes."
        )
    problems = list(_name_problems(names))
    if problems:
        raise UserError(f"{where}: {listed(problems)}.\nExpected distinct class names: correct the list.")
    if len(names) > MAX_CLASSES:
        raise UserError(
            f"{where}: {len(names)} classes. Expected at most {MAX_CLASSES}, as a mask holds one byte "
            "per pixel (0: background, 255: ignored): merge or remove classes."
        )


def fold(name: str) -> str:
    """What two spellings of one name have in common: letter case and Unicode form set aside."""
    return unicodedata.normalize("NFC", name).casefold()


def _name_problems(names: Sequence[str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for name in names:
        if name != name.strip() or not name:
            yield f"class {name!r} has stray spaces or is empty"
        elif fold(name) == "background":
            yield f"class {name!r} is reserved: the background is label 0 and not listed"
        elif first.setdefault(fold(name), name) != name:
            yield f"class {name!r} differs only in letter case from {first[fold(name)]!r}"
    yield from (f"class {name!r} is listed {n} times" for name, n in Counter(names).items() if n > 1)


_Known = Mapping[str, tuple[str, str]]  # folded name -> the name as first written, and where


def _check_tags(listing: Listing, known: _Known, *, closed: bool) -> None:
    clean = {
        name for name, _ in known.values() if name.strip() == name and fold(name) not in ("", "background")
    }
    wrong = {
        tags: list(_tag_problems(tags, known, closed))
        for tags in {entry.tags for entry in listing.entries}
        if not clean.issuperset(tags) or len(set(tags)) < len(tags)
    }
    if wrong:
        problems = [
            f"{entry.where} {entry.image!r}: {problem}"
            for entry in listing.entries
            for problem in wrong.get(entry.tags, ())
        ]
        wanted = f"the classes of {listing.classes_from}" if closed else "each class written in one way"
        raise UserError(
            f"{listing.place}: {len(problems)} tag(s) cannot be used:\n{listed(problems)}.\n"
            f"Expected {wanted}, each at most once per image: correct these tags."
        )


def _tag_problems(tags: tuple[str, ...], known: _Known, closed: bool) -> Iterator[str]:
    for tag in tags:
        name, where = known.get(fold(tag), (None, ""))
        if not tag:
            yield "an empty tag (a doubled or trailing ;)"
        elif tag != tag.strip():
            yield f"tag {tag!r} has stray spaces"
        elif fold(tag) == "background":
            yield f"tag {tag!r} is reserved: leave the tags empty if an image shows background only"
        elif name is None and closed:
            close = difflib.get_close_matches(fold(tag), known, n=1)
            yield f"unknown tag {tag!r}{f' (did you mean {known[close[0]][0]!r}?)' if close else ''}"
        elif name != tag:
            yield f"tag {tag!r} differs only in letter case or accent encoding from {name!r} ({where})"
    yield from (f"tag {tag!r} is given twice" for tag, n in Counter(tags).items() if n > 1 and tag)
