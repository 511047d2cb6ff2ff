"""What an artifact is made of, and the fingerprint that follows from it.

Artifacts: one HDF5 file per stage and fingerprint, written atomically.

A file under its final name is complete: it is written under a temporary one, flushed, synced and renamed.
Stages that work image by image write immutable shards first and merge them, so a restart goes on after the
last whole shard. Shards and checkpoints end in a checksum of their own; that of an artifact is kept beside it.
The bytes of an artifact depend on its fingerprint alone: times and places of computation
are kept in the run's ``run.json``, so that "nothing changed" can be checked with ``sha256sum``.

Layout of a file: root attributes = the stamp (see `Stamp`), ``ids`` (UTF-8), and per image ``i`` (its
position in ``ids``) the data sets ``<field>/<i>``; networks are stored as ``<group>/<parameter name>``.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from wsss.runtime import distributed
from wsss.runtime.progress import Pace
from wsss.store import hdf5
from wsss.store.files import atomic_path, is_sealed, require_room, seal
from wsss.store.hdf5 import Arrays, DamagedArtifactError, damage_named
from wsss.store.json_files import canonical_json, parse_json

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What an artifact is and what it was made of: the material of its fingerprint."""

    stage: str
    version: int
    seed: int
    data: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    classes: tuple[str, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)

    @property
    def material(self) -> dict[str, Any]:
        """All that the fingerprint depends on, as plain JSON values."""
        return {
            "schema": SCHEMA,
            "stage": self.stage,
            "version": self.version,
            "seed": self.seed,
            "data": self.data,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
        }

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of sha256 over the material's canonical JSON."""
        return hashlib.sha256(canonical_json(self.material).encode()).hexdigest()[:16]


__all__ = ["Arrays", "Artifact", "DamagedArtifactError", "Stamp", "write_artifact", "write_sharded"]

SHARD_SIZE = 64
"""Images per shard: what an interruption can cost at most."""


def write_artifact(
    path: Path,
    stamp: Stamp,
    *,
    groups: Mapping[str, Arrays] | None = None,
    images: Iterable[tuple[str, Arrays]] = (),
    sealed: bool = False,
) -> None:
    """Write a whole artifact atomically.

    Args:
        path: final name.
        stamp: becomes the root attributes.
        groups: named arrays that belong to the whole (network weights, curves), ``{group: {name: array}}``.
        images: ``(id, {field: array})`` per image, in the order in which they are to be stored.
        sealed: append a checksum (see `wsss.store.files.seal`): for what is no final result.
    """
    with atomic_path(path) as temporary:
        with hdf5.create(temporary) as file:
            _write_stamp(file, stamp)
            _put_groups(file, groups or {})
            ids = []
            for index, (image_id, arrays) in enumerate(images):
                ids.append(image_id)
                for name, array in arrays.items():
                    hdf5.put(file, f"{name}/{index:06d}", array)
            hdf5.put_texts(file, "ids", ids)
        if sealed:
            seal(temporary)


def write_sharded(
    path: Path,
    stamp: Stamp,
    ids: Sequence[str],
    produce: Callable[[Sequence[str]], Iterator[Arrays]],
    *,
    groups: Mapping[str, Arrays] | None = None,
    done: Callable[[int], object] = lambda _: None,
    shard_size: int = SHARD_SIZE,
) -> None:
    """Compute and write an artifact image by image, so that an interruption costs at most one shard.

    With several processes every one of them computes its own shards, and the leader puts them together.

    Args:
        path: final name; shards live in ``<path>.parts/`` until the merge.
        stamp: becomes the root attributes of every shard and of the artifact.
        ids: all images, in order.
        produce: given some ids, yields one ``{field: array}`` per id, in their order.
        groups: as in `write_artifact`.
        done: told the number of images finished, also those found finished from an earlier try; those of the
            other processes are taken to keep up.
        shard_size: images per shard.
    """
    parts = path.with_name(f"{path.name}.parts")
    starts = range(0, len(ids), shard_size)
    shards = [parts / f"{start:08d}.h5" for start in starts]
    told = Pace(len(ids), done)
    for start, shard in list(zip(starts, shards, strict=True))[distributed.rank() :: distributed.count()]:
        wanted = list(ids[start : start + shard_size])
        if _holds(shard, stamp.fingerprint, wanted):
            told(len(wanted))
        else:
            images = _reported(zip(wanted, produce(wanted), strict=True), told)
            write_artifact(shard, stamp, images=images, sealed=True)
    distributed.wait()
    if distributed.leads():
        _merge(path, stamp, shards, groups or {})
        shutil.rmtree(parts, ignore_errors=True)
    distributed.wait()


