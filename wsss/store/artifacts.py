"""Artifacts: one immutable HDF5 file per stage, named by the fingerprint of what it was made of.

A file under its final name is complete, and its seal (see `wsss.store.files`) tells later damage. Stages that work
image by image write shards first and merge them, so that a restart goes on after the last whole shard. The bytes of an
artifact depend on its fingerprint alone: when and how fast it was computed is kept in a record beside it.

    <fingerprint>.h5               root attributes = the stamp, ``ids`` (UTF-8), and per image ``i`` (its position in
                                   ``ids``) the data sets ``<field>/<i>``; networks are ``<group>/<parameter name>``
    <fingerprint>.json             the record: seconds, time, software, material of the fingerprint
    <fingerprint>.h5.parts/        shards, while it is computed
    <fingerprint>.h5.checkpoint    of training, while it is computed
    <fingerprint>.h5.lock          held while it is computed

The only importer of h5py. Texts have fixed lengths: HDF5 2.0 never returns from some damaged heaps of texts of variable
length. A file of somebody else's is believed in nothing: not kinds, not sizes, not where content is said to lie.
"""

import contextlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from wsss.runtime import distributed
from wsss.store.files import (
    atomic_path,
    canonical_json,
    digest_of,
    exclusive,
    is_sealed,
    is_temporary,
    parse_json,
    require_room,
    seal,
)

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Groups: TypeAlias = Mapping[str, Arrays]

SCHEMA = 2
SHARD_SIZE = 64
"""Images per shard: what an interruption can cost at most."""
_LARGEST = 1 << 33  # bytes of one array; a small file can claim to hold any number
_DEFLATE = 1100  # what is unpacked is at most 1,032 times as large
_FORMAT = "v110"  # of HDF5 1.10 (2016): a small array costs 300 bytes beside its content, not 2,500


class DamagedArtifactError(Exception):
    """A file under a final name that is not the artifact it should be. The message names file and reason."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What an artifact is and what it was made of; the fingerprint follows from all but ``classes`` and ``software``.

    Attributes:
        data: digest of the part of the data that the stage may see.
        config: the stage's section.
        inputs: fingerprints by stage.
        precision: in which its networks compute, ``fp32`` or ``bf16``; empty for a stage without any.
        classes: C names.
        software: versions by package.
    """

    stage: str
    version: int
    seed: int
    data: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    precision: str = ""
    classes: tuple[str, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)

    @property
    def material(self) -> dict[str, Any]:
        """All that the fingerprint depends on, as plain JSON values."""
        parts = asdict(self)
        del parts["classes"], parts["software"]
        return {"schema": SCHEMA, **parts}

    @property
    def fingerprint(self) -> str:
        """16 hex digits."""
        return digest_of(self.material)


class Artifact:
    """A finished artifact, read lazily; safe to hand to spawned worker processes.

    Args:
        path: the file.
        fingerprint: if given, must be the file's own.

    Raises:
        DamagedArtifactError: not HDF5, not an artifact, or of another fingerprint.
    """

    def __init__(self, path: Path, *, fingerprint: str | None = None) -> None:
        self.path = path
        self._file: h5py.File | None = None
        with self._damage_named("not a whole artifact"):
            file = self._open()
            self.stage, self.fingerprint, classes = (
                _read_text(file, key) for key in ("stage", "fingerprint", "classes")
            )
            self.classes: tuple[str, ...] = tuple(parse_json(classes))
            file["ids"]  # written last
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise DamagedArtifactError(f"{path}: holds {self.fingerprint}, not {fingerprint}")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """All images, in order."""
        with self._damage_named("ids cannot be read"):
            dataset = self._open()["ids"]
            if dataset.dtype.kind != "S":
                raise ValueError("not texts of fixed length")
            _shape(dataset.id)
            return tuple(text.decode() for text in dataset[:].tolist())

    @cached_property
    def _position(self) -> dict[str, int]:
        return {image_id: index for index, image_id in enumerate(self.ids)}

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._position

    def read(self, image_id: str, name: str) -> NDArray[Any]:
        """One image's array ``name``. Raises DamagedArtifactError where there is none that can be read."""
        return self._read(f"{name}/{self._position[image_id]:06d}")

    def group(self, name: str) -> dict[str, NDArray[Any]]:
        """All arrays of a group, by name in stored order of names. Raises DamagedArtifactError."""
        with self._damage_named(f"{name} cannot be read"):
            keys = list(self._open()[name])
        return {key: self._read(f"{name}/{key}") for key in keys}

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _open(self) -> h5py.File:
        if self._file is None:
            # No locks: a file under its final name never changes, and some file systems have none.
            self._file = h5py.File(self.path, "r", locking=False)
        return self._file

    def _read(self, name: str) -> NDArray[Any]:
        """An array of numbers."""
        with self._damage_named(f"{name} cannot be read"):
            dataset = h5py.h5d.open(self._open().id, name.encode())
            if dataset.dtype.kind not in "biuf":
                raise ValueError("not an array of numbers")
            array = np.empty(_shape(dataset), dataset.dtype)
            if array.size:
                dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
            return array

    @contextlib.contextmanager
    def _damage_named(self, what: str) -> Iterator[None]:
        """Raise DamagedArtifactError for what damage makes h5py raise."""
        try:
            yield
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # of the system, which could not open a file that may be whole
            raise DamagedArtifactError(f"{self.path}: {what} ({error})") from None


