"""What artifacts need of HDF5: arrays and texts, written with checksums, read with distrust. The only importer of h5py.

Files come from interrupted machines and from other people, so nothing in them is believed: not the kind of an item, not
its size, not where it says that its content lies.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from wsss.store.files import OF_THE_MACHINE, require_room
from wsss.store.global_heap import never_ends

File: TypeAlias = h5py.File
Arrays: TypeAlias = Mapping[str, NDArray[Any]]

_FORMAT = "v110"
"""Files for HDF5 1.10 (2016) and later: a small array costs 300 bytes beside its content, not 2,500."""
_FAULTS = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
"""What h5py raises on damaged files."""
_RATIO = 1100
"""Deflate makes nothing smaller than by a factor of 1032."""
LARGEST = 1 << 33
"""Bytes of one array; a small file can claim to hold any number."""


class DamagedArtifactError(Exception):
    """A file under a final name that is not the artifact it should be. The message names file and reason."""


@contextlib.contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Raise DamagedArtifactError for what damage makes h5py raise in the block, OSError for the machine's faults."""
    try:
        yield
    except _FAULTS as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            raise OSError(error.errno, f"{what} ({os.strerror(error.errno)})") from None
        raise DamagedArtifactError(f"{what} ({error})") from None


def open_to_read(path: Path) -> File:
    """An existing file."""
    return File(path, "r")


def create(path: Path) -> File:
    """A new file; one that is there is overwritten."""
    return File(path, "w", libver=_FORMAT)


def put(file: File, name: str, array: NDArray[Any]) -> None:
    """One data set: a single checksummed chunk, compressed where that pays (integers and half precision)."""
    array = np.asarray(array)
    require_room(Path(file.filename), array.nbytes)
    if array.size == 0 or array.ndim == 0:
        file.create_dataset(name, data=array)  # HDF5 cannot chunk these
        return
    filters: dict[str, Any] = {"fletcher32": True, "chunks": array.shape}
    if array.dtype == np.float16:
        filters |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    elif array.dtype in (np.uint8, np.bool_) or array.dtype.kind == "S":
        filters |= {"compression": "gzip", "compression_opts": 4}
    file.create_dataset(name, data=array, **filters)


def put_text(file: File, key: str, value: str) -> None:
    """A text as an attribute of the file."""
    file.attrs[key] = _as_text([value])[0]


def put_texts(file: File, name: str, values: Sequence[str]) -> None:
    """Texts as a data set."""
    put(file, name, _as_text(values))


def read_array(file: File, name: str) -> NDArray[Any]:
    """An array of numbers. What is none, or would take more memory than it has bytes in the file, raises ValueError."""
    dataset = h5py.h5d.open(file.id, name.encode())
    kind, shape = dataset.dtype, _shape(dataset)
    if kind.kind not in "biuf":
        raise ValueError("not an array of numbers")
    array = np.empty(shape, kind)
    if array.size:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array


def read_text(file: File, key: str) -> str:
    """A text that is an attribute of the file. ValueError as of `read_texts`."""
    _refuse_unless_text(file.attrs.get_id(key).dtype, file)
    value = file.attrs[key]
    return value.decode() if isinstance(value, bytes) else str(value)


def read_texts(file: File, name: str) -> list[str]:
    """Texts that are a data set. ValueError where it holds none, or none that HDF5 could be made to read."""
    dataset = file[name]
    _refuse_unless_text(dataset.dtype, file)
    _shape(dataset.id)
    return [text.decode() for text in dataset[:].tolist()]


def arrays_of(file: File, name: str) -> list[str]:
    """The names of what a group holds, in stored order."""
    return list(file[name])


def all_arrays(file: File) -> list[str]:
    """The names of all data sets of a file, however deep."""
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def _shape(dataset: Any) -> tuple[int, ...]:
    """The shape of what may be read: not what lies in other files, not what a small file cannot hold."""
    shape, layout = dataset.shape, dataset.get_create_plist()
    if shape is None:
        raise ValueError("not an array")
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError("an array in another file")
    wanted, stored = math.prod(shape) * dataset.dtype.itemsize, dataset.get_storage_size()
    if wanted > LARGEST or wanted > _RATIO * stored:
        raise ValueError(f"{wanted:,} bytes unpacked from {stored:,}")
    return tuple(shape)


def _refuse_unless_text(kind: np.dtype[Any], file: File) -> None:
    """Texts of a fixed length, as they are written here; or of any length, as older versions wrote them."""
    if kind.kind not in "SO":
        raise ValueError("not a text")
    if kind.kind == "O" and (
        file.id.get_create_plist().get_sizes() != (8, 8) or never_ends(Path(file.filename))
    ):
        raise ValueError("a heap of texts that HDF5 would never have done with reading")


def _as_text(values: Sequence[str]) -> NDArray[np.bytes_]:
    """UTF-8 texts of one fixed length; see `wsss.store.global_heap` for why."""
    encoded = [value.encode() for value in values]
    longest = max([1, *(len(each) for each in encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", longest))
