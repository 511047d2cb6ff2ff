"""A data set that was read and checked before, kept in one file, as long as nothing of it has changed.

Reading the annotations of COCO takes a quarter of a minute. What came out, tags, sizes, digests and the places of
the masks in the annotation files, is kept beside the cache of checked files and stands for the data set while

- the settings of section ``data`` and the source text of this package are the same,
- every annotation file has the content that was read: the same length, times and inode or, failing that, the same
  sha256; and folders that decide where photographs are looked for are there, or not there, as before,
- every photograph has the length and modification time that it had when it was checked.

A file that changed within two seconds before it was looked at is compared by its sha256 in any case: a file
system's clock may be too coarse to tell a later change.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.columns import Columns, ColumnSamples, Ragged
from data.dataset import Dataset
from data.packed import Packed, read_packed, write_packed
from data.sources import Origin
from wsss.config import DataConfig

_FORMAT = 1
_COARSE_NS = 2_000_000_000
_Status = tuple[int, int, int, int]  # length, time of change, time of the inode's change, inode


@dataclass(frozen=True)
class Source:
    """An annotation file as it was.

    Attributes:
        path: of the file.
        status: length, times and inode; None where it cannot be trusted to show a change.
        digest: sha256 of its content, hexadecimal; empty where there is no such file.
    """

    path: str
    status: _Status | None
    digest: str


@dataclass(frozen=True)
class Sources:
    """All that a listing was made from, taken before it was read.

    Attributes:
        key: of settings and code.
        files: the annotation files.
        folders: those of `Origin.folders` that are there.
    """

    key: str
    files: tuple[Source, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Remembered:
    """A listing that still holds, with what its photographs were.

    Attributes:
        sources: as they are now.
        dataset: what was read and checked.
        columns: its samples.
        stamps: ``(N, 2)`` int64, length and modification time of each photograph when it was checked.
        renewed: whether a source's status is another than in the file.
    """

    sources: Sources
    dataset: Dataset
    columns: Columns
    stamps: NDArray[np.int64]
    renewed: bool


def sources_of(config: DataConfig, origin: Origin) -> Sources:
    """Look at what a listing is going to be made from."""
    return Sources(
        key=_key(config),
        files=tuple(_source(path) for path in origin.files),
        folders=_present(origin),
    )


def recall(path: Path, config: DataConfig, origin: Origin) -> Remembered | None:
    """Return what the file remembers if its sources are what they were; None otherwise, and where it is damaged."""
    try:
        packed = read_packed(path)
        head = packed.head
        if head["key"] != _key(config) or tuple(head["folders"]) != _present(origin):
            return None
        before = [Source(name, status and tuple(status), digest) for name, status, digest in head["files"]]
        if [source.path for source in before] != [str(file) for file in origin.files]:
            return None
        now = [_renewed(source) for source in before]
        if any(source is None for source in now):
            return None
        sources = Sources(head["key"], tuple(filter(None, now)), tuple(head["folders"]))
        columns = _columns(packed)
        dataset = Dataset(
            classes=tuple(head["classes"]), notes=tuple(head["notes"]), samples=ColumnSamples(columns)
        )
        return Remembered(sources, dataset, columns, packed.numbers["stamps"], renewed=now != before)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def remember(path: Path, sources: Sources, dataset: Dataset, root: Path, stamps: NDArray[np.int64]) -> None:
    """Write the file; what cannot be kept (a mask of another kind), or not be written, is not.

    Args:
        path: of the file.
        sources: from before the listing was read.
        dataset: what was read.
        root: the data set's folder.
        stamps: as in `Remembered`, from before the photographs were checked.
    """
    if not _still(sources):
        return
    samples = dataset.samples
    head = {
        "key": sources.key,
        "files": [list(asdict(source).values()) for source in sources.files],
        "folders": sources.folders,
        "classes": dataset.classes,
        "notes": dataset.notes,
    }
    with contextlib.suppress(OSError, ValueError):  # the next run reads the data set again
        columns = samples.columns if isinstance(samples, ColumnSamples) else Columns.of(root, samples)
        write_packed(path, _packed(head, columns, stamps))


def stamps_of(images: Sequence[str]) -> NDArray[np.int64]:
    """``(N, 2)`` int64: length and modification time in nanoseconds of each file; -1 for one that is not there."""
    stamps = []
    for image in images:
        try:
            status = os.stat(image)  # noqa: PTH116  # called for every photograph: twice as fast as Path
            stamps.append((status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((-1, -1))
    return np.array(stamps, np.int64).reshape(-1, 2)


@cache
def code_digest() -> str:
    """Sha256 of the source text of this package: another reader may read something else."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _key(config: DataConfig) -> str:
    place = str(Path(config.root).absolute())
    material = [_FORMAT, code_digest(), place, asdict(config)]
    return hashlib.sha256(json.dumps(material).encode()).hexdigest()


def _present(origin: Origin) -> tuple[str, ...]:
    return tuple(str(folder) for folder in origin.folders if folder.is_dir())


def _source(path: Path) -> Source:
    status = _status(path)
    if status is None:
        return Source(str(path), None, "")
    fresh = max(status[1:3]) > time.time_ns() - _COARSE_NS
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(str(path), None if fresh else status, digest)


def _status(path: Path) -> _Status | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _renewed(source: Source) -> Source | None:
    """Return the source as it is now, None where its content is another."""
    status = _status(Path(source.path))
    if status is not None and status == source.status:
        return source
    now = _source(Path(source.path))
    return now if now.digest == source.digest else None


def _still(sources: Sources) -> bool:
    """Whether the files are those of a moment ago; of fresh ones the content is compared when it matters."""
    return all(
        source.status is None or _status(Path(source.path)) == source.status for source in sources.files
    )


def _packed(head: dict[str, Any], columns: Columns, stamps: NDArray[np.int64]) -> Packed:
    """Every attribute of `Columns` under its own name; a ragged one as two arrays."""
    numbers, texts = {"stamps": stamps}, {}
    for item in fields(columns):
        value = getattr(columns, item.name)
        if isinstance(value, Ragged):
            numbers |= {f"{item.name}.values": value.values, f"{item.name}.ends": value.ends}
        elif isinstance(value, np.ndarray):
            numbers[item.name] = value
        elif isinstance(value, Path):
            head = head | {item.name: str(value)}
        else:
            texts[item.name] = value
    return Packed(head, numbers, texts)


def _columns(packed: Packed) -> Columns:
    numbers = dict(packed.numbers)
    ragged = {
        name: Ragged(numbers.pop(f"{name}.values"), numbers.pop(f"{name}.ends"))
        for name in ("tags", "mask_parts")
    }
    del numbers["stamps"]
    known: dict[str, Any] = {**numbers, **ragged, **packed.texts, "root": Path(packed.head["root"])}
    return Columns(**known)
