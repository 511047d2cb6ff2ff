"""From recognised photographs to a list that the folder source reads without complaint."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from data.derive import as_csv
from data.own.found import Tagged
from data.sources.rows import Row
from data.sources.tags import fold
from wsss.errors import listed

_RESERVED = "background"


@dataclass(frozen=True, kw_only=True)
class NewList:
    """A list to be written.

    Attributes:
        text: the CSV ``image,tags,split``.
        images: the folder that its paths are relative to, itself relative to the data set's.
        rows: what it says.
        problems: what was changed or left out, a sentence each.
    """

    text: str
    images: str
    rows: tuple[Tagged, ...]
    problems: tuple[str, ...]


def new_list(rows: Sequence[Tagged]) -> NewList:
    """Clean the tags, keep one photograph of each id, and write them down sorted."""
    spelled, problems = _one_spelling(rows)
    kept, doubled = _one_per_id(spelled)
    images = "images" if all(row.image.startswith("images/") for row in kept) else "."
    place = "images/" if images == "images" else ""
    listed_rows = [
        Row(where="", image=row.image.removeprefix(place), tags=row.tags, split=row.split) for row in kept
    ]
    return NewList(
        text=as_csv(listed_rows, splits=True), images=images, rows=kept, problems=(*problems, *doubled)
    )


def _one_spelling(rows: Sequence[Tagged]) -> tuple[list[Tagged], list[str]]:
    """Write tags that differ in letter case or spaces alone as the most frequent of them; drop 'background'."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for tag in row.tags:
            spellings[fold(_tidy(tag))][_tidy(tag)] += 1
    chosen = {key: min(found, key=lambda tag: (-found[tag], tag)) for key, found in spellings.items()}
    cleaned = [
        replace(
            row,
            tags=tuple(sorted({chosen[fold(_tidy(tag))] for tag in row.tags} - {chosen.get(_RESERVED, "")})),
        )
        for row in rows
    ]
    several = [
        f"{', '.join(sorted(found))} as {chosen[key]}" for key, found in spellings.items() if len(found) > 1
    ]
    return cleaned, [f"spellings taken for one class: {listed(several)}"] if several else []


def _tidy(tag: str) -> str:
    return " ".join(tag.replace(";", ",").split())


def _one_per_id(rows: Sequence[Tagged]) -> tuple[tuple[Tagged, ...], list[str]]:
    first: dict[str, Tagged] = {}
    doubled = []
    for row in sorted(rows, key=lambda row: row.image):
        path = PurePosixPath(row.image)
        if first.setdefault(str(path.with_suffix("")), row) is not row:
            doubled.append(row.image)
    problem = f"same name as another photograph but for its extension: {listed(doubled[:3], ', ')}; left out"
    return tuple(first.values()), [f"{len(doubled)} photograph(s) of the {problem}"] if doubled else []