def verify(path: Path, fingerprint: str) -> None:
    """Make sure that a file is the artifact that was written.

    Raises:
        DamagedArtifactError: it is not; the message names it and the reason.
    """
    if not is_sealed(path):
        raise DamagedArtifactError(
            f"{path}: it has changed since it was written (its checksum does not hold)"
        )
    Artifact(path, fingerprint=fingerprint).close()


def write_artifact(
    path: Path,
    stamp: Stamp,
    *,
    groups: Groups | None = None,
    images: Iterable[tuple[str, Arrays]] = (),
    done: Callable[[int], object] = lambda _: None,
) -> None:
    """Write a whole artifact atomically.

    Args:
        path: final name.
        stamp: becomes the root attributes.
        groups: arrays that belong to the whole (network weights, a threshold), ``{group: {name: array}}``.
        images: ``(id, {field: array})`` per image, in the order in which they are to be stored.
        done: told 1 after each image.
    """
    with _writing(path, stamp, groups or {}) as (file, ids):
        for index, (image_id, arrays) in enumerate(images):
            ids.append(image_id)
            for name, array in arrays.items():
                _put(file, f"{name}/{index:06d}", array)
            done(1)


def write_sharded(
    path: Path,
    stamp: Stamp,
    ids: Sequence[str],
    produce: Callable[[Sequence[str]], Iterator[Arrays]],
    *,
    groups: Callable[[Sequence[Artifact]], Groups] = lambda _: {},
    done: Callable[[int], object] = lambda _: None,
    shard_size: int = SHARD_SIZE,
) -> None:
    """Compute and write an artifact image by image, so that an interruption costs at most one shard.

    With several processes every one of them computes its own shards, and the leader merges them.

    Args:
        path: final name.
        stamp: becomes the root attributes of every shard and of the artifact.
        ids: all images, in order.
        produce: given some ids, yields one ``{field: array}`` per id, in their order.
        groups: given all shards, in order, makes the groups of `write_artifact`.
        done: told numbers of finished images, also of an earlier try; other processes are taken to keep up.
        shard_size: images per shard.
    """
    processes, own = distributed.count(), 0

    def tell(finished: int) -> None:
        nonlocal own
        before, own = own, own + finished
        done(min(len(ids), own * processes) - min(len(ids), before * processes))

    shards = {start: parts_of(path) / f"{start:08d}.h5" for start in range(0, len(ids), shard_size)}
    for start, shard in list(shards.items())[distributed.rank() :: processes]:
        wanted = ids[start : start + shard_size]
        if _holds(shard, stamp.fingerprint, wanted):
            tell(len(wanted))
        else:
            write_artifact(shard, stamp, images=zip(wanted, produce(wanted), strict=True), done=tell)
    distributed.wait()
    if distributed.leads():
        parts = [Artifact(shard) for shard in shards.values()]
        _merge(path, stamp, parts, groups(parts))
        shutil.rmtree(parts_of(path), ignore_errors=True)
    distributed.wait()


def record_of(artifact: Path) -> Path:
    """The record beside an artifact: how it was computed."""
    return artifact.with_suffix(".json")


