"""Reading one array out of a MATLAB 5 file, without trusting the file: plain Python, every length checked.

SciPy's reader is compiled and crashes on some damaged files. Format: MATLAB's "MAT-File Format", version 5.

Masks of the Semantic Boundaries Dataset as published: MATLAB files, benchmark_RELEASE/dataset/cls/<id>.mat.

Source: Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011;
http://home.bharathh.info/pubs/codes/SBD/download.html
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.images import UInt8, read_bytes
from data.masks import Facts, facts_of
from wsss.errors import UserError

_HEADER = 128
_COMPRESSED, _MATRIX, _BYTES = 15, 14, 2
_STRUCT, _UINT8 = 2, 9
_LARGEST = 1 << 28  # bytes of an array, and what a compressed one may become

_Part = tuple[int, bytes]


def read_field(data: bytes, variable: str, field: str) -> NDArray[np.uint8]:
    """The uint8 array (H, W) in a field of a structure.

    Raises:
        ValueError: it is not there, is no matrix of bytes, or the file is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("not a MATLAB 5 file")
    for part in _parts(data[_HEADER:], order):
        kind, body = _unpacked(part, order)
        if kind == _MATRIX:
            array, _, name, rest = _matrix(body, order)
            if name == variable and array == _STRUCT:
                return _bytes(_field(rest, field, order), order)
    raise ValueError(f"no structure {variable}")


def _parts(data: bytes, order: str) -> Iterator[_Part]:
    """Type and content of one element after another; small ones hold both in eight bytes."""
    at = 0
    while at + 8 <= len(data):
        first, length = struct.unpack_from(f"{order}II", data, at)
        if first >> 16:
            yield first & 0xFFFF, data[at + 4 : at + 4 + min(first >> 16, 4)]
            at += 8
            continue
        if length > len(data) - at - 8:
            raise ValueError("cut off")
        yield first, data[at + 8 : at + 8 + length]
        at += 8 + (length if first == _COMPRESSED else length + -length % 8)


def _unpacked(part: _Part, order: str) -> _Part:
    if part[0] != _COMPRESSED:
        return part
    try:
        content = zlib.decompressobj().decompress(part[1], _LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return next(_parts(content, order), (0, b""))


def _matrix(body: bytes, order: str) -> tuple[int, tuple[int, ...], str, list[_Part]]:
    """Class, shape, name and further elements of a matrix."""
    parts = list(_parts(body, order))
    if len(parts) < 3 or len(parts[0][1]) < 4 or len(parts[1][1]) % 4:
        raise ValueError("a matrix without its head")
    shape = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    name = parts[2][1].decode("latin-1")
    return struct.unpack(f"{order}I", parts[0][1][:4])[0] & 0xFF, shape, name, parts[3:]


def _field(rest: list[_Part], field: str, order: str) -> bytes:
    """The matrix in a structure's field."""
    if len(rest) < 2 or len(rest[0][1]) != 4:
        raise ValueError("a structure without fields")
    length = struct.unpack(f"{order}i", rest[0][1])[0]
    if length < 1:
        raise ValueError("field names without length")
    text = rest[1][1]
    names = [text[at : at + length].split(b"\0")[0].decode("latin-1") for at in range(0, len(text), length)]
    if field not in names or len(rest) < 3 + names.index(field):
        raise ValueError(f"no field {field}")
    kind, body = rest[2 + names.index(field)]
    if kind != _MATRIX:
        raise ValueError(f"{field} is no matrix")
    return body


def _bytes(body: bytes, order: str) -> NDArray[np.uint8]:
    kind, shape, _, rest = _matrix(body, order)
    if kind != _UINT8 or len(shape) != 2 or min(shape) < 1 or not rest or rest[0][0] != _BYTES:
        raise ValueError(f"not a matrix of bytes, or an empty one ({'x'.join(map(str, shape))})")
    if shape[0] * shape[1] != len(rest[0][1]):
        raise ValueError(f"{len(rest[0][1])} values for {shape[0]}x{shape[1]}")
    return np.ascontiguousarray(np.frombuffer(rest[0][1], np.uint8).reshape(shape, order="F"))


@dataclass(frozen=True)
class SbdMask:
    """The field ``GTcls.Segmentation`` of a MATLAB file: 0 background, 1..20 the VOC classes.

    Attributes:
        file: the .mat file.
    """

    file: Path

    @property
    def part(self) -> str:
        """The whole file."""
        return ""

    def read(self) -> UInt8:
        """Return the segmentation."""
        return _segmentation(read_bytes(self.file), self.file)

    def examine(self) -> Facts:
        """Decode the file once."""
        data = read_bytes(self.file)
        return facts_of(_segmentation(data, self.file), data)

    def __str__(self) -> str:
        return str(self.file)


def _segmentation(data: bytes, file: Path) -> UInt8:
    try:
        return read_field(data, "GTcls", "Segmentation")
    except ValueError as error:
        raise UserError(
            f"{file}: no class segmentation of SBD ({error}). Expected GTcls.Segmentation, one byte per pixel: "
            "use the files of benchmark_RELEASE/dataset/cls."
        ) from error
