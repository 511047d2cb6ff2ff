"""Extremes over square windows: what boundaries, depths and thin parts are made of."""

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]


def uniform(labels: Labels, radius: int) -> NDArray[np.bool_]:
    """Pixels whose whole window holds one label: further than ``radius`` from every other label.

    Distances are Chebyshev's (a window is a square of 2 radius + 1 pixels); the image's border is no boundary.

    Args:
        labels: (H, W) uint8.
        radius: in pixels, at least 0.

    Returns:
        (H, W) bool.
    """
    return np.asarray(window_max(labels, radius) == ~window_max(~labels, radius))


def dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """(H, W) bool: pixels with a pixel of the mask in their window of 2 radius + 1."""
    return window_max(mask.view(np.uint8), radius).view(np.bool_)


def eroded(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """(H, W) bool: pixels whose window of 2 radius + 1 is all in the mask; the image's border is no boundary."""
    return ~dilated(~mask, radius)


def window_max(values: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """The largest value in the square of 2 radius + 1 pixels around each pixel, cut off at the image's border.

    Each axis takes log2(2 radius + 1) passes: windows of doubled width are maxima of two narrower ones.
    """
    down = np.zeros((len(values) + 2 * radius, values.shape[1]), np.uint8)  # 0 never exceeds a value
    down[radius : radius + len(values)] = values
    across = np.zeros((len(values), values.shape[1] + 2 * radius), np.uint8)
    across[:, radius : radius + values.shape[1]] = _window_tops(down, radius)
    # Transposed this is a view whose rows lie apart: neighbours in memory are still compared with neighbours.
    return _window_tops(across.T, radius).T


def _window_tops(padded: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """(N + 2 radius, M) -> (N, M): the maximum of every 2 radius + 1 values that follow each other down a column."""
    length, width, span = len(padded) - 2 * radius, 2 * radius + 1, 1
    while 2 * span <= width:
        padded = np.maximum(padded[:-span], padded[span:])
        span *= 2
    return np.maximum(padded[:length], padded[width - span : width - span + length])
