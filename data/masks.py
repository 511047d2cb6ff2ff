"""Where the labels of an image come from.

A mask is a small value that knows its place on disk and reads itself when asked: samples stay light, travel
to worker processes, and what a data set calls its labels is turned into ours in one place.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from data.images import UInt8, decode_mask, read_bytes

__all__ = ["Facts", "Mask", "PngMask", "TranslatedPng", "facts_of"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one file, or one mask inside a larger file, holds.

    Attributes:
        digest: sha256 of its bytes, hexadecimal.
        size: ``(H, W)`` once upright.
        labels: the sorted values of a mask; empty for a photograph.
    """

    digest: str
    size: tuple[int, int]
    labels: tuple[int, ...]


class Mask(Protocol):
    """The labels of one image, not read yet. Frozen, hashable and picklable; printed, it names its place."""

    @property
    def file(self) -> Path:
        """The file that holds it: as long as its length and time of change stay, so do the facts."""

    @property
    def part(self) -> str:
        """Which part of the file, or which reading of it; empty for the whole file as it is."""

    def read(self) -> UInt8:
        """Return the labels: uint8 ``(H, W)``, 0 background, c + 1 class c, 255 ignored.

        Raises:
            UserError: the file cannot be used.
        """

    def examine(self) -> Facts:
        """Check all that `read` relies on, and say what was found. Raises UserError as `read` does."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class PngMask:
    """A palette or gray PNG whose values are the labels.

    Attributes:
        file: the PNG.
    """

    file: Path

    @property
    def part(self) -> str:
        """The whole file."""
        return ""

    def read(self) -> UInt8:
        """Return the stored values."""
        return decode_mask(read_bytes(self.file), self.file)

    def examine(self) -> Facts:
        """Decode the file once."""
        data = read_bytes(self.file)
        return facts_of(decode_mask(data, self.file), data)

    def __str__(self) -> str:
        return str(self.file)


@dataclass(frozen=True)
class TranslatedPng:
    """An index PNG with values of its own, each of which stands for one of our labels.

    Attributes:
        file: the PNG.
        table: the label of each of the 256 values.
    """

    file: Path
    table: bytes

    @property
    def part(self) -> str:
        """Another table is another mask."""
        return hashlib.sha256(self.table).hexdigest()[:12]

    def read(self) -> UInt8:
        """Return the labels that the stored values stand for."""
        return self._translated(read_bytes(self.file))

    def examine(self) -> Facts:
        """Decode the file once; the digest covers the table too."""
        data = read_bytes(self.file)
        return facts_of(self._translated(data), self.table + data)

    def _translated(self, data: bytes) -> UInt8:
        return np.frombuffer(self.table, np.uint8)[decode_mask(data, self.file)]

    def __str__(self) -> str:
        return str(self.file)


def facts_of(labels: UInt8, *content: bytes) -> Facts:
    """Return the facts of a mask with these labels ``(H, W)``; the digest is that of ``content``."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    H, W = labels.shape
    return Facts(digest=digest.hexdigest(), size=(H, W), labels=_values(labels))


def _values(labels: UInt8) -> tuple[int, ...]:
    present: Iterable[int] = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
    return tuple(present)
