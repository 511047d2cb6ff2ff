"""A folder of images and a CSV ``image,tags[,split][,derived_from]``: read, written, and derived from masks."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.cache import check_files, stamps_of
from data.masks import Facts, Mask
from data.sources.listing import (
    Entry,
    Listing,
    check_class_names,
    check_entries,
    existing_folder,
    read_text,
    with_masks,
)
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import UserError, listed

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_COLUMNS = ("image", "tags", "split", "derived_from")
_EXPECTED = "Expected the header image,tags or image,tags,split (commas between columns, ; between tags)"


def read_folder(config: DataConfig) -> Listing:
    """Read the listing of a folder.

    The CSV is UTF-8 with a header; without a column ``split`` every image is for training. Rows of other
    splits than the two of ``config`` are only counted.

    Raises:
        UserError: a missing folder or CSV, no training images, or a CSV that is not of this form.
    """
    root, images, masks = _folders(config)
    place = root / ("labels.csv" if config.labels == "auto" else config.labels)
    if not place.is_file():
        raise UserError(
            f"{place}: no such file. Expected a CSV with the header image,tags[,split]: see data.labels."
        )
    entries = parse_csv(read_text(place), place, config.train_split)
    splits = (config.train_split, config.val_split)
    _check_split_names(entries, place, splits)
    classes, classes_from = _class_list(root, config)
    listing = Listing(
        root=root,
        place=place,
        images=images,
        masks=masks,
        classes=classes,
        classes_from=classes_from or f"the tags of {place}",
        entries=tuple(entry for entry in entries if entry.split in splits),
        ignored=Counter(entry.split for entry in entries if entry.split not in splits),
    )
    check_entries(listing, config.train_split)
    return with_masks(listing, [masks]) if masks else listing


def parse_csv(text: str, place: Path, default_split: str) -> list[Entry]:
    """Return the entries of the CSV ``text``; ``place`` is named in errors, with the line."""
    lines = _records(text, place)
    header_line, header = next(lines, (1, []))
    _check_header(header, f"{place} line {header_line}")
    entries, wrong = [], []
    for line, fields in lines:
        if len(fields) != len(header):
            wrong.append(f"line {line} has {len(fields)}")
            continue
        value = dict(zip(header, fields, strict=True))
        entries.append(
            Entry(
                where=f"line {line}",
                image=value["image"],
                tags=tuple(value["tags"].split(";")) if value["tags"] else (),
                split=value.get("split", default_split),
                derived_from=value.get("derived_from", ""),
            )
        )
    if wrong:
        raise UserError(
            f"{place}: {len(header)} fields expected in a row, as in {','.join(header)}: {listed(wrong)}.\n"
            'Put a value that holds a comma in "double quotes", and ; between tags.'
        )
    if not entries:
        raise UserError(f"{place}: no rows after the header. Expected one row per image.")
    return entries


def entries_as_csv(entries: Sequence[Entry], *, splits: bool) -> str:
    """Return the CSV ``image,tags[,split][,derived_from]``, the last column where any tags were derived."""
    derived = any(entry.derived_from for entry in entries)
    columns = ["image", "tags", *(["split"] if splits else []), *(["derived_from"] if derived else [])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for entry in entries:
        fields = {**{name: getattr(entry, name) for name in columns}, "tags": ";".join(entry.tags)}
        writer.writerow([fields[column] for column in columns])
    return text.getvalue()


def folder_tags(config: DataConfig, *, progress: bool) -> tuple[Entry, ...]:
    """Tags of every image below ``data.images``, from its mask. Raises UserError as `data.sources.derive_tags`."""
    root, images, masks = _folders(config)
    if masks is None:
        raise UserError(f"{root}: no folder of masks. Expected one to derive tags from: set data.masks.")
    classes, classes_from = _class_list(root, config)
    if not classes_from:
        raise UserError(
            f"{root}/classes.txt: no such file. Expected the class names in the order of the mask values 1..C, "
            "one per line, or data.classes."
        )
    check_class_names(classes, classes_from)
    names = sorted(
        path.relative_to(images).as_posix()
        for path in images.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    )
    entries = [Entry(where="image", image=name, split=_split(name, config)) for name in names]
    listing = Listing(
        root=root,
        place=images,
        images=images,
        classes=classes,
        classes_from=classes_from,
        entries=tuple(entries),
    )
    check_entries(listing, config.train_split)
    return tags_from_masks(with_masks(listing, [masks]), progress=progress)


def tags_from_masks(listing: Listing, *, progress: bool) -> tuple[Entry, ...]:
    """The entries with the classes in their masks as tags. Raises UserError where a mask is missing or does not fit."""
    missing = [entry.image for entry in listing.entries if entry.mask is None]
    if missing:
        raise UserError(
            f"{listing.root}: {len(missing)} image(s) with neither tags nor a mask: {listed(missing, ', ')}.\n"
            "Expected a mask for each (data.masks): add them, or remove the images from the list."
        )
    masks = [entry.mask for entry in listing.entries if entry.mask]
    facts = check_files(masks, stamps_of(masks), progress=progress)
    return tuple(
        Entry(
            where=entry.where,
            image=entry.image,
            tags=_tags_of(mask, found, listing.classes),
            split=entry.split,
            derived_from=f"their masks in {_top_folder(mask.file, listing.root)}",
        )
        for entry, mask, found in zip(listing.entries, masks, facts, strict=True)
    )


def _tags_of(mask: Mask, facts: Facts, classes: Sequence[str]) -> tuple[str, ...]:
    labels = [label for label in facts.labels if label not in (0, IGNORE)]
    if labels and labels[-1] > len(classes):
        raise UserError(
            f"{mask}: label {labels[-1]} is beyond the {len(classes)} classes. Expected labels 0..{len(classes)} or "
            f"{IGNORE}: correct the mask or the class list."
        )
    return tuple(classes[label - 1] for label in labels)


def _top_folder(file: Path, root: Path) -> str:
    return file.relative_to(root).parts[0] if file.is_relative_to(root) else file.parent.name


def _folders(config: DataConfig) -> tuple[Path, Path, Path | None]:
    """Root, images, and masks where there are any."""
    root = existing_folder(Path(config.root), "root")
    images = existing_folder(root / ("images" if config.images == "auto" else config.images), "images")
    if config.masks == "auto":
        return root, images, root / "masks" if (root / "masks").is_dir() else None
    return root, images, existing_folder(root / config.masks, "masks") if config.masks else None


def _class_list(root: Path, config: DataConfig) -> tuple[tuple[str, ...], str]:
    """The classes that data.classes or classes.txt names, and where; empty where neither is there."""
    if config.classes:
        return config.classes, "data.classes"
    path = root / "classes.txt"
    if not path.is_file():
        return (), ""
    names = tuple(line for line in read_text(path).splitlines() if line)
    check_class_names(names, str(path))
    return names, str(path)


def _split(name: str, config: DataConfig) -> str:
    first = name.split("/")[0]
    return first if first == config.val_split else config.train_split


def _records(text: str, place: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of every record that is not a blank line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise UserError(f"{place} line {reader.line_num}: not a CSV ({error}): check the quotes.") from error


def _check_header(header: Sequence[str], place: str) -> None:
    shown = ",".join(header)
    unknown = [repr(name) for name in header if name not in _COLUMNS]
    missing = [repr(name) for name in ("image", "tags") if name not in header]
    problem = ""
    if not header:
        problem = "the file is empty"
    elif len(missing) == 2:
        problem = f"no header, found {shown!r}: add it as the first line"
    elif unknown:
        problem = f"unknown columns {listed(unknown, ', ')}: remove them"
    elif missing:
        problem = f"the column {listed(missing)} is missing: add it"
    elif len(set(header)) < len(header):
        problem = f"a column is there twice in {shown!r}: remove one"
    if problem:
        raise UserError(f"{place}: {problem}. {_EXPECTED}.")


def _check_split_names(entries: Sequence[Entry], place: Path, splits: Sequence[str]) -> None:
    """Refuse what would silently be another split: an empty name, ``Train``, ``val `` with a space."""
    meant = {name.casefold(): name for name in splits}
    wrong = [
        f"{entry.where} {entry.image!r} has the split {entry.split!r}"
        for entry in entries
        if entry.split not in splits and (not entry.split.strip() or entry.split.strip().casefold() in meant)
    ]
    if wrong:
        raise UserError(
            f"{place}: {len(wrong)} split name(s) misspelt: {listed(wrong)}.\n"
            f"Expected {' or '.join(map(repr, splits))} (or another split, to be ignored): correct the rows."
        )
