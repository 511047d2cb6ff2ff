"""What every reader hands over, and the checks of image paths and splits that all need."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.masks import Mask, PngMask
from data.sbd import SbdMask
from wsss.errors import SHOWN, UserError, listed

_MASK_KINDS: tuple[tuple[str, Callable[[Path], Mask]], ...] = ((".png", PngMask), (".mat", SbdMask))
_LONGEST_NAME, _LONGEST = 255, 2048
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """All that a listing is made from besides its photographs and its settings, known before it is read.

    Attributes:
        files: whose content makes the listing; one that is missing must stay missing.
        folders: which need only be there, or not there, as before.
    """

    files: tuple[Path, ...]
    folders: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image of the listing, as it was written.

    Attributes:
        where: the place to name in errors, e.g. ``line 3``.
        image: path relative to the images folder, with its extension.
        tags: class names as written.
        split: name of its split.
        mask: where its labels are, None for none.
        derived_from: what its tags were derived from, where the list says so.
    """

    where: str
    image: str
    tags: tuple[str, ...]
    split: str
    mask: Mask | None = None
    derived_from: str = ""

    @property
    def id(self) -> str:
        """The image's path without its extension."""
        return posixpath.splitext(self.image)[0]


@dataclass(frozen=True, kw_only=True)
class RawListing:
    """All rows of the splits that are read, before their checks.

    Attributes:
        place: the file or folder that lists the images, to name in errors.
        images: folder of the photographs.
        masks: where masks were looked for, None for nowhere.
        classes: the class list that comes with the layout, None where the tags decide.
        classes_from: where that list comes from, to name in errors.
        ignored: number of images in each split that is not read.
        notes: what the user should know of this layout, a sentence each.
        unlabelled: a split that is published without tags and masks.
    """

    root: Path
    place: Path
    images: Path
    masks: Path | None
    classes: tuple[str, ...] | None
    classes_from: str
    rows: tuple[Row, ...]
    ignored: Mapping[str, int]
    notes: tuple[str, ...] = ()
    unlabelled: str = ""


def existing_folder(path: Path, key: str) -> Path:
    """Return ``path`` if it is a folder, else raise a `UserError` that names the setting ``key``."""
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder. Expected the folder of data.{key}: create it or correct data.{key}."
        )
    return path


def mask_folder(root: Path, setting: str, usual: str) -> Path | None:
    """Return the folder that ``data.masks`` names; 'auto' is the folder ``usual`` where it exists."""
    if setting == "auto":
        return root / usual if (root / usual).is_dir() else None
    return existing_folder(root / setting, "masks") if setting else None


def with_masks(raw: RawListing, folders: Sequence[Path]) -> RawListing:
    """Give each row the mask of its id from the first of the ``folders`` that has one."""
    rows = (replace(row, mask=find_mask(folders, row.id)) for row in raw.rows)
    return replace(raw, rows=tuple(rows))


def find_mask(folders: Sequence[Path], name: str) -> Mask | None:
    """Return <name>.png, or <name>.mat of SBD, from the first of the ``folders`` that has one."""
    for folder in folders:
        for extension, kind in _MASK_KINDS:
            place = f"{folder}/{name}{extension}"
            if os.path.isfile(place):  # noqa: PTH113
                return kind(Path(place))
    return None


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, line ends untouched, without a byte order mark."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check the file.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} line {line}: not UTF-8 (byte 0x{data[error.start]:02x}). Save the file as UTF-8."
        ) from error


def check_rows(raw: RawListing, train: str) -> None:
    """Raise a `UserError` unless there are training images and every row has an existing image of its own."""
    _check_splits(raw, train)
    _check_images(raw)


def _check_splits(raw: RawListing, train: str) -> None:
    if any(row.split == train for row in raw.rows):
        return
    counts = Counter(row.split for row in raw.rows) + Counter(raw.ignored)
    found = listed([f"{name!r} ({n} images)" for name, n in sorted(counts.items())], ", ") or "none"
    raise UserError(
        f"{raw.place}: no training images: no image has the split {train!r}.\n"
        f"Splits found: {found}. Set data.train_split to one of them, or correct the list."
    )


def _check_images(raw: RawListing) -> None:
    problems: list[str] = []
    first: dict[str, Row] = {}
    for row in raw.rows:
        problem = _path_problem(row.image) or _file_problem(raw, row, explain=len(problems) < SHOWN)
        earlier = first.setdefault(row.id, row)
        if earlier is not row:
            problem = f"has the same id {row.id!r} as {earlier.where} {earlier.image!r}"
        if problem:
            problems.append(f"{row.where} {row.image!r} {problem}")
    if problems:
        raise UserError(
            f"{raw.place}: {len(problems)} image(s) cannot be used:\n{listed(problems)}.\n"
            f"Expected a file of {raw.images} in each row, each image once: correct or remove these rows."
        )


def _path_problem(image: str) -> str | None:
    if not image:
        return "is empty"
    if _CONTROL.search(image):
        return "holds a control character"
    if "\\" in image:
        return "holds a backslash: write / between folders"
    if image.startswith("/") or _DRIVE.match(image):
        return "is an absolute path: write it relative to the images folder"
    parts = image.split("/")
    if ".." in parts:
        return "leaves the images folder: remove the .."
    if "" in parts or "." in parts:
        return "is not in plain form: remove ./ and doubled /"
    if len(os.fsencode(image)) > _LONGEST or any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts):
        return f"is longer than any file's name (folders and files: {_LONGEST_NAME} bytes each, {_LONGEST} in all)"
    return None


def _file_problem(raw: RawListing, row: Row, *, explain: bool) -> str | None:
    path = f"{raw.images}/{row.image}"
    if os.path.isfile(path):  # noqa: PTH113  # three times as fast as Path, and called for every row
        return None
    return f"does not exist{_hint(Path(path)) if explain else ''}"


def _hint(path: Path) -> str:
    if path.with_name(path.name.strip()).is_file():
        return " (there are stray spaces around its name)"
    others = sorted(_namesakes(path))
    return f" ({others[0]!r} does: write the extension as on disk)" if others else ""


def _namesakes(path: Path) -> Iterator[str]:
    """Files beside ``path`` with its name and another extension, or with one where it has none."""
    if not path.parent.is_dir():
        return
    for entry in os.scandir(path.parent):
        stem, extension = os.path.splitext(entry.name)  # noqa: PTH122
        if extension and stem in (path.name, path.stem):
            yield entry.name


def plural(number: int, noun: str) -> str:
    """Return e.g. ``1 image`` or ``3 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def origin_notes(rows: Sequence[Row]) -> list[str]:
    """What the list says of tags that were not given but derived."""
    origins = Counter(row.derived_from for row in rows if row.derived_from)
    return [
        f"tags of {plural(n, 'image')} were derived from {origin}" for origin, n in sorted(origins.items())
    ]


def split_notes(raw: RawListing, val: str) -> Sequence[str]:
    """What the user should know about the splits."""
    notes = []
    if raw.ignored:
        names = listed([f"{name!r} ({n})" for name, n in sorted(raw.ignored.items())], ", ")
        notes.append(f"{plural(sum(raw.ignored.values()), 'image')} of other splits are ignored: {names}")
    if any(row.split == raw.unlabelled for row in raw.rows):
        notes.append(f"the split {raw.unlabelled!r} has neither tags nor masks: predicted, and not scored")
    if not any(row.split == val for row in raw.rows):
        notes.append(f"no validation images: no image has the split {val!r}")
    return notes
