"""The seed at every background score, in one pass over the images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsss import IGNORE
from wsss.metrics.confusion import label_pixels
from wsss.metrics.counting import Counts
from wsss.metrics.steps import Steps

THRESHOLDS: tuple[float, ...] = tuple(round(0.01 * step, 2) for step in range(1, 100))
"""The background scores of a seed's sweep."""


def seed_labels(
    cams: NDArray[np.floating], classes: NDArray[np.integer], threshold: float
) -> NDArray[np.uint8]:
    """The seed: each pixel's strongest class where its CAM reaches the threshold, else background.

    Args:
        cams: (K, H, W) in [0, 1]; K may be 0.
        classes: (K,) classes 0..C-1 of the maps.
        threshold: the background score.

    Returns:
        (H, W) uint8 labels 0..C.
    """
    return reaching(*strongest_labels(cams, classes), threshold)


def reaching(label: NDArray[np.uint8], value: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """The seed (H, W) of what `strongest_labels` finds."""
    return np.where(value >= np.float32(threshold), label, np.uint8(0))


def strongest_labels(
    cams: NDArray[np.floating], classes: NDArray[np.integer]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(H, W) uint8 label 1..C of each pixel's strongest class (the first of equals), and its value; 0 without maps."""
    label = np.zeros(cams.shape[1:], np.uint8)
    value = np.zeros(cams.shape[1:], np.float32)
    for index, (single, tag) in enumerate(zip(cams, classes, strict=True)):
        # A running maximum: argmax over an axis of two or three takes ten times as long.
        stronger = single > value if index else np.ones(label.shape, bool)
        np.copyto(label, np.uint8(tag + 1), where=stronger)
        np.copyto(value, single, where=stronger, casting="same_kind")
    return label, value


class SeedCounts:
    """What the IoUs of the seed are made of, at every threshold; int64.

    Counting pixels by label and by the number of thresholds that their strongest CAM reaches gives all thresholds
    at once by cumulative sums.

    Args:
        labels: L.
        thresholds: T ascending background scores in (0, 1).
    """

    def __init__(self, labels: int, thresholds: Sequence[float] = THRESHOLDS) -> None:
        self._steps = Steps(thresholds)
        bins = len(thresholds) + 1
        self._truth: Counts = np.zeros(labels, np.int64)
        self._strongest: Counts = np.zeros(
            (labels, bins), np.int64
        )  # pixels whose strongest class is the label
        self._right: Counts = np.zeros((labels, bins), np.int64)  # those of them that are of that class
        self._background: Counts = np.zeros(bins, np.int64)  # pixels that are background

    def add(self, truth: NDArray[np.uint8], label: NDArray[np.uint8], value: NDArray[np.float32]) -> None:
        """Count one image.

        Args:
            truth: (H, W) labels or 255.
            label: (H, W) each pixel's strongest class, see `strongest_labels`.
            value: (H, W) float32 its CAM in [0, 1].
        """
        labels, bins = self._strongest.shape
        # Every pixel is of one kind: ignored or not, background or not, right or not. One count without
        # picking any out.
        kind = (truth == label) | (truth == 0) * np.uint8(2) | (truth == IGNORE) * np.uint8(4)
        cells = label * np.int32(bins) + self._steps.reached(value)
        counts = np.bincount((cells * np.int32(8) + kind).ravel(), minlength=labels * bins * 8)
        counted = counts.reshape(labels, bins, 2, 2, 2)[:, :, 0]  # (label, reached, background, right)
        self._truth += label_pixels(truth)[:labels]
        self._strongest += counted.sum((2, 3))
        self._right += counted[..., 1].sum(2)
        self._background += counted[:, :, 1].sum((0, 2))

    def merge(self, other: "SeedCounts") -> None:
        """Add what another one counted on other images."""
        self._truth += other._truth
        self._strongest += other._strongest
        self._right += other._right
        self._background += other._background

    def ious(self) -> NDArray[np.float64]:
        """(T, L) IoU of every label at every threshold; NaN where a label is in neither truth nor seed."""
        right, predicted = _reaching(self._right), _reaching(self._strongest)
        below = np.cumsum(self._strongest.sum(0))[:-1]
        right[0], predicted[0] = np.cumsum(self._background)[:-1], below
        either = self._truth[:, None] + predicted - right
        return np.where(either > 0, right / np.maximum(either, 1), np.nan).T

    def curve(self) -> list[float]:
        """mIoU at every threshold; NaN where nothing was counted."""
        ious = self.ious()
        known = np.isfinite(ious)
        counted = known.sum(axis=1)
        means = np.where(counted > 0, np.nansum(ious, axis=1) / np.maximum(counted, 1), np.nan)
        return [float(mean) for mean in means]


def _reaching(counts: Counts) -> Counts:
    """(L, T + 1) pixels by thresholds reached -> (L, T) pixels that reach each threshold."""
    return np.asarray(np.cumsum(counts[:, ::-1], axis=1)[:, ::-1][:, 1:], dtype=np.int64)
