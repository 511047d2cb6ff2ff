"""Lists as CSV: whatever the columns are called, tags in one field or a column per class."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from data.own.found import SPLIT_NAMES, Found, Tagged
from data.own.tree import Matcher, Tree
from data.sources.rows import read_text
from wsss.errors import UserError

_IMAGE = (
    "image",
    "filename",
    "file",
    "file_name",
    "path",
    "image_path",
    "filepath",
    "img",
    "image_id",
    "name",
    "id",
)
_TAGS = ("tags", "tag", "labels", "label", "classes", "class", "categories", "category")
_SPLIT = ("split", "set", "subset", "partition")
_TRUE, _FALSE = ("1", "1.0", "true", "yes", "x"), ("0", "0.0", "", "false", "no")
_UNTAGGED = ("background", "none", "negative")


def find_table(tree: Tree) -> Found | None:
    """Read the CSV nearest to the root that names photographs and tags; None where there is none.

    Raises:
        UserError: a CSV with such columns of which no entry names a photograph.
    """
    for name in tree.lists_named(".csv", ".tsv"):
        header, rows = _read(tree, name)
        image = _column(header, _IMAGE)
        if image is None:
            continue
        tags = _column(header, _TAGS)
        classes = _class_columns(header, rows, image) if tags is None else []
        if tags is None and not classes:
            continue
        found = _found(tree, name, header, rows, image, tags, classes)
        if name == "labels.csv" and _is_ours(tree, header):
            return replace(
                found, what="labels.csv and images/, as this program reads them", listed=True, problems=()
            )
        return found
    return None


def _read(tree: Tree, name: str) -> tuple[list[str], list[list[str]]]:
    text = read_text(tree.root / name)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t|", key=first.count)
    try:
        records = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise UserError(f"{tree.root / name}: not a CSV ({error}): check the quotes.") from error
    header = [field.strip() for field in records[0]] if records else []
    return header, [row for row in records[1:] if len(row) == len(header)]


def _is_ours(tree: Tree, header: Sequence[str]) -> bool:
    known = {"image", "tags", "split", "derived_from"}
    return {"image", "tags"} <= set(header) <= known and (tree.root / "images").is_dir()


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    lowered = [field.lower() for field in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def _class_columns(header: Sequence[str], rows: Sequence[Sequence[str]], image: int) -> list[int]:
    """Columns that hold nothing but yes and no: a class each."""
    return [
        column
        for column in range(len(header))
        if column != image
        and header[column].lower() not in _SPLIT
        and {row[column].strip().lower() for row in rows} <= {*_TRUE, *_FALSE}
    ]


def _found(
    tree: Tree,
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    image: int,
    tags: int | None,
    classes: Sequence[int],
) -> Found:
    split = _column(header, _SPLIT)
    matcher = Matcher(tree.images)
    merged: dict[str, tuple[set[str], str]] = {}
    for row in rows:
        path = matcher.find(row[image].strip())
        if path is None:
            continue
        given = (
            _tags(row[tags])
            if tags is not None
            else {header[c] for c in classes if row[c].strip().lower() in _TRUE}
        )
        before, _ = merged.setdefault(path, (set(), _split(row, split)))
        before |= given
    place = str(tree.root / name)
    if not merged:
        raise UserError(
            f"{place}: none of its {len(rows)} entries names a photograph in {tree.root}, the first is "
            f"{rows[0][image] if rows else ''!r}. Expected paths or names of files there: correct the "
            f"column {header[image]!r}."
        )
    columns = (
        f"columns {header[image]} and {header[tags]}" if tags is not None else f"{len(classes)} class columns"
    )
    return Found(
        what=f"the list {name} ({columns})",
        rows=tuple(
            Tagged(image=path, tags=tuple(sorted(given)), split=where)
            for path, (given, where) in merged.items()
        ),
        problems=tuple(matcher.problems(place)),
    )


def _tags(text: str) -> set[str]:
    """Tags of one field, separated by ; or | or a comma."""
    tags = {tag.strip() for tag in re.split(r"[;|,]", text)}
    return {tag for tag in tags if tag and tag.lower() not in _UNTAGGED}


def _split(row: Sequence[str], column: int | None, names: Mapping[str, str] = SPLIT_NAMES) -> str:
    text = row[column].strip().lower() if column is not None else "train"
    return names.get(text, text or "train")
