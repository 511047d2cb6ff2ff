"""Run-length encodings of binary masks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BRUSH_SIZES = (3, 4, 8, 16)
"""Bits in which Label Studio's format writes a run's length, by the index that stands before it."""


def run_lengths(values: NDArray[np.bool_]) -> list[int]:
    """Lengths of alternating runs of a flat array, the first of them of False (perhaps 0)."""
    edges = np.flatnonzero(np.diff(values.astype(np.int8), prepend=0, append=2))
    return [int(length) for length in np.diff(edges, prepend=0)]


def coco_counts(mask: NDArray[np.bool_]) -> str:
    """COCO's compressed RLE: column by column, as ``counts`` of a segmentation.

    Each count (from the third on, its difference to the one before the last) is written in groups of 5 bits, low
    groups first, a sixth bit says that more follow, and 48 makes it a printable character.
    Source: maskApi.c of the COCO API (Lin et al.).

    Args:
        mask: (H, W) bool.
    """
    counts = run_lengths(mask.ravel(order="F"))
    characters = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            characters.append(chr(48 + (group | 32 * more)))
            if not more:
                break
    return "".join(characters)


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Label Studio's brush: the mask as an RGBA image of 0 and 255, packed by @thi.ng/rle-pack.

    Bits, high first: 32 number of values, 5 word size - 1, four times 4 a size of a run length - 1; then per run
    1 (a run of equal values), 2 the index of its size, its length - 1 in that size, 8 the value.

    Args:
        mask: (H, W) bool.

    Returns:
        The bytes as numbers 0..255.
    """
    bits = [f"{4 * mask.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in BRUSH_SIZES)]
    for index, length in enumerate(run_lengths(mask.ravel())):
        value = "1" * 8 if index % 2 else "0" * 8
        bits += [f"1{_length_bits(part)}{value}" for part in _parts(4 * length)]
    flat = np.frombuffer("".join(bits).encode(), dtype=np.uint8) - ord("0")
    packed: list[int] = np.packbits(flat).tolist()
    return packed


def _length_bits(length: int) -> str:
    """Index and length of a run, in the smallest size that holds it."""
    index = next(i for i, size in enumerate(BRUSH_SIZES) if length <= 1 << size)
    return f"{index:02b}{length - 1:0{BRUSH_SIZES[index]}b}"


def _parts(length: int) -> Sequence[int]:
    """A run cut into those of at most 2^16 values."""
    most = 1 << BRUSH_SIZES[-1]
    whole, rest = divmod(length, most)
    return [most] * whole + [rest] * (rest > 0)
