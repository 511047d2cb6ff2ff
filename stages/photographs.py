"""Photographs on the command line: files, folders and patterns -> what to read and what to call the result."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsss.errors import UserError, listed


@dataclass(frozen=True, order=True)
class Photograph:
    """One photograph to be worked on.

    Attributes:
        name: relative path with ``/`` and with its extension: below the folder or the fixed part of the
            pattern that named it, or the bare file name.
        source: the file.
    """

    name: str
    source: Path

    @property
    def id(self) -> str:
        """The name without its extension: what results are called."""
        return str(PurePosixPath(self.name).with_suffix(""))


def find_photographs(items: Sequence[str], out: Path) -> tuple[list[Photograph], list[str]]:
    """List what files, folders (with all below them) and glob patterns name.

    Nothing is opened, and nothing is left out for its extension: what is no image fails by name later.

    Args:
        items: as given by the user.
        out: the folder of the results; what lies in it is no photograph.

    Returns:
        The photographs sorted by name, each once; and sentences on what was left out.

    Raises:
        UserError: an item names nothing, or two photographs would get the same result file.
    """
    found: dict[str, Photograph] = {}
    clashes, hidden, results = [], 0, 0
    for item in items:
        for photograph in _expanded(item):
            if out.resolve() in photograph.source.resolve().parents:
                results += 1
                continue
            if ".." in PurePosixPath(photograph.name).parts:
                raise UserError(f"{item}: a pattern with .. after a wildcard; name the folder itself")
            if any(part.startswith(".") for part in PurePosixPath(photograph.name).parts):
                hidden += 1
                continue
            known = found.setdefault(photograph.id, photograph)
            if known.source.resolve() != photograph.source.resolve():
                clashes.append(f"{known.source} and {photograph.source}")
    if clashes:
        raise UserError(
            f"{len(clashes)} photograph(s) would get the result file of another: {listed(clashes)}.\n"
            "Give the folder that holds them all, which keeps subfolders, or rename them."
        )
    notes = []
    if hidden:
        notes.append(f"{hidden} hidden files left out")
    if results:
        notes.append(f"{results} files in {out} left out: it is the folder of the results")
    if not found:
        raise UserError(
            f"{listed(items, ', ')}: no photographs there ({'; '.join(notes) or 'the folder is empty'})"
        )
    return sorted(found.values()), notes


def _expanded(item: str) -> Iterator[Photograph]:
    path = Path(item).expanduser()
    if path.is_dir():
        yield from _below(path)
    elif path.exists():
        yield Photograph(path.name.lstrip(".") or path.name, path)  # named itself, so meant, hidden or not
    else:
        # Path.glob takes no absolute pattern.
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(item) else []  # noqa: PTH207
        if not matches:
            raise UserError(f"{item}: no such file or folder, and no pattern that matches any")
        base = _fixed_part(path)
        for match in map(Path, matches):
            if match.is_dir():
                for inner in _below(match):
                    yield Photograph(_name(inner.source, base), inner.source)
            else:
                yield Photograph(_name(match, base), match)


def _below(folder: Path) -> Iterator[Photograph]:
    """Every file below a folder, links to folders followed, each real folder once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for file in sorted(files):
            yield Photograph(_name(Path(place) / file, folder), Path(place) / file)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before its first wildcard."""
    fixed: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _name(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix()
