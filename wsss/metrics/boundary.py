"""Extremes over square windows: what boundaries, depths and thin parts are made of.

Boundary IoU (Cheng, Girshick, Dollár, Berg, Kirillov; CVPR 2021, arXiv 2103.16562).

A label's *band* is the part of its mask within ``d`` pixels of the mask's contour, the image's border being part of
the contour, with d = 2 % of the image's diagonal. Boundary IoU is the IoU of the two bands: unlike mask IoU
it does not grow with the object's size. As in the authors' code distance is counted by erosions with a
3x3 square. Pixels that the truth ignores are not counted, and are taken to be what the prediction says when the
truth's bands are formed: where an ignored seam hides a contour (VOC draws one around every object), a prediction
that is right everywhere else still scores 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from wsss import IGNORE
from wsss.metrics.counting import Counts

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


BAND = 0.02
"""Width of the band as a share of the image's diagonal."""


def band_width(height: int, width: int) -> int:
    """d in pixels: 2 % of the diagonal, rounded, at least 1."""
    return max(1, round(BAND * math.hypot(height, width)))


def boundary_counts(truth: Labels, prediction: Labels, labels: int) -> Counts:
    """Pixels in the bands of every label of one image.

    Args:
        truth: (H, W) labels 0..L-1 or 255.
        prediction: (H, W) labels 0..L-1 or 255.
        labels: L.

    Returns:
        (L, 2) int64: pixels in both bands, and in either.
    """
    d = band_width(*truth.shape)
    counted = truth != IGNORE
    truth_band = ~_inside(np.where(counted, truth, prediction), d) & counted
    predicted_band = ~_inside(prediction, d) & counted
    both = truth_band & predicted_band & (truth == prediction)
    shared = _count(truth[both], labels)
    either = _count(truth[truth_band], labels) + _count(prediction[predicted_band], labels) - shared
    return np.stack([shared, either], axis=1)


def _inside(labels: Labels, d: int) -> NDArray[np.bool_]:
    """Pixels further than d from every other label and from outside the image."""
    inside = uniform(labels, d)
    inside[:d] = inside[-d:] = False
    inside[:, :d] = inside[:, -d:] = False
    return inside


def _count(values: Labels, labels: int) -> Counts:
    return np.bincount(values, minlength=256)[:labels].astype(np.int64)
