"""The files of a folder that somebody collected, and which of them a list means."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from data.sources.folder import IMAGE_SUFFIXES
from data.sources.listing import Entry
from wsss.errors import UserError, listed, plural

WRITTEN = ("wsss.toml", "wsss_labels.csv")
"""What `init` writes: never read as somebody's list."""

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""How folders and lists usually name their splits, and what we call them."""

UNTAGGED = ("background", "negative", "none")
"""How folders and lists usually name images that show none of the classes."""

_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts this before the name of an uploaded file


@dataclass(frozen=True, kw_only=True)
class Found:
    """A way to read the folder.

    Attributes:
        what: what it was recognised as, e.g. ``images in folders named by class``.
        data: keys of the section [data], except root.
        entries: images with tags, their paths relative to the folder; empty where the layout has lists of its own.
        listed: the entries are in a list that is read as it is.
        problems: what was left out or will matter, a sentence each.
    """

    what: str
    data: Mapping[str, str | list[str]] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    listed: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """What lies in a folder, as sorted paths relative to it with ``/`` between folders. Links are not followed.

    Attributes:
        root: the folder.
        images: paths of images.
        lists: CSV, JSON and XML files.
    """

    root: Path
    images: tuple[str, ...]
    lists: tuple[str, ...]

    def lists_named(self, *suffixes: str) -> list[str]:
        """Return the lists with one of these suffixes, those nearest to the root first."""
        found = [name for name in self.lists if name.lower().endswith(suffixes)]
        return sorted(found, key=lambda name: (name.count("/"), name))


def scan_tree(root: Path) -> Tree:
    """List a folder.

    Raises:
        UserError: it is no folder, or nothing in it is an image.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Expected the folder of your images.")
    images, lists = [], []
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = Path(folder).relative_to(root).as_posix()
        for name in files:
            path = name if below == "." else f"{below}/{name}"
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  # called for every file
            if suffix in IMAGE_SUFFIXES:
                images.append(path)
            elif suffix in (".csv", ".tsv", ".json", ".xml") and name not in WRITTEN:
                lists.append(path)
    if not images:
        raise UserError(f"{root}: no images in it. Expected files {', '.join(IMAGE_SUFFIXES)}.")
    return Tree(root, tuple(sorted(images)), tuple(sorted(lists)))


def matched(tree: Tree, name: str, what: str, named: Sequence[tuple[str, set[str], str]]) -> Found:
    """The images that a list of (name, tags, split) means; several entries of one image are put together.

    Args:
        tree: the folder.
        name: the list's path in it.
        what: says which list this is.
        named: what it says.

    Raises:
        UserError: it names no image of the folder.
    """
    matcher = Matcher(tree.images)
    merged: dict[str, tuple[set[str], str]] = {}
    for image, tags, split in named:
        path = matcher.find(image)
        if path is not None:
            merged.setdefault(path, (set(), split))[0].update(tags)
    place = tree.root / name
    if not merged:
        first = f", the first is {named[0][0]!r}" if named else ""
        raise UserError(
            f"{place}: none of its {len(named)} entries names an image in {tree.root}{first}.\n"
            "Expected paths or names of files there: correct the names, or copy the images there."
        )
    entries = [
        Entry(image=path, tags=tuple(sorted(tags)), split=split) for path, (tags, split) in merged.items()
    ]
    return Found(what=what, entries=tuple(entries), problems=tuple(matcher.problems(str(place))))


class Matcher:
    """Finds the image that a list means, among the files that are there: no name can lead elsewhere.

    Args:
        images: the candidates.
    """

    def __init__(self, images: Sequence[str]) -> None:
        self._unnamed = set(images)
        self._known = frozenset(images)
        self._missing: list[str] = []
        self._ambiguous: list[str] = []
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image in images:
            name = PurePosixPath(image)
            for key in {name.name, name.stem}:
                self._by_name[key].append(image)

    def find(self, name: str) -> str | None:
        """Return the image of a path, URL or bare file name, with or without its extension; else note it."""
        for spelled in _spellings(name):
            candidates = self._by_name.get(PurePosixPath(spelled).name, [])
            found = [spelled] if spelled in self._known else _closest(candidates, spelled)
            if len(found) == 1:
                self._unnamed.discard(found[0])
                return found[0]
            if found:
                self._ambiguous.append(name)
                return None
        self._missing.append(name)
        return None

    def problems(self, place: str) -> list[str]:
        """What was not found, and what was not asked for, a sentence each."""
        kinds = (
            (self._missing, "name no image in the folder"),
            (self._ambiguous, "fit several images: write their folders too"),
        )
        told = [
            f"{place}: {len(names)} of its entries {what} ({listed(sorted(names)[:3], ', ')}); left out"
            for names, what in kinds
            if names
        ]
        others = sorted(name for name in self._unnamed if not name.startswith("masks/"))
        if others:
            told.append(
                f"{place}: no entry for {plural(len(others), 'image')} ({listed(others[:3], ', ')}); left out"
            )
        return told


def _spellings(name: str) -> Iterable[str]:
    """The paths that a name may stand for, the most literal first."""
    plain = name.replace("\\", "/")
    yield plain.removeprefix("./")
    address = urlsplit(plain)
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
