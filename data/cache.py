"""One pass over the files: every one is hashed and decoded once, and what was found is remembered."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.images import decode_image, read_bytes
from data.masks import Facts, Mask
from wsss.errors import UserError, listed
from wsss.runtime.pool import in_order
from wsss.store.files import is_kept, is_sealed, parse_json, write_sealed_json

_SCHEMA = "wsss-index-2"


@dataclass(frozen=True)
class _Stamp:
    """A file's length and time of change: as long as they stay, so do its facts."""

    bytes: int
    mtime_ns: int


_Memory = dict[str, tuple[_Stamp, Facts]]  # by "image:" or "mask:" and the path relative to root


def index_files(
    images: Sequence[Path],
    masks: Sequence[Mask],
    *,
    root: Path,
    cache: Path | None,
    progress: bool,
    writable: bool = True,
) -> dict[Path | Mask, Facts]:
    """Check every file and return its facts.

    Args:
        images: photographs to hash and decode.
        masks: label masks to examine.
        root: the folder that the paths in the cache are relative to.
        cache: JSON file of earlier facts, ignored if damaged or of another root; None remembers nothing.
            A file counts as unchanged as long as its length and modification time stay.
        progress: show a bar while files are decoded.
        writable: whether the cache may be written.

    Returns:
        The facts of every path and mask given.

    Raises:
        UserError: files that cannot be used (ten named, the rest counted), or a cache that cannot be written.
    """
    if cache is not None and writable:
        _check_writable(cache)
    memory = _load(cache, root, writable=writable) if cache is not None else {}
    jobs = [_Job(path, path, f"image:{_relative(path, root)}") for path in images]
    jobs += [_Job(mask, mask.file, _mask_key(mask, root)) for mask in masks]
    stamps = {job.key: _stamp(job.path) for job in jobs}
    todo = [job for job in jobs if job.key not in memory or memory[job.key][0] != stamps[job.key]]
    problems: list[str] = []
    try:
        for job, found in _examine_all(todo, progress):
            if isinstance(found, Facts):
                memory[job.key] = (stamps[job.key], found)
            else:
                problems.append(str(found))
    finally:  # what is known already survives a bad file and Ctrl-C
        if cache is not None and writable and todo:
            _save(memory, cache, root)
    _raise(problems)
    return {job.item: memory[job.key][1] for job in jobs}


@dataclass(frozen=True)
class _Job:
    item: Path | Mask
    path: Path
    key: str


def _mask_key(mask: Mask, root: Path) -> str:
    return f"mask:{_relative(mask.file, root)}{f'#{mask.part}' if mask.part else ''}"


def _relative(path: Path, root: Path) -> str:
    return path.as_posix().removeprefix(root.as_posix() + "/")


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return _Stamp(-1, -1)  # vanished since it was listed: reading it will say so
    return _Stamp(status.st_size, status.st_mtime_ns)


def _examine_all(jobs: Sequence[_Job], progress: bool) -> Iterator[tuple[_Job, Facts | UserError]]:
    if not jobs:
        return
    # Threads: Pillow and hashlib release the GIL.
    found = in_order(_examine, jobs, threads=os.cpu_count() or 1)
    bar = tqdm(found, total=len(jobs), desc="checking files", unit="file", disable=not progress)
    yield from zip(jobs, bar, strict=True)


def _examine(job: _Job) -> Facts | UserError:
    try:
        return _photograph(job.item) if isinstance(job.item, Path) else job.item.examine()
    except UserError as error:
        return error


def _photograph(path: Path) -> Facts:
    data = read_bytes(path)
    pixels = decode_image(data, path)
    return Facts(digest=hashlib.sha256(data).hexdigest(), size=(pixels.shape[0], pixels.shape[1]), labels=())


def _raise(problems: Sequence[str]) -> None:
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError(f"{len(problems)} files cannot be used:\n{listed(problems, ' ')}")


def _check_writable(cache: Path) -> None:
    """Fail before the work, not after it."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache.parent).close()
        if cache.is_dir():
            raise IsADirectoryError(0, "it is a folder")
    except OSError as error:
        raise _unwritable(cache, error) from error


def _unwritable(cache: Path, error: OSError) -> UserError:
    return UserError(
        f"{cache}: the cache of checked files cannot be written ({error.strerror}): "
        "name a file in a folder that you may write to."
    )


def _load(cache: Path, root: Path, *, writable: bool) -> _Memory:
    """Read the cache; a missing, damaged or foreign one is empty, and every file is checked anew."""
    try:
        if not (is_kept(cache, "every file is checked again") if writable else is_sealed(cache)):
            return {}
        stored = parse_json(cache.read_bytes())
        if (stored["schema"], stored["root"]) != (_SCHEMA, str(root.absolute())):
            return {}
        return {key: _entry(value) for key, value in stored["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _entry(value: Any) -> tuple[_Stamp, Facts]:
    size, mtime_ns, digest, height, width, labels = value
    numbers = (size, mtime_ns, height, width, *labels)
    if not (isinstance(digest, str) and all(type(number) is int for number in numbers)):
        raise TypeError("not a cache entry")
    return _Stamp(size, mtime_ns), Facts(digest=digest, size=(height, width), labels=tuple(labels))


def _save(memory: _Memory, cache: Path, root: Path) -> None:
    """Replace the cache in one step: a reader never sees half of it."""
    files = {
        key: (stamp.bytes, stamp.mtime_ns, facts.digest, *facts.size, facts.labels)
        for key, (stamp, facts) in memory.items()
    }
    stored = {"schema": _SCHEMA, "root": str(root.absolute()), "files": files}
    try:
        write_sealed_json(cache, stored)
    except OSError as error:
        raise _unwritable(cache, error) from error
