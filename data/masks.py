"""Where the labels of an image come from.

A mask is a small value that knows its place on disk and reads itself when asked: samples stay light, travel
to worker processes, and what a data set calls its labels is turned into ours in one place.
"""

import hashlib
import zlib
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np

from data.images import UInt8, decode_mask, read_bytes
from wsss.errors import UserError

_LARGEST_MATLAB = 1 << 26  # bytes of a MATLAB file, unpacked


class Facts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one file, or one mask inside a larger file, holds.

    Attributes:
        digest: sha256 of its bytes, hexadecimal.
        size: ``(H, W)`` once upright.
        labels: the sorted values of a mask; empty for an image.
    """

    digest: str
    size: tuple[int, int]
    labels: tuple[int, ...] = ()


class Mask(msgspec.Struct, frozen=True, gc=False):
    """The labels of one image, not read yet: in a file of their own, unless a kind of mask says otherwise.

    Attributes:
        file: the file that holds it; as long as its length and time of change stay, so do the facts.
    """

    file: Path

    @property
    def part(self) -> str:
        """Which part of the file, or which reading of it; empty for the whole file as it is."""
        return ""

    def read(self) -> UInt8:
        """Return the labels: uint8 ``(H, W)``, 0 background, c + 1 class c, 255 ignored.

        Raises:
            UserError: the file cannot be used.
        """
        return self._labels(read_bytes(self.file))

    def examine(self) -> Facts:
        """Check all that `read` relies on, and say what was found. Raises UserError as `read` does."""
        data = read_bytes(self.file)
        labels = self._labels(data)
        values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
        digest = hashlib.sha256(self._reading() + data).hexdigest()
        return Facts(digest=digest, size=(labels.shape[0], labels.shape[1]), labels=tuple(values))

    def _labels(self, data: bytes) -> UInt8:
        """The labels in the file's bytes."""
        raise NotImplementedError

    def _reading(self) -> bytes:
        """What besides the file decides the labels."""
        return b""

    def __str__(self) -> str:
        return str(self.file)


class PngMask(Mask, frozen=True, gc=False):
    """A palette or gray PNG whose values are the labels."""

    def _labels(self, data: bytes) -> UInt8:
        return decode_mask(data, self.file)


class TranslatedPng(Mask, frozen=True, gc=False):
    """An index PNG with values of its own, each of which stands for one of our labels.

    Attributes:
        table: the label of each of the 256 values.
    """

    table: bytes

    @property
    def part(self) -> str:
        """Another table is another mask."""
        return hashlib.sha256(self.table).hexdigest()[:12]

    def _labels(self, data: bytes) -> UInt8:
        return np.frombuffer(self.table, np.uint8)[decode_mask(data, self.file)]

    def _reading(self) -> bytes:
        return self.table


class SbdMask(Mask, frozen=True, gc=False):
    """A mask of the Semantic Boundaries Dataset as published: a MATLAB file with 0 background, 1..20 the VOC classes.

    Source: Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011;
    http://home.bharathh.info/pubs/codes/SBD/download.html
    """

    def _labels(self, data: bytes) -> UInt8:
        from scipy.io import loadmat  # takes a quarter of a second, and few need it

        try:
            _refuse_damaged_matlab(data)
            labels: UInt8 = loadmat(BytesIO(data), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
            if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
                raise ValueError(f"{labels.dtype} of shape {labels.shape}")
        except Exception as error:  # on damaged files loadmat raises almost anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{self.file}: no class segmentation of SBD ({reason}). Expected GTcls.Segmentation, one byte per "
                "pixel: use the files of benchmark_RELEASE/dataset/cls."
            ) from error
        return np.ascontiguousarray(labels)


def _refuse_damaged_matlab(data: bytes) -> None:
    """Raise ValueError if a compressed file is not as written: loadmat may crash before it sees the checksum."""
    if data[128:132] == b"\x0f\0\0\0":
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(data[136:], _LARGEST_MATLAB)
        if not unpacking.eof:
            raise ValueError("cut off, or too large")
    if len(data) > _LARGEST_MATLAB:
        raise ValueError("too large")
