"""Lists that people have: which column is which, how tags are written, and which files the names mean.

One reader for `init`, `run`, `check` and ``predict --tags``: whatever program wrote the list, it is read if there is
one way to understand it, and what was cleaned is said.
"""

import csv
import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from data.sources.listing import Entry, fold, read_text, tidy
from wsss.errors import UserError, listed, plural

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif",
    ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".heic", ".heif", ".hif",
)  # fmt: skip
"""Files that are looked at; the last three need the package pillow-heif."""

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""How folders and lists usually name their splits, and what we call them."""

UNTAGGED = ("", "background", "negative", "none", "null", "nan", "n/a", "no finding", "no findings")
"""How lists usually say that an image shows none of the classes."""

IMAGE_COLUMNS = (
    "image", "images", "filename", "file", "path", "filepath", "image path", "image file", "image filename",
    "image name", "image index", "image id", "img", "img name", "img path", "photo", "picture", "url", "image url",
    "name", "id",
)  # fmt: skip
TAG_COLUMNS = (
    "tags", "tag", "labels", "label", "finding labels", "classes", "class", "class name", "categories", "category",
    "choices", "choice", "target", "ground truth",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
"""Column names in any case, with spaces, underscores, hyphens or nothing between words; the first that is there."""

_TRUE, _FALSE = ("1", "1.0", "true", "yes", "x"), ("0", "0.0", "", "false", "no")
_SPOKEN = {" ": "blanks", "\t": "tabs"}
_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts this before the name of an uploaded file
_SYSTEM = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "node_modules")


@dataclass(frozen=True, kw_only=True)
class NamedImages:
    """What a list says.

    Attributes:
        entries: a name, as written, with tags, split and place for each row.
        how: the columns that were used, to say it.
        notes: what was cleaned, a phrase each.
        wrong: rows that cannot be read, a phrase each.
    """

    entries: tuple[Entry, ...]
    how: str
    notes: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def read_list(
    path: Path, *, splits: Sequence[str] = ("train",), image: str = "", tags: Sequence[str] = ()
) -> NamedImages:
    """Read a CSV (any separator), JSON or JSON Lines of records.

    Args:
        path: the file.
        splits: names of splits that are taken as they are; the first is that of rows that name none.
        image: the column of images; empty: the first of `IMAGE_COLUMNS`.
        tags: the column of tags, or several columns of 0 and 1; none: `TAG_COLUMNS`, else all columns of 0 and 1.

    Raises:
        UserError: no such columns, or one that is nearly of 0 and 1.
    """
    notes: list[str] = []
    header, rows, wrong = (_records if path.suffix.lower() in (".json", ".jsonl") else _csv)(path, notes)
    if not rows:
        raise UserError(f"{path}: no rows after the header. Expected one row per image.")
    place = _column(header, [image] if image else IMAGE_COLUMNS)
    if place is None and not image:
        header, rows, place = _without_header(header, rows, notes)
    if place is None:
        raise UserError(
            f"{path}: no column of images among {listed(header, ', ')}. Expected one of {', '.join(IMAGE_COLUMNS)}: "
            "rename one, or name it (init --image-column)."
        )
    columns = [_required(header, name, path) for name in tags]
    if not columns:
        known = _column(header, TAG_COLUMNS)
        columns = [known] if known is not None and known != place else []
    split = _column(header, SPLIT_COLUMNS)
    fields = [row[columns[0]] for _, row in rows] if len(columns) == 1 else []
    if fields and not (tags and {value.strip().lower() for value in fields} <= {*_TRUE, *_FALSE}):
        given = split_tags(fields, notes)
        how = f"columns {header[place]} and {header[columns[0]]}"
    else:
        columns = columns or _class_columns(header, [row for _, row in rows], {place, split}, path)
        given = [tuple(header[c] for c in columns if row[c].strip().lower() in _TRUE) for _, row in rows]
        how = f"column {header[place]} and {plural(len(columns), 'class column')}"
        unused = [name for at, name in enumerate(header) if name and at not in (place, split, *columns)]
        if unused:
            notes.append(f"columns not used: {listed(unused, ', ')}")
    origin = _column(header, ("derived_from",))
    names = (
        {}
        if split is None
        else {value: _split_name(value, splits) for value in {row[split] for _, row in rows}}
    )
    entries = [
        Entry(
            where=f"line {line}",
            image=row[place].strip(),
            tags=shown,
            split=names[row[split]] if split is not None else splits[0],
            derived_from=row[origin] if origin is not None else "",
        )
        for (line, row), shown in zip(rows, given, strict=True)
    ]
    return NamedImages(entries=tuple(entries), how=how, notes=tuple(notes), wrong=tuple(wrong))


def merged(entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """One entry per image, with all tags of its rows and the split of the first; and what was put together."""
    first: dict[str, Entry] = {}
    again: dict[str, bool] = {}
    for entry in entries:
        known = first.setdefault(entry.image, entry)
        if known is not entry:
            again[entry.image] = again.get(entry.image, False) or entry.split != known.split
            tags = tuple(dict.fromkeys((*known.tags, *entry.tags)))
            first[entry.image] = msgspec.structs.replace(known, tags=tags)
    told = f"several rows of {plural(len(again), 'image')} put together: {listed(list(again)[:3], ', ')}"
    torn = [image for image, other in again.items() if other]
    if torn:
        told += f"; {len(torn)} of them are listed in several splits ({torn[0]}): the first counts"
    return list(first.values()), [told] if again else []


def split_tags(fields: Sequence[str], notes: list[str] | None = None) -> list[tuple[str, ...]]:
    """The tags in each field of a column: JSON or Python lists, else separated by the first of ; | , that occurs.

    Blanks separate where words return in other fields and alone, as in ``cat dog``, ``dog``, ``cat``.
    """
    counts = Counter(map(str.strip, fields))
    plain = {" ".join(text.split()) for text in counts if not _is_list(text)} - {""}
    separator = next((mark for mark in ";|," if any(mark in text for text in plain)), "")
    words = {word for text in plain if " " in text for word in text.split()}
    if (
        not separator
        and words & plain
        and len(words | {text for text in plain if " " not in text}) < len(plain)
    ):
        separator = " "
    found = {}
    for text in counts:
        listed_tags = _list_items(text) if _is_list(text) else text.split(separator) if separator else [text]
        tags = (tidy(tag) for tag in listed_tags)
        found[text] = tuple(dict.fromkeys(tag for tag in tags if tag.lower() not in UNTAGGED))
    if separator not in ("", ";") and notes is not None:
        notes.append(f"tags separated by {_SPOKEN.get(separator, separator)}")
    none = {text: number for text, number in counts.items() if text and text.lower() in UNTAGGED}
    if none and notes is not None:
        notes.append(f"{listed(list(map(repr, none)), ', ')} read as no tag ({sum(none.values())} rows)")
    return [found[value.strip()] for value in fields]


def joined_tags(tags: Sequence[Sequence[str]]) -> list[str]:
    """Fields from which `split_tags` reads the same tags: separated by ; or, where that would not do, JSON lists."""
    fields = [";".join(each) for each in tags]
    lists = [json.dumps(list(each), ensure_ascii=False) for each in tags]
    mixed = [
        text if tuple(each) == again else instead
        for each, text, again, instead in zip(tags, fields, split_tags(fields), lists, strict=True)
    ]
    return mixed if split_tags(mixed) == list(map(tuple, tags)) else lists


# ---- records


_Rows = list[tuple[int, list[str]]]


def _csv(path: Path, notes: list[str]) -> tuple[list[str], _Rows, list[str]]:
    """Header, rows with their lines, and rows of another length."""
    text = read_text(path)
    first, _, rest = text.lstrip("\r\n").partition("\n")
    marked = re.fullmatch(r"sep=(.)\r?", first)
    if marked:
        text, first = rest, rest
    first = re.split(r"[\r\n]", first, maxsplit=1)[0]
    usual = "".join(mark for mark in ",;\t|" if mark in first) or " "
    delimiter = marked[1] if marked else max(usual, key=first.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    try:
        records = [
            (reader.line_num, fields)
            for fields in reader
            if fields and (fields[0].strip() or any(map(str.strip, fields)))
        ]
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not a CSV ({error}): check the quotes.") from error
    if not records:
        raise UserError(f"{path}: the file is empty. Expected the header image,tags or image,tags,split.")
    header = [field.strip() for field in records[0][1]]
    if delimiter != ",":
        notes.append(f"columns separated by {_SPOKEN.get(delimiter, delimiter)}")
    width, rows, wrong, trailing = len(header), [], [], 0
    for line, fields in records[1:]:
        if len(fields) > width and not any(map(str.strip, fields[width:])):
            del fields[width:]
            trailing += 1
        if len(fields) == width:
            rows.append((line, fields))
        else:
            wrong.append(f"line {line} has {plural(len(fields), 'field')} instead of {width}")
    if trailing:
        notes.append(f"separators at the end of {plural(trailing, 'row')} left out")
    if wrong and not rows:
        raise UserError(
            f"{path}: no row has the {len(header)} fields of the header {delimiter.join(header)}: {listed(wrong)}."
        )
    return header, rows, wrong


def _records(path: Path, _: list[str]) -> tuple[list[str], _Rows, list[str]]:
    """The same of a JSON list of objects, JSON Lines, or one object that gives each image its tags."""
    text = read_text(path)
    try:
        if path.suffix.lower() == ".jsonl":
            found: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON, damaged or cut off ({error}): export it again.") from error
    if isinstance(found, dict) and all(isinstance(value, str | list) for value in found.values()):
        found = [{"image": name, "tags": value} for name, value in found.items()]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{path}: no list of objects. Expected one per image, with its name and tags.")
    header = list(dict.fromkeys(str(key) for item in found for key in item))
    rows = [
        (line, [_as_field(item.get(key, "")) for key in header]) for line, item in enumerate(found, start=1)
    ]
    return header, rows, []


def _as_field(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else "" if value is None else str(value)


def _without_header(header: list[str], rows: _Rows, notes: list[str]) -> tuple[list[str], _Rows, int | None]:
    """Take a first row that names an image file as a row: columns image, tags and, where all are splits, split."""
    place = next((i for i, value in enumerate(header) if value.lower().endswith(IMAGE_SUFFIXES)), None)
    if place is None:
        return header, rows, None
    rows = [(1, header), *rows]
    names = ["tags"] * len(header)
    for column in range(len(header)):
        if {row[column].strip().lower() for _, row in rows} <= set(SPLIT_NAMES):
            names[column] = "split"
    names[place] = "image"
    notes.append(f"no header: columns taken as {', '.join(names)}")
    return names, rows, place


# ---- columns


def _column(header: Sequence[str], names: Iterable[str]) -> int | None:
    plain = [re.sub(r"[\s_-]+", "", name).lower() for name in header]
    wanted = (re.sub(r"[\s_-]+", "", name).lower() for name in names)
    return next((plain.index(name) for name in wanted if name in plain), None)


def _required(header: Sequence[str], name: str, path: Path) -> int:
    place = _column(header, [name])
    if place is None:
        raise UserError(f"{path}: no column {name!r}. Expected one of: {listed(header, ', ')}.")
    return place


def _class_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], others: set[int | None], path: Path
) -> list[int]:
    """Columns that hold nothing but yes and no, a class each; one that nearly does is refused by name."""
    found = []
    for column, name in enumerate(header):
        values = Counter(row[column].strip().lower() for row in rows)
        odd = [value for value in values if value not in (*_TRUE, *_FALSE)]
        if column in others or not name or set(values) == {""}:
            continue
        if not odd:
            found.append(column)
        elif _nearly(values, odd):
            shown = f"{', '.join(odd[:3])} in {sum(values[value] for value in odd)} of {len(rows)} rows"
            raise UserError(
                f"{path}: column {name!r} holds {shown}, which is neither 1 (shown) nor 0 (not shown).\n"
                "Write 1 or 0 there, remove the column, or name the columns of classes (init --tag-columns)."
            )
    if not found:
        raise UserError(
            f"{path}: no column of tags among {listed(header, ', ')}. Expected one of {', '.join(TAG_COLUMNS)}, or a "
            "column of 0 and 1 per class: rename one, or name it (init --tag-columns)."
        )
    return found


def _nearly(values: Mapping[str, int], odd: Sequence[str]) -> bool:
    """Whether a column is mostly of yes and no, or of numbers from -1 to 1."""
    given = {value: number for value, number in values.items() if value}
    if 2 * sum(given[value] for value in odd) < sum(given.values()):
        return True
    try:
        return all(value == "nan" or -1 <= float(value) <= 1 for value in odd)
    except ValueError:
        return False


def _split_name(value: str, known: Sequence[str]) -> str:
    name = value.strip()
    same = {split.lower(): split for split in known}
    return same.get(name.lower()) or SPLIT_NAMES.get(name.lower(), name) or known[0]


def _is_list(text: str) -> bool:
    return text[:1] + text[-1:] in ("[]", "{}")


def _list_items(text: str) -> list[str]:
    """The texts in a JSON, Python or NumPy list, or in the lists of an object, as ``{"choices": ["cat"]}``."""
    try:
        found = json.loads(text)
    except ValueError:
        inner = text.partition(":")[2] if text[0] == "{" and ":" in text else text
        quoted = ["".join(pair) for pair in re.findall(r"'([^']*)'|\"([^\"]*)\"", inner)]
        return quoted or inner.strip("[]{}").split(",")
    if isinstance(found, dict):
        found = [item for value in found.values() for item in (value if isinstance(value, list) else [value])]
    return list(map(str, found))


# ---- the files that names mean


def files_below(root: Path, notes: list[str]) -> Iterator[str]:
    """Paths below a folder, ``/`` between folders; links are followed, loops and what belongs to systems are not."""
    seen: dict[str, str] = {}
    for folder, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            notes.append(f"{folder} is a link to {seen[real]}, which is read already: not read twice")
            inner.clear()
            continue
        seen[real] = folder
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name.lower() not in _SYSTEM)
        below = Path(folder).relative_to(root).as_posix()
        yield from (name if below == "." else f"{below}/{name}" for name in files if not name.startswith("."))


def image_files(root: Path) -> list[str]:
    """The images below a folder, sorted."""
    return sorted(name for name in files_below(root, []) if name.lower().endswith(IMAGE_SUFFIXES))


@dataclass
class Matcher:
    """Finds the image that a list means, among the files that are there: no name can lead elsewhere.

    Attributes:
        images: the candidates.
        missing: names that no file has.
        ambiguous: names that several files have, with two of them.
        otherwise: names that were found under another spelling, with that of the file.

    A file that one name stands for is not found for another: a list of two splits, of which one is not there, must
    not mix them.
    """

    images: Sequence[str]
    missing: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known = frozenset(self.images)
        self._named: dict[str, str] = {}
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image in self.images:
            path = PurePosixPath(image)
            for key in {path.name, path.stem, _loose(path.name), _loose(path.stem)}:
                self._by_name[key].append(image)

    def find(self, name: str, split: str = "") -> str | None:
        """Return the image of a path, URL or bare file name, with or without its extension; else note it.

        Of files that fit equally, the one in a folder named by the split is taken.
        """
        for spelled in _spellings(name):
            if spelled in self._known and self._named.setdefault(spelled, spelled) == spelled:
                return spelled
            last = PurePosixPath(spelled).name
            keys = [last, _loose(last)]
            if last.lower().endswith(IMAGE_SUFFIXES):  # perhaps converted since
                keys.append(_loose(PurePosixPath(last).stem))
            candidates = next(filter(None, map(self._by_name.get, keys)), [])
            found = _closest(candidates, spelled)
            if len(found) > 1:
                found = [
                    path for path in found if split in map(SPLIT_NAMES.get, path.lower().split("/"))
                ] or found
            if len(found) == 1 and self._named.setdefault(found[0], spelled) == spelled:
                if last not in found[0]:
                    self.otherwise.append(f"{name} as {found[0]}")
                return found[0]
            if found:
                others = (
                    f"{found[0]} or {found[1]}"
                    if len(found) > 1
                    else f"{found[0]}, which another entry means"
                )
                self.ambiguous.append(f"{name} ({others})")
                return None
        self.missing.append(name)
        return None

    def problems(self, place: str) -> list[str]:
        """What was not found, and what was found under another spelling, a sentence each."""
        kinds = (
            (self.missing, "of its entries name no image in the folder", "left out"),
            (self.ambiguous, "of its entries fit no image of their own", "left out; write their folders too"),
            (self.otherwise, "of its names differ in spelling from those of the files", "matched"),
        )
        return [
            f"{place}: {len(names)} {what} ({listed(sorted(names)[:3], ', ')}); {end}"
            for names, what, end in kinds
            if names
        ]


def _loose(name: str) -> str:
    """What spellings of a file's name have in common: case, Unicode form, and blanks that uploads replace."""
    return fold(name).replace(" ", "_")


def _spellings(name: str) -> Iterator[str]:
    """The paths that a name may stand for, the most literal first."""
    plain = name.replace("\\", "/")
    yield plain.removeprefix("./")
    try:
        address = urlsplit(plain)
    except ValueError:  # brackets that are no address
        return
    local = parse_qs(address.query).get("d")  # Label Studio: /data/local-files/?d=folder/a.jpg
    path = unquote(local[0] if local else address.path)
    yield path
    last = PurePosixPath(path).name
    if _UPLOADED.match(last):
        yield _UPLOADED.sub("", last, count=1)


def _closest(candidates: Sequence[str], name: str) -> list[str]:
    """Return the candidates whose folders agree longest with those of the name, from the file upwards."""
    wanted = PurePosixPath(name).parts[::-1]

    def agreement(candidate: str) -> int:
        pairs = zip(PurePosixPath(candidate).parts[-2::-1], wanted[1:], strict=False)
        return next((at for at, (a, b) in enumerate(pairs) if a != b), 99)

    best = max(map(agreement, candidates), default=0)
    return [candidate for candidate in candidates if agreement(candidate) == best]
