"""Photographs on the command line: files, folders and patterns -> what to read and what to call the result.

The CSV that tells `predict` which classes a photograph can show.
"""

import difflib
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.sources.folder import parse_csv
from data.sources.rows import read_text
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


def read_tags(
    path: Path | None, photographs: Sequence[Photograph], classes: Sequence[str]
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Class indices by the photograph's name, for those that the file names.

    Args:
        path: a CSV ``image,tags`` as a data set's labels.csv, or None: no photograph is restricted.
        photographs: to be predicted; matched by name, as written below their folder.
        classes: C names.

    Returns:
        Sorted indices 0..C-1 by name, and a note on photographs without a row: they are not restricted.

    Raises:
        UserError: not such a CSV, a tag that is no class, a photograph named twice, or none named at all.
    """
    if path is None:
        return {}, []
    index = {name: position for position, name in enumerate(classes)}
    rows: dict[str, tuple[int, ...]] = {}
    for row in parse_csv(read_text(path), path, ""):
        name = str(PurePosixPath(row.image))
        if name in rows:
            raise UserError(f"{path} {row.where}: {row.image} has a row already; remove one")
        rows[name] = tuple(sorted({_index(tag, index, f"{path} {row.where}") for tag in row.tags}))
    tags = {photograph.name: rows[photograph.name] for photograph in photographs if photograph.name in rows}
    missing = [photograph.name for photograph in photographs if photograph.name not in tags]
    if not tags:
        raise UserError(
            f"{path}: names none of the photographs; expected paths as {listed(missing[:2], ', ')}, "
            f"found {listed(list(rows)[:2], ', ')}"
        )
    if not missing:
        return tags, []
    note = f"{len(missing)} photographs without a row in {path} may show any class: {listed(missing, ', ')}"
    return tags, [note]


def _index(tag: str, index: dict[str, int], where: str) -> int:
    if tag in index:
        return index[tag]
    close = difflib.get_close_matches(tag, index, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of: {listed(list(index), ', ')}"
    raise UserError(f"{where}: {tag!r} is no class of this network; {hint}")
