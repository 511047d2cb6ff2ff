"""Boundary IoU (Cheng, Girshick, Dollár, Berg, Kirillov; CVPR 2021, arXiv 2103.16562).

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

from wsss.metrics.confusion import IGNORE
from wsss.metrics.counting import Counts
from wsss.metrics.windows import Labels, uniform

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
