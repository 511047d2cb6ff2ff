"""What a source gives, a listing of entries, and the checks that all of them pass before a file is opened."""

import codecs
import difflib
import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from data.images import read_bytes
from data.masks import Mask, PngMask, SbdMask
from wsss.errors import SHOWN, UserError, listed, listing_error, plural

MAX_CLASSES = 254  # a mask pixel is one byte: 0 is background, 255 is ignored
_MASK_KINDS: tuple[tuple[str, Callable[[Path], Mask]], ...] = (
    (".png", PngMask), (".PNG", PngMask), (".mat", SbdMask),
)  # fmt: skip
_ODD = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:|(^|/)\.{0,2}(/|$)")


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
    """Return a file's text, UTF-8 or UTF-16 with a byte order mark; line ends untouched, without the mark."""
    data = read_bytes(path)
    try:
        return data.decode(
            "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        )
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
    names = (
        [name] if name.isascii() else [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    )
    for folder, spelled in itertools.product(folders, names):
        for extension, kind in _MASK_KINDS:
            place = f"{folder}/{spelled}{extension}"
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
        elif not is_plain(entry.image):
            problems.append(
                f"{entry.where} {entry.image!r} is no plain path of a file below the images folder"
            )
    refuse_images(listing, problems)


def is_plain(path: str) -> bool:
    """Whether a path leads to a file below the folder that it is relative to, and is written in the one plain way."""
    return not _ODD.search(path)


def refuse_images(listing: Listing, problems: Sequence[str]) -> None:
    """Raise a `UserError` if there are any problems with images."""
    if problems:
        raise listing_error(
            f"{listing.place}: {len(problems)} image(s) cannot be used",
            problems,
            f"Expected a file of {listing.images} in each row, each image once: correct or remove these rows.",
        )


# ---- classes and tags


def settle_classes(listing: Listing, train: str) -> Listing:
    """Return the listing with its class names in the order of the mask values 1..C, every tag being one of them.

    Tags are cleaned (see `one_spelling`), and a class that no training image shows is noted: it cannot be learned.

    Raises:
        UserError: a bad class list (see `check_class_names`), tags that are not in it, or none in training.
    """
    if listing.classes:
        check_class_names(listing.classes, listing.classes_from)
    entries, notes = one_spelling(listing.entries, listing.classes)
    trained, others = (
        {tag for tags in {e.tags for e in entries if (e.split == train) == wanted} for tag in tags}
        for wanted in (True, False)
    )
    names = listing.classes or tuple(sorted(trained | others, key=_natural))
    check_class_names(names, listing.classes_from)
    if not set(names) >= trained | others:
        _refuse_unknown(listing, entries, names)
    if not trained:
        raise UserError(
            f"{listing.place}: no training image (split {train!r}) has a tag. Expected images of each class: tag some, "
            "or set data.train_split."
        )
    missing = [name for name in names if name not in trained]
    if missing:
        notes.append(f"no training image shows {listed(missing, ', ')}: not learned, and never predicted")
    return replace(listing, classes=names, entries=tuple(entries), notes=(*listing.notes, *notes))


def one_spelling(entries: Sequence[Entry], classes: Sequence[str] = ()) -> tuple[list[Entry], list[str]]:
    """Clean tags: stray blanks, doubled and empty ones and 'background' go; letter case and Unicode form become one.

    Args:
        entries: as listed.
        classes: the spellings to use; of others the most frequent is.

    Returns:
        The entries, and what was changed.
    """
    counts = Counter(entry.tags for entry in entries)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for tags, number in counts.items():
        for tag in tags:
            spellings[fold(tag)][tag] += number
    chosen = {key: tidy(min(found, key=lambda tag: (-found[tag], tag))) for key, found in spellings.items()}
    chosen |= {fold(name): name for name in classes if fold(name) in chosen}
    dropped = {"", "background"} & chosen.keys()
    cleaned = {
        tags: tuple(dict.fromkeys(chosen[fold(tag)] for tag in tags if fold(tag) not in dropped))
        for tags in counts
    }
    several = [
        f"{', '.join(map(repr, sorted(found)))} as {chosen[key]}"
        for key, found in sorted(spellings.items())
        if key not in dropped and set(found) != {chosen[key]}
    ]
    notes = [f"spellings taken for one class: {listed(several)}"] if several else []
    if "background" in dropped:
        notes.append(
            f"the tag 'background' of {plural(spellings['background'].total(), 'image')} left out: it is no class"
        )
    replaced = {tags: new for tags, new in cleaned.items() if new != tags}
    kept = (
        e if e.tags not in replaced else msgspec.structs.replace(e, tags=replaced[e.tags]) for e in entries
    )
    return list(kept), notes


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
    """What two spellings of one name have in common: letter case, Unicode form and stray blanks set aside."""
    return unicodedata.normalize("NFC", tidy(name)).casefold()


def tidy(name: str) -> str:
    """The name without stray blanks."""
    return " ".join(name.split())


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """What names are sorted by: text as text, numbers in it as numbers."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


def _name_problems(names: Sequence[str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for name in names:
        if name != tidy(name) or not name:
            yield f"class {name!r} has stray spaces or is empty"
        elif fold(name) == "background":
            yield f"class {name!r} is reserved: the background is label 0 and not listed"
        elif fold(name) in first:
            yield f"class {name!r} is listed twice, or differs only in letter case from {first[fold(name)]!r}"
        first[fold(name)] = name


def _refuse_unknown(listing: Listing, entries: Sequence[Entry], names: Sequence[str]) -> None:
    known = {fold(name): name for name in names}
    problems: list[str] = []
    unknown = [(entry, tag) for entry in entries for tag in entry.tags if known.get(fold(tag)) != tag]
    for entry, tag in unknown:
        close = difflib.get_close_matches(fold(tag), known, n=1) if len(problems) < SHOWN else []
        hint = f" (did you mean {known[close[0]]!r}?)" if close else ""
        problems.append(f"{entry.where} {entry.image!r}: unknown tag {tag!r}{hint}")
    if problems:
        raise listing_error(
            f"{listing.place}: {len(problems)} tag(s) cannot be used",
            problems,
            f"Expected the classes of {listing.classes_from}: correct these tags, or add the classes there.",
        )
