"""The files of a folder somebody collected, and the matching of names that lists give to them."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from data.derive import IMAGE_SUFFIXES
from data.sources.rows import plural
from wsss.errors import UserError, listed

WRITTEN = ("wsss.toml", "wsss_labels.csv")
"""What `init` writes: never read as somebody's list."""

_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts this before the name of an uploaded file


@dataclass(frozen=True)
class Tree:
    """What lies in a folder, as sorted paths relative to it with ``/`` between folders. Links are not followed.

    Attributes:
        root: the folder.
        images: photographs.
        lists: CSV, JSON and XML files.
    """

    root: Path
    images: tuple[str, ...]
    lists: tuple[str, ...]

    def lists_named(self, *suffixes: str) -> list[str]:
        """Return the lists with one of these suffixes, those nearest to the root first."""
        found = [name for name in self.lists if name.lower().endswith(suffixes)]
        return sorted(found, key=lambda name: (name.count("/"), name))

    def folders(self, depth: int) -> list[tuple[str, ...]]:
        """Return the distinct first ``depth`` folders of the photographs."""
        parts = {tuple(PurePosixPath(name).parts[:-1][:depth]) for name in self.images}
        return sorted(parts)


def scan_tree(root: Path) -> Tree:
    """List a folder.

    Raises:
        UserError: it is no folder, or nothing in it is an image.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Expected the folder of your photographs.")
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
        raise UserError(f"{root}: no images in it. Expected photographs ({', '.join(IMAGE_SUFFIXES)}).")
    return Tree(root, tuple(sorted(images)), tuple(sorted(lists)))


@dataclass
class Matcher:
    """Finds the photograph that a list means, among the files that are there: no name can lead elsewhere.

    Attributes:
        images: the candidates.
        missing: names that fit none.
        ambiguous: names that fit several.
        found: the candidates that were meant.
    """

    images: Sequence[str]
    missing: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    found: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known = set(self.images)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image in self.images:
            name = PurePosixPath(image)
            for key in {name.name, name.stem}:
                self._by_name[key].append(image)

    def find(self, name: str) -> str | None:
        """Return the photograph of a path, URL or bare file name, with or without its extension; else note it."""
        path = self._find(name)
        if path:
            self.found.add(path)
        return path

    def _find(self, name: str) -> str | None:
        for spelled in _spellings(name):
            if spelled in self._known:
                return spelled
            found = _closest(self._by_name.get(PurePosixPath(spelled).name, []), spelled)
            if len(found) == 1:
                return found[0]
            if found:
                self.ambiguous.append(name)
                return None
        self.missing.append(name)
        return None

    def problems(self, place: str) -> list[str]:
        """What was not found, and what was not asked for, a sentence each."""
        kinds = (
            (self.missing, "name no photograph in the folder"),
            (self.ambiguous, "fit several photographs: write their folders too"),
        )
        told = [
            f"{place}: {len(names)} of its entries {what} ({listed(sorted(names)[:3], ', ')}); left out"
            for names, what in kinds
            if names
        ]
        others = sorted(name for name in self._known - self.found if not name.startswith("masks/"))
        if others:
            told.append(
                f"{place}: no entry for {plural(len(others), 'photograph')} ({listed(others[:3], ', ')}); left out"
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
