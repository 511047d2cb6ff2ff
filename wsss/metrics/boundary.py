"""Boundary IoU (Cheng, Girshick, Dollár, Berg, Kirillov; CVPR 2021, arXiv 2103.16562).

A label's *band* is the part of its mask within ``d`` pixels of the mask's contour, the image's border being part of
the contour, with d = 2 % of the image's diagonal. Boundary IoU is the IoU of the two bands: unlike mask IoU
it does not grow with the object's size. As in the authors' code distance is counted by erosions with a
3x3 square. Pixels that the ground truth ignores are not counted, and are taken to be what the prediction says when the
ground truth's bands are formed: where an ignored seam hides a contour (VOC draws one around every object), a
prediction that is right everywhere else still scores 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from wsss import IGNORE
from wsss.metrics.confusion import Counts, Labels, label_pixels

BAND = 0.02
"""Width of the band as a share of the image's diagonal."""


def boundary_counts(truth: Labels, prediction: Labels, labels: int) -> Counts:
    """(H, W) labels 0..L-1 or 255 -> (L, 2) int64: pixels in both bands of every label, and in either."""
    d = band_width(*truth.shape)
    counted = truth != IGNORE
    in_truth = _band(np.where(counted, truth, prediction), d) & counted
    in_prediction = _band(prediction, d) & counted
    both = label_pixels(truth[in_truth & in_prediction & (truth == prediction)])
    either = label_pixels(truth[in_truth]) + label_pixels(prediction[in_prediction]) - both
    return np.stack([both, either], axis=1)[:labels]


def band_width(height: int, width: int) -> int:
    """d in pixels: 2 % of the diagonal, rounded, at least 1."""
    return max(1, round(BAND * math.hypot(height, width)))


def _band(labels: Labels, d: int) -> NDArray[np.bool_]:
    """Pixels within d of another label or of the outside of the image."""
    band = ~uniform(labels, d)
    band[:d] = band[-d:] = True
    band[:, :d] = band[:, -d:] = True
    return band


def uniform(labels: Labels, radius: int) -> NDArray[np.bool_]:
    """(H, W) bool: pixels whose square of 2 radius + 1 pixels holds one label, as far as it is in the image."""
    return np.asarray(window_max(labels, radius) == ~window_max(~labels, radius))


def window_max(values: Labels, radius: int) -> Labels:
    """(H, W): the largest value in the square of 2 radius + 1 pixels around each pixel, where it is in the image."""
    for _ in range(2):  # down the columns, then down those of the transposed image
        values = _column_max(np.pad(values, ((radius, radius), (0, 0))), 2 * radius + 1).T
    return values


def _column_max(values: Labels, width: int) -> Labels:
    """(N + width - 1, M) -> (N, M): the maximum of every ``width`` values that follow each other down a column.

    Windows of doubled width are maxima of two narrower ones.
    """
    count, span = len(values) - width + 1, 1
    while 2 * span <= width:
        values = np.maximum(values[:-span], values[span:])
        span *= 2
    return np.maximum(values[:count], values[width - span : width - span + count])
