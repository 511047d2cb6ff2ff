"""Class names and tags: the list of classes, and the checks of both."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.sources.rows import RawListing, Row, read_text
from wsss.errors import SHOWN, UserError, listed

MAX_CLASSES = 254  # a mask pixel is one byte: 0 is background, 255 is ignored
_Known = Mapping[str, tuple[str, str]]  # folded name -> the name as first written, and where


def read_class_file(path: Path) -> tuple[str, ...]:
    """Read class names, one per line, UTF-8; empty lines do not count."""
    return tuple(line for line in read_text(path).splitlines() if line)


def settle_classes(raw: RawListing) -> tuple[str, ...]:
    """Return the class names in the order of the mask values 1..C, every tag being one of them.

    Raises:
        UserError: a bad class list (see `check_class_names`), or tags that are empty, doubled, misspelt,
            unknown or with stray spaces.
    """
    if raw.classes is not None:
        check_class_names(raw.classes, raw.classes_from)
        known = {fold(name): (name, raw.classes_from) for name in raw.classes}
        _check_tags(raw, known, closed=True)
        return raw.classes
    known = {}
    for row in raw.rows:
        for tag in row.tags:
            known.setdefault(fold(tag), (tag, row.where))
    _check_tags(raw, known, closed=False)
    names = tuple(sorted(name for name, _ in known.values()))
    check_class_names(names, f"the tags of {raw.place}")
    return names


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


def check_training_classes(raw: RawListing, classes: Sequence[str], train: str) -> None:
    """Raise a `UserError` if a class has no image in the training split: it could not be learned."""
    seen = {tag for row in raw.rows if row.split == train for tag in row.tags}
    missing = [repr(name) for name in classes if name not in seen]
    if missing:
        raise UserError(
            f"{raw.place}: {len(missing)} class(es) without images in the training split {train!r}: "
            f"{listed(missing, ', ')}.\n"
            f"Tag at least one training image with each, or remove them from {raw.classes_from}."
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


def _check_tags(raw: RawListing, known: _Known, *, closed: bool) -> None:
    problems: list[str] = []
    for row in raw.rows:
        for problem in _tag_problems(row, known, closed=closed, suggest=len(problems) < SHOWN):
            problems.append(f"{row.where} {row.image!r}: {problem}")
    if problems:
        wanted = f"the classes of {raw.classes_from}" if closed else "each class written in one way"
        raise UserError(
            f"{raw.place}: {len(problems)} tag(s) cannot be used:\n{listed(problems)}.\n"
            f"Expected {wanted}, each at most once per image: correct these tags."
        )


def _tag_problems(row: Row, known: _Known, *, closed: bool, suggest: bool) -> Iterator[str]:
    for tag in row.tags:
        name, where = known.get(fold(tag), (None, ""))
        if not tag:
            yield "an empty tag (a doubled or trailing ;)"
        elif tag != tag.strip():
            yield f"tag {tag!r} has stray spaces"
        elif fold(tag) == "background":
            yield f"tag {tag!r} is reserved: leave the tags empty if an image shows background only"
        elif name is None and closed:
            yield f"unknown tag {tag!r}{_suggestion(tag, known) if suggest else ''}"
        elif name != tag:
            yield f"tag {tag!r} differs only in letter case or accent encoding from {name!r} ({where})"
    if len(set(row.tags)) < len(row.tags):
        doubled = [tag for tag, n in Counter(row.tags).items() if n > 1 and tag]
        yield from (f"tag {tag!r} is given twice" for tag in doubled)


def _suggestion(tag: str, known: _Known) -> str:
    close = difflib.get_close_matches(fold(tag), known, n=1)
    return f" (did you mean {known[close[0]][0]!r}?)" if close else ""
