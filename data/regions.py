"""Regions as COCO writes them, polygons and run lengths, to pixels.

The result is that of the reference implementation, pixel for pixel (see the tests): a polygon is traced on a
grid five times as fine, and a pixel belongs to it where the traced outline says so. Both encodings count down
the columns, so regions are stored column by column (Fortran order).
Source of both: the COCO API, https://github.com/cocodataset/cocoapi (common/maskApi.c).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Region = NDArray[np.bool_]

_FINE = 5  # the outline is traced on a grid this many times finer than the pixels


def polygon_region(points: NDArray[np.float64], size: tuple[int, int]) -> Region:
    """Fill one closed polygon by the even-odd rule.

    Args:
        points: float64 ``(n, 2)``, x and y of the corners, n >= 3; the outline closes itself.
        size: ``(H, W)`` of the image; what lies outside is cut off.

    Returns:
        bool ``(H, W)``.
    """
    H = size[0]
    region = np.zeros(size, dtype=np.bool_, order="F")
    columns, rows = _crossings(*_outline(points), size)
    if len(columns):  # a closed outline crosses each column an even number of times: the others stay empty
        left, right = int(columns.min()), int(columns.max()) + 1
        turns = np.zeros((right - left) * H + 1, np.uint8)
        np.bitwise_xor.at(turns, (columns - left) * H + rows, 1)
        inside = np.bitwise_xor.accumulate(turns[:-1], out=turns[:-1]).view(np.bool_)
        region[:, left:right] = inside.reshape(right - left, H).T
    return region


def run_length_region(counts: Sequence[int], size: tuple[int, int]) -> Region:
    """Fill runs that count down the columns: outside first, then inside, in turns.

    Args:
        counts: lengths of the runs, summing to H * W.
        size: ``(H, W)``.

    Returns:
        bool ``(H, W)``.

    Raises:
        ValueError: a negative length, or another sum.
    """
    H, W = size
    lengths = checked_counts(counts, size)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(W, H).T


def checked_counts(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.int64]:
    """Return run lengths as an array. Raises ValueError unless they are of the image's pixels."""
    H, W = size
    lengths = np.asarray(counts, dtype=np.int64).reshape(-1)
    if (lengths < 0).any() or lengths.sum() != H * W:
        raise ValueError(f"run lengths sum to {lengths.sum()}, expected {H * W} ({W}x{H} pixels)")
    return lengths


def unpacked_counts(text: str) -> list[int]:
    """Decode COCO's compressed run lengths.

    Each number is written in groups of five bits, least significant first, one character (48 + group, and 32
    where more follow) each; from the fourth on it is the difference to the number two places before.

    Raises:
        ValueError: a character that cannot be in it, or an end inside a number.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"{character!r} is no character of compressed run lengths")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("the compressed run lengths end inside a number")
    return counts


def _outline(points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Trace the closed outline on the fine grid: x and y of its points, in order, edge after edge.

    Along an edge the longer axis moves by one; the other one is rounded. An edge is always computed from its
    smaller end, so that both directions give the same points.
    """
    corners = (_FINE * points + 0.5).astype(np.int64)  # towards zero, as a C cast
    ends = np.roll(corners, -1, axis=0)
    flat = abs(ends - corners)[:, 0] >= abs(ends - corners)[:, 1]
    long_start = np.where(flat, corners[:, 0], corners[:, 1])
    long_end = np.where(flat, ends[:, 0], ends[:, 1])
    short_start = np.where(flat, corners[:, 1], corners[:, 0])
    short_end = np.where(flat, ends[:, 1], ends[:, 0])
    back = long_start > long_end
    low = np.minimum(long_start, long_end)
    length: NDArray[np.int64] = np.abs(long_end - long_start)
    base, rise = np.where(back, short_end, short_start), np.where(back, -1, 1) * (short_end - short_start)
    slope = rise / np.maximum(length, 1)
    edge = np.repeat(np.arange(len(points)), length + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(back[edge], length[edge] - step, step)
    along = low[edge] + step
    across = (base[edge] + slope[edge] * step + 0.5).astype(np.int64)
    return np.where(flat[edge], along, across), np.where(flat[edge], across, along)


def _crossings(
    x: NDArray[np.int64], y: NDArray[np.int64], size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the outline crosses the middle of a pixel column: the column, and the first row below, 0..H."""
    H, W = size
    moved = np.flatnonzero(x[1:] != x[:-1]) + 1
    column = (np.minimum(x[moved], x[moved - 1]) + 0.5) / _FINE - 0.5
    row = np.ceil(np.clip((np.minimum(y[moved], y[moved - 1]) + 0.5) / _FINE - 0.5, 0, H))
    counts = (np.floor(column) == column) & (column >= 0) & (column <= W - 1)
    return column[counts].astype(np.int64), row[counts].astype(np.int64)
