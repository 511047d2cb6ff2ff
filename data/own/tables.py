"""Lists as CSV: whatever the columns are called, tags in one field or a column per class."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from data.own.tree import SPLIT_NAMES, UNTAGGED, Found, Tree, matched
from data.sources.listing import read_text
from wsss.errors import UserError

_IMAGE = (
    "image", "filename", "file", "file_name", "path", "image_path", "filepath", "img", "image_id", "name", "id",
)  # fmt: skip
_TAGS = ("tags", "tag", "labels", "label", "classes", "class", "categories", "category")
_SPLIT = ("split", "set", "subset", "partition")
_TRUE, _FALSE = ("1", "1.0", "true", "yes", "x"), ("0", "0.0", "", "false", "no")

_Rows = Sequence[Sequence[str]]


def find_table(tree: Tree) -> Found | str:
    """Read the CSV nearest to the root that names images and tags.

    Raises:
        UserError: a CSV with such columns of which no entry names an image.
    """
    for name in tree.lists_named(".csv", ".tsv"):
        header, rows = _read(tree, name)
        image, tags = _column(header, _IMAGE), _column(header, _TAGS)
        classes = _class_columns(header, rows, image) if tags is None else []
        if image is None or (tags is None and not classes):
            continue
        shown = (
            f"{len(classes)} class columns" if tags is None else f"columns {header[image]} and {header[tags]}"
        )
        found = matched(
            tree, name, f"the list {name} ({shown})", list(_named(header, rows, image, tags, classes))
        )
        ours = {"image", "tags"} <= set(header) <= {"image", "tags", "split", "derived_from"}
        if name == "labels.csv" and ours and (tree.root / "images").is_dir():
            what = "labels.csv and images/, as this program reads them"
            return replace(found, what=what, listed=True, problems=())
        return found
    return "no CSV with a column of images and one of tags"


def _read(tree: Tree, name: str) -> tuple[list[str], _Rows]:
    text = read_text(tree.root / name)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t|", key=first.count)
    try:
        records = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise UserError(f"{tree.root / name}: not a CSV ({error}): check the quotes.") from error
    header = [field.strip() for field in records[0]] if records else []
    return header, [row for row in records[1:] if len(row) == len(header)]


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    lowered = [field.lower() for field in header]
    return next((lowered.index(name) for name in names if name in lowered), None)


def _class_columns(header: Sequence[str], rows: _Rows, image: int | None) -> list[int]:
    """Columns that hold nothing but yes and no: a class each."""
    return [
        column
        for column, name in enumerate(header)
        if column != image
        and name.lower() not in _SPLIT
        and {row[column].strip().lower() for row in rows} <= {*_TRUE, *_FALSE}
    ]


def _named(
    header: Sequence[str], rows: _Rows, image: int, tags: int | None, classes: Sequence[int]
) -> Iterator[tuple[str, set[str], str]]:
    """Image, tags and split of each row."""
    column = _column(header, _SPLIT)
    for row in rows:
        if tags is None:
            given = {header[c] for c in classes if row[c].strip().lower() in _TRUE}
        else:
            given = {tag.strip() for tag in re.split(r"[;|,]", row[tags])}
        split = row[column].strip().lower() if column is not None else ""
        names = {tag for tag in given if tag and tag.lower() not in UNTAGGED}
        yield row[image].strip(), names, SPLIT_NAMES.get(split, split or "train")
