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


def window_max(values: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """The largest value in the square of 2 radius + 1 pixels around each pixel, cut off at the image's border.

    Each axis takes log2(2 radius + 1) passes: windows of doubled width are maxima of two narrower ones.
    """
    return _along_rows(np.ascontiguousarray(_along_rows(values, radius).T), radius).T


def _along_rows(values: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """The maximum over windows along the first axis."""
    length, width = len(values), 2 * radius + 1
    padded = np.zeros((length + 2 * radius, values.shape[1]), np.uint8)  # 0 never exceeds a value
    padded[radius : radius + length] = values
    span = 1
    while 2 * span <= width:
        padded = np.maximum(padded[:-span], padded[span:])
        span *= 2
    return np.maximum(padded[:length], padded[width - span : width - span + length])
