"""What looking at a folder came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""How folders and lists usually name their splits, and what we call them."""


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """One photograph of a new list: its path relative to the folder, its tags, its split."""

    image: str
    tags: tuple[str, ...]
    split: str = "train"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A way to read the folder.

    Attributes:
        what: what it was recognised as, e.g. ``photographs in folders named by class``.
        data: keys of the section [data], except root.
        rows: photographs with tags; empty where the layout has lists of its own.
        listed: the rows are in a list that is read as it is.
        problems: what was left out or will matter, a sentence each.
    """

    what: str
    data: Mapping[str, str | list[str]] = field(default_factory=dict)
    rows: tuple[Tagged, ...] = ()
    listed: bool = False
    problems: tuple[str, ...] = ()
