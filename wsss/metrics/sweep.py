"""The seed at every background score, in one pass over the images."""

import numpy as np
from numpy.typing import NDArray

from wsss import IGNORE
from wsss.metrics.confusion import Counts, Labels, label_pixels, ratio

THRESHOLDS: tuple[float, ...] = tuple(round(0.01 * step, 2) for step in range(1, 100))
"""The T background scores of a seed's sweep."""
BINS = len(THRESHOLDS) + 1


def seed_labels(cams: NDArray[np.floating], classes: NDArray[np.integer], threshold: float) -> Labels:
    """The seed: each pixel's strongest class where its CAM reaches the threshold, else background.

    Args:
        cams: (K, H, W) in [0, 1]; K may be 0.
        classes: (K,) classes 0..C-1 of the maps.
        threshold: the background score.

    Returns:
        (H, W) uint8 labels 0..C.
    """
    return reaching(*strongest_labels(cams, classes), threshold)


def reaching(label: Labels, value: NDArray[np.float32], threshold: float) -> Labels:
    """The seed (H, W) of what `strongest_labels` finds."""
    return np.where(value >= np.float32(threshold), label, np.uint8(0))


def strongest_labels(
    cams: NDArray[np.floating], classes: NDArray[np.integer]
) -> tuple[Labels, NDArray[np.float32]]:
    """(H, W) each pixel's strongest class as label 1..C (the first of equals), and its CAM; 0 and -1 without maps."""
    label = np.zeros(cams.shape[1:], np.uint8)
    value = np.full(cams.shape[1:], -1, np.float32)
    for single, tag in zip(cams, classes, strict=True):
        stronger = single > value
        label[stronger] = tag + 1
        value[stronger] = single[stronger]
    return label, value


def sweep_counts(truth: Labels, label: Labels, value: NDArray[np.float32], labels: int) -> Counts:
    """What the IoUs of one image's seed are made of, at every threshold; summed over images before `sweep_ious`.

    Args:
        truth: (H, W) labels or 255.
        label: (H, W) each pixel's strongest class, see `strongest_labels`; ``value`` its CAM.
        labels: L.

    Returns:
        (T, L, 3) int64: pixels right, in the ground truth, in the seed.
    """
    reached = thresholds_reached(value)
    seed, right = (
        reaching_each(label[which], reached[which], labels) for which in (truth != IGNORE, truth == label)
    )
    true = label_pixels(truth)[:labels]
    seed[0] = true.sum() - seed[1:].sum(0)
    right[0] = true[0] - reaching_each(0, reached[truth == 0], 1)[0]
    return np.stack(np.broadcast_arrays(right.T, true, seed.T), axis=-1)


def sweep_ious(counts: NDArray[np.number]) -> NDArray[np.float64]:
    """(T, L, 3) -> (T, L) IoU of every label at every threshold; NaN where a label is in neither."""
    right, truth, seed = np.moveaxis(counts, -1, 0)
    return ratio(right, truth + seed - right)


def thresholds_reached(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many of THRESHOLDS each value reaches."""
    limits = np.asarray(THRESHOLDS, np.float32)
    return np.asarray(np.searchsorted(limits, values.astype(np.float32), side="right"))


def reaching_each(group: NDArray[np.integer] | int, reached: NDArray[np.int64], groups: int) -> Counts:
    """(P,) groups 0..G-1 of pixels and thresholds that they reach -> (G, T) pixels that reach each threshold."""
    counts = np.bincount(np.int64(group) * BINS + reached, minlength=groups * BINS).reshape(groups, BINS)
    return np.cumsum(counts[:, ::-1], axis=1)[:, -2::-1]
