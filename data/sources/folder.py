"""A folder of images and a CSV ``image,tags[,split]``."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.sources.rows import RawListing, Row, check_rows, existing_folder, mask_folder, read_text, with_masks
from data.sources.tags import read_class_file
from wsss.config import DataConfig
from wsss.errors import UserError, listed

_COLUMNS = ("image", "tags", "split", "derived_from")
_EXPECTED = "Expected the header image,tags or image,tags,split (commas between columns, ; between tags)"


def read_folder(config: DataConfig) -> RawListing:
    """Read the listing of a folder; the files themselves are not opened.

    The CSV is UTF-8 with a header; without a column ``split`` every image is for training. Rows of other
    splits than the two of ``config`` are only counted.

    Raises:
        UserError: a missing folder, CSV or image, no training images, or a CSV that is not of this form.
    """
    root = existing_folder(Path(config.root), "root")
    images = existing_folder(root / ("images" if config.images == "auto" else config.images), "images")
    place = root / ("labels.csv" if config.labels == "auto" else config.labels)
    if not place.is_file():
        raise UserError(
            f"{place}: no such file. Expected a CSV with the header image,tags[,split]: see data.labels."
        )
    rows = parse_csv(read_text(place), place, config.train_split)
    splits = (config.train_split, config.val_split)
    _check_split_names(rows, place, splits)
    classes, classes_from = class_list(root, config, place)
    raw = RawListing(
        root=root,
        place=place,
        images=images,
        masks=mask_folder(root, config.masks, "masks"),
        classes=classes,
        classes_from=classes_from,
        rows=tuple(row for row in rows if row.split in splits),
        ignored=Counter(row.split for row in rows if row.split not in splits),
    )
    check_rows(raw, config.train_split)
    return with_masks(raw, [raw.masks]) if raw.masks else raw


def parse_csv(text: str, place: Path, default_split: str) -> list[Row]:
    """Return the rows of the CSV ``text``; ``place`` is named in errors, with the line."""
    lines = _records(text, place)
    header_line, header = next(lines, (1, []))
    _check_header(header, header_line, place)
    rows, wrong = [], []
    for line, fields in lines:
        if len(fields) != len(header):
            wrong.append(f"line {line} has {len(fields)}")
            continue
        value = dict(zip(header, fields, strict=True))
        tags = tuple(value["tags"].split(";")) if value["tags"] else ()
        rows.append(
            Row(
                where=f"line {line}",
                image=value["image"],
                tags=tags,
                split=value.get("split", default_split),
                derived_from=value.get("derived_from", ""),
            )
        )
    if wrong:
        raise UserError(
            f"{place}: {len(header)} fields expected in a row, as in {','.join(header)}: {listed(wrong)}.\n"
            'Put a value that holds a comma in "double quotes", and ; between tags.'
        )
    if not rows:
        raise UserError(f"{place}: no rows after the header. Expected one row per image.")
    return rows


def _records(text: str, place: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of every record that is not a blank line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise UserError(f"{place} line {reader.line_num}: not a CSV ({error}): check the quotes.") from error


def _check_header(header: Sequence[str], line: int, place: Path) -> None:
    shown = ",".join(header)
    if not header:
        raise UserError(f"{place}: the file is empty. {_EXPECTED}, then one row per image.")
    if not set(header) & {"image", "tags"}:
        raise UserError(
            f"{place} line {line}: no header, found {shown!r}. {_EXPECTED}: add it as the first line."
        )
    unknown = [repr(name) for name in header if name not in _COLUMNS]
    if unknown:
        raise UserError(
            f"{place} line {line}: unknown columns {listed(unknown, ', ')}. {_EXPECTED}: remove them."
        )
    missing = [repr(name) for name in ("image", "tags") if name not in header]
    if missing:
        raise UserError(f"{place} line {line}: the column {listed(missing)} is missing. {_EXPECTED}: add it.")
    if len(set(header)) < len(header):
        raise UserError(
            f"{place} line {line}: a column is there twice in {shown!r}. {_EXPECTED}: remove one."
        )


def _check_split_names(rows: Sequence[Row], place: Path, splits: Sequence[str]) -> None:
    """Refuse what would silently be another split: an empty name, ``Train``, ``val `` with a space."""
    meant = {name.casefold(): name for name in splits}
    wrong = [
        f"{row.where} {row.image!r} has the split {row.split!r}"
        for row in rows
        if row.split not in splits and (not row.split.strip() or row.split.strip().casefold() in meant)
    ]
    if wrong:
        raise UserError(
            f"{place}: {len(wrong)} split name(s) misspelt: {listed(wrong)}.\n"
            f"Expected {' or '.join(map(repr, splits))} (or another split, to be ignored): correct the rows."
        )


def class_list(root: Path, config: DataConfig, place: Path) -> tuple[tuple[str, ...] | None, str]:
    """Return the classes that data.classes or classes.txt names, None where the tags decide; and where from."""
    if config.classes:
        return config.classes, "data.classes"
    path = root / "classes.txt"
    if path.is_file():
        return read_class_file(path), str(path)
    return None, f"the tags of {place}"