class Artifact:
    """A finished artifact, read lazily; safe to hand to worker processes (fork, forkserver or spawn).

    Args:
        path: the file.
        fingerprint: if given, must be the file's own.

    Raises:
        DamagedArtifactError: not HDF5, not an artifact, or of another fingerprint.
    """

    def __init__(self, path: Path, *, fingerprint: str | None = None) -> None:
        self.path = path
        self._file: hdf5.File | None = None
        self._pid = -1
        with damage_named(f"{path}: not a whole artifact"):
            self.stage, self.fingerprint, classes = (
                hdf5.read_text(self._open(), key) for key in ("stage", "fingerprint", "classes")
            )
            self.classes: tuple[str, ...] = tuple(parse_json(classes))
            self._open()["ids"]  # written last
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise DamagedArtifactError(f"{path}: holds {self.fingerprint}, not {fingerprint}")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """All images, in order."""
        with damage_named(f"{self.path}: ids cannot be read"):
            return tuple(hdf5.read_texts(self._open(), "ids"))

    @cached_property
    def _position(self) -> dict[str, int]:
        return {image_id: index for index, image_id in enumerate(self.ids)}

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._position

    def read(self, image_id: str, name: str) -> NDArray[Any]:
        """One image's array ``name``. Raises DamagedArtifactError when its checksum does not hold."""
        return self._read(f"{name}/{self._position[image_id]:06d}")

    def group(self, name: str) -> dict[str, NDArray[Any]]:
        """All arrays of a group, by name in stored order of names. Raises DamagedArtifactError."""
        with damage_named(f"{self.path}: {name} cannot be read"):
            keys = hdf5.arrays_of(self._open(), name)
        return {key: self._read(f"{name}/{key}") for key in keys}

    def check(self) -> None:
        """Read everything once. Raises DamagedArtifactError where a checksum does not hold."""
        _ = self.ids
        with damage_named(f"{self.path}: cannot be read"):
            found = hdf5.all_arrays(self._open())
        for name in found:
            if name != "ids":
                self._read(name)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_pid": -1}

    def _open(self) -> hdf5.File:
        # A handle inherited through fork shares its file offset with the parent: never use it.
        if self._file is None or self._pid != os.getpid():
            self._file = hdf5.open_to_read(self.path)
            self._pid = os.getpid()
        return self._file

    def _read(self, name: str) -> NDArray[Any]:
        with damage_named(f"{self.path}: {name} cannot be read"):
            return hdf5.read_array(self._open(), name)


def _write_stamp(file: hdf5.File, stamp: Stamp) -> None:
    for key, value in (asdict(stamp) | {"schema": SCHEMA, "fingerprint": stamp.fingerprint}).items():
        if isinstance(value, int):
            file.attrs[key] = value
        else:
            hdf5.put_text(file, key, value if isinstance(value, str) else canonical_json(value))


def _put_groups(file: hdf5.File, groups: Mapping[str, Arrays]) -> None:
    for group, arrays in groups.items():
        file.create_group(group)
        for name, array in arrays.items():
            hdf5.put(file, f"{group}/{name}", array)


def _holds(path: Path, fingerprint: str, ids: Sequence[str]) -> bool:
    if not path.exists() or not is_sealed(path):
        return False
    try:
        with contextlib.closing(Artifact(path, fingerprint=fingerprint)) as artifact:
            return artifact.ids == tuple(ids)
    except DamagedArtifactError:
        return False


def _reported(
    images: Iterable[tuple[str, Arrays]], done: Callable[[int], object]
) -> Iterator[tuple[str, Arrays]]:
    for image in images:
        yield image
        done(1)


def _merge(path: Path, stamp: Stamp, shards: Sequence[Path], groups: Mapping[str, Arrays]) -> None:
    """Copy all shards into one file without decompressing; positions are renumbered."""
    with atomic_path(path) as temporary, hdf5.create(temporary) as file:
        _write_stamp(file, stamp)
        _put_groups(file, groups)
        ids: list[str] = []
        for shard in shards:
            require_room(temporary, shard.stat().st_size)
            with hdf5.open_to_read(shard) as part:
                for name in sorted(key for key in part if key != "ids"):
                    group = file.require_group(name)
                    for key in part[name]:  # not every image has every field
                        part.copy(f"{name}/{key}", group, name=f"{len(ids) + int(key):06d}")
                ids += hdf5.read_texts(part, "ids")
        hdf5.put_texts(file, "ids", ids)
