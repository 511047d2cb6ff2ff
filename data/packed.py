"""A file of long columns, numbers and short texts, that is either whole or refused."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.files import atomic_path

Int64 = NDArray[np.int64]
_MAGIC = b"columns1"
_NUMBER = 8


@dataclass(frozen=True)
class Packed:
    """What such a file holds.

    Attributes:
        head: any JSON object.
        numbers: int64 arrays of any shape, by name.
        texts: by name, lists of texts without line ends.
    """

    head: Mapping[str, Any]
    numbers: Mapping[str, Int64]
    texts: Mapping[str, Sequence[str]]


def write_packed(path: Path, packed: Packed) -> None:
    """Replace the file in one step: a reader never sees half of it.

    Raises:
        OSError: not possible; the file is then as it was.
        ValueError: a text with a line end in it.
    """
    texts = {name: "\n".join(column).encode() for name, column in packed.texts.items()}
    for name, column in packed.texts.items():
        if texts[name].count(b"\n") != max(len(column) - 1, 0):
            raise ValueError(f"{name}: a line end in a text")
    contents = {
        "head": packed.head,
        "numbers": {name: array.shape for name, array in packed.numbers.items()},
        "texts": {name: (len(packed.texts[name]), len(text)) for name, text in texts.items()},
    }
    parts = [_aligned(json.dumps(contents).encode())]
    parts += [np.ascontiguousarray(array, np.int64).tobytes() for array in packed.numbers.values()]
    parts += texts.values()
    parts.insert(0, len(parts[0]).to_bytes(_NUMBER, "little"))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with atomic_path(path) as draft, draft.open("wb") as file:
        file.writelines([_MAGIC, digest.digest(), *parts])
        file.flush()


def read_packed(path: Path) -> Packed:
    """Read a file of `write_packed`; arrays share one buffer and are read-only.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, cut off or something else.
    """
    data = memoryview(path.read_bytes())
    start = len(_MAGIC) + hashlib.sha256().digest_size
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
        raise ValueError(f"{path}: damaged, or no file of columns")
    place = start + _NUMBER + int.from_bytes(data[start : start + _NUMBER], "little")
    contents = json.loads(bytes(data[start + _NUMBER : place]))
    numbers, texts = {}, {}
    for name, shape in contents["numbers"].items():
        count = int(np.prod(shape, dtype=np.int64))
        numbers[name] = np.frombuffer(data, np.int64, count, place).reshape(shape)
        place += _NUMBER * count
    for name, (count, length) in contents["texts"].items():
        texts[name] = str(data[place : place + length], "utf-8").split("\n") if count else []
        place += length
    return Packed(contents["head"], numbers, texts)


def _aligned(text: bytes) -> bytes:
    """Fill up with spaces, so that the numbers behind lie at whole multiples of their size."""
    return text + b" " * (-len(text) % _NUMBER)
