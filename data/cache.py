"""Every file is hashed and decoded once; what was found is remembered as long as the file's length and time stay."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
from tqdm import tqdm

from data.images import decode_image, read_bytes
from data.masks import Facts, Mask
from wsss.errors import MaskError, UserError, listing_error
from wsss.runtime.pool import in_order
from wsss.store.files import is_kept, write_sealed_json

Stamp: TypeAlias = tuple[int, int]
"""A file's length in bytes and its time of change in nanoseconds."""


class Remembered(msgspec.Struct, kw_only=True):
    """What was read from a large file while it had this stamp."""

    stamp: Stamp | None = None


T = TypeVar("T", bound=Remembered)
S = TypeVar("S")


@dataclass(frozen=True)
class Memory:
    """The files in which a workspace remembers a data set. Whatever is wrong with them, they are made again.

    Attributes:
        file: facts of the checked files (JSON); what annotation files said is in further ones beside it.
        writable: whether they may be written.
    """

    file: Path
    writable: bool = True


class _Checked(Facts, frozen=True, array_like=True, gc=False):
    """Facts of a file while it had this stamp."""

    stamp: Stamp | None = None


class _Index(msgspec.Struct, kw_only=True, tag="wsss-index-3"):
    """Facts by path, for a mask with its part."""

    files: dict[str, _Checked]


def stamp_of(path: str | int) -> Stamp | None:
    """The stamp of a path or of an open file; None where there is no such file."""
    try:
        status = os.stat(path)  # noqa: PTH116  # called for every file, and Path is slow to make
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns)


def stamps_of(items: Sequence[str | Mask]) -> list[Stamp | None]:
    """The stamps of the files of images and masks, None where there is no file; one look at each, whatever is in it."""
    places = [item if isinstance(item, str) else str(item.file) for item in items]
    found = {place: stamp_of(place) for place in dict.fromkeys(places)}
    return [found[place] for place in places]


def check_files(
    items: Sequence[str | Mask],
    stamps: Sequence[Stamp | None],
    *,
    memory: Memory | None = None,
    progress: bool = False,
) -> list[Facts]:
    """`examine_files` of files that must all be usable.

    Raises:
        UserError: files that cannot be used (ten named, the rest counted).
    """
    found = examine_files(items, stamps, memory=memory, progress=progress)
    bad = [
        (item, str(facts)) for item, facts in zip(items, found, strict=True) if isinstance(facts, UserError)
    ]
    if bad:
        problems = [text for _, text in bad]
        kind = MaskError if all(isinstance(item, Mask) for item, _ in bad) else UserError
        if len(bad) == 1:
            raise kind(problems[0])
        raise listing_error(f"{len(bad)} files cannot be used", problems, kind=kind)
    return [facts for facts in found if isinstance(facts, Facts)]


def examine_files(
    items: Sequence[str | Mask],
    stamps: Sequence[Stamp | None],
    *,
    memory: Memory | None = None,
    progress: bool = False,
) -> list[Facts | UserError]:
    """Read every file and return its facts, or why it cannot be used, in the order of ``items``.

    Args:
        items: paths of images, to hash and decode, and masks, to examine.
        stamps: of their files.
        memory: where earlier facts are; None remembers nothing.
        progress: show a bar while files are decoded.
    """
    index = _read(memory.file, _Index) if memory else None
    known = index.files if index else {}
    keys = [f"image:{item}" if isinstance(item, str) else f"mask:{item.file}#{item.part}" for item in items]
    todo = [at for at, key in enumerate(keys) if key not in known or known[key].stamp != stamps[at]]
    found = in_order(_examined, (items[at] for at in todo), threads=os.cpu_count() or 1)
    bar = tqdm(found, "checking files", len(todo), unit="file", disable=not (progress and todo))
    unusable: dict[str, UserError] = {}
    try:
        for at, facts in zip(todo, bar, strict=True):
            if isinstance(facts, Facts):
                known[keys[at]] = _Checked(facts.digest, facts.size, facts.labels, stamps[at])
            else:
                unusable[keys[at]] = facts
    finally:  # what is known already survives a bad file and Ctrl-C
        if memory and memory.writable and todo:
            write_sealed_json(memory.file, msgspec.to_builtins(_Index(files=known)))
    return [unusable.get(key) or known[key] for key in keys]


def remembered(path: Path, kind: type[T], read: Callable[[Path], T], memory: Memory | None) -> T:
    """Return ``read(path)`` with the file's stamp, or what it gave while the file had that stamp."""
    stamp = stamp_of(str(path))
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    place = memory.file.with_name(f"{memory.file.stem}-{name}.listing") if memory else None
    known = _read(place, kind) if place else None
    if known is None or known.stamp != stamp:
        known = msgspec.structs.replace(read(path), stamp=stamp)
        if memory and place and memory.writable:
            write_sealed_json(place, msgspec.to_builtins(known))
    return known


def checked_images(memory: Memory) -> list[str]:
    """The images that were checked, as paths."""
    index = _read(memory.file, _Index)
    return [key.removeprefix("image:") for key in (index.files if index else ()) if key.startswith("image:")]


def _examined(item: str | Mask) -> Facts | UserError:
    try:
        if isinstance(item, Mask):
            return item.examine()
        data = read_bytes(Path(item))
        H, W, _ = decode_image(data, Path(item)).shape
        return Facts(digest=hashlib.sha256(data).hexdigest(), size=(H, W))
    except UserError as error:
        return error


def _read(place: Path, kind: type[S]) -> S | None:
    """What is in a file of the memory; None where it is missing, damaged or of another version."""
    try:
        if is_kept(place, "the files of the data set are checked again"):
            return msgspec.json.decode(place.read_bytes(), type=kind)
    except (OSError, ValueError, RecursionError):
        pass
    return None