def read_record(artifact: Path) -> dict[str, Any]:
    """An artifact's record; empty where there is none that can be read."""
    try:
        record = parse_json(record_of(artifact).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def parts_of(artifact: Path) -> Path:
    """The folder of an artifact's shards."""
    return artifact.with_name(f"{artifact.name}.parts")


def checkpoint_of(artifact: Path) -> Path:
    """Where the training that ends in an artifact keeps its state between tries."""
    return artifact.with_name(f"{artifact.name}.checkpoint")


def remove_leftovers(artifact: Path) -> None:
    """Remove what a killed computation of an artifact left half written. Its lock must be held."""
    for path in (*artifact.parent.glob(f"{artifact.stem}.*"), *parts_of(artifact).glob("*")):
        if is_temporary(path):
            path.unlink(missing_ok=True)
    if artifact.exists():
        shutil.rmtree(parts_of(artifact), ignore_errors=True)


def tidy(artifact: Path) -> None:
    """Remove what a process that died in its last moments left beside a finished artifact.

    Where another process computes that artifact again, nothing is touched.
    """
    lock = artifact.with_name(f"{artifact.name}.lock")
    if any(path.exists() for path in (lock, checkpoint_of(artifact), parts_of(artifact))):
        with contextlib.suppress(BlockingIOError), exclusive(artifact):
            remove_leftovers(artifact)
            checkpoint_of(artifact).unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path, stamp: Stamp, groups: Groups) -> Iterator[tuple[h5py.File, list[str]]]:
    """A new file, and the ids that it is to hold, which the block fills in; sealed and in its place at the end."""
    ids: list[str] = []
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", libver=_FORMAT, locking=False) as file:
            attributes = asdict(stamp) | {"schema": SCHEMA, "fingerprint": stamp.fingerprint}
            for key, value in attributes.items():
                text = value if isinstance(value, str) else canonical_json(value).decode()
                file.attrs[key] = value if isinstance(value, int) else _as_texts([text])[0]
            for group, arrays in groups.items():
                file.create_group(group)
                for name, array in arrays.items():
                    _put(file, f"{group}/{name}", array)
            yield file, ids
            _put(file, "ids", _as_texts(ids))
        seal(temporary)


def _merge(path: Path, stamp: Stamp, shards: Sequence[Artifact], groups: Groups) -> None:
    """Copy all shards into one file without decompressing; positions are renumbered. Closes the shards."""
    with _writing(path, stamp, groups) as (file, ids):
        for shard in shards:
            require_room(Path(file.filename), shard.path.stat().st_size)
            part = shard._open()
            for name in sorted(key for key in part if key != "ids"):
                group = file.require_group(name)
                for key in part[name]:  # not every image has every field
                    part.copy(f"{name}/{key}", group, name=f"{len(ids) + int(key):06d}")
            ids += shard.ids
            shard.close()


def _holds(shard: Path, fingerprint: str, ids: Sequence[str]) -> bool:
    try:
        verify(shard, fingerprint)
        with contextlib.closing(Artifact(shard)) as artifact:
            return artifact.ids == tuple(ids)
    except (FileNotFoundError, DamagedArtifactError):
        return False


def _put(file: h5py.File, name: str, array: NDArray[Any]) -> None:
    """One data set; compressed as a single chunk where that pays (integers, texts and half precision)."""
    array = np.asarray(array)
    require_room(Path(file.filename), array.nbytes)
    filters: dict[str, Any] = {}
    if array.size and array.ndim:  # HDF5 cannot chunk others
        if array.dtype == np.float16:
            filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "chunks": array.shape}
        elif array.dtype in (np.uint8, np.bool_) or array.dtype.kind == "S":
            filters = {"compression": "gzip", "compression_opts": 4, "chunks": array.shape}
    file.create_dataset(name, data=array, **filters)


def _as_texts(values: Sequence[str]) -> NDArray[np.bytes_]:
    """UTF-8 texts of one fixed length."""
    encoded = [value.encode() for value in values]
    longest = max([1, *(len(each) for each in encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", longest))


def _read_text(file: h5py.File, key: str) -> str:
    """An attribute of the file. ValueError where it is no text of fixed length."""
    if file.attrs.get_id(key).dtype.kind != "S":
        raise ValueError(f"{key} is not a text of fixed length")
    return bytes(file.attrs[key]).decode()


def _shape(dataset: Any) -> tuple[int, ...]:
    """The shape of what may be read: not what lies in other files, not what a small file cannot hold."""
    shape, layout = dataset.shape, dataset.get_create_plist()
    if shape is None:
        raise ValueError("not an array")
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError("an array in another file")
    wanted, stored = math.prod(shape) * dataset.dtype.itemsize, dataset.get_storage_size()
    if wanted > _LARGEST or wanted > _DEFLATE * stored:
        raise ValueError(f"{wanted:,} bytes unpacked from {stored:,}")
    return tuple(shape)
