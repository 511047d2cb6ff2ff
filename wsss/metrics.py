"""What is right and what is wrong with masks. Counters are int64; 255 in the truth is never counted.

``L = C + 1`` labels: 0 background, 1..C the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
THRESHOLDS: tuple[float, ...] = tuple(round(0.01 * step, 2) for step in range(1, 100))
"""The background scores of a seed's sweep."""

Counts = NDArray[np.int64]


def confusion_counts(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], labels: int) -> Counts:
    """Confusion matrix of one image.

    Args:
        truth: (H, W) labels 0..L-1, or 255: not counted.
        prediction: (H, W) labels 0..L-1, or 255: no decision.
        labels: L.

    Returns:
        (L, L + 1) int64, ``[t, p]`` pixels of truth t predicted p; the last column is "no decision".

    Raises:
        ValueError: the sizes differ, or a label is out of range.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in size")
    counted = truth != IGNORE
    rows = truth[counted].astype(np.int64)
    columns = prediction[counted].astype(np.int64)
    columns[columns == IGNORE] = labels
    if rows.size and (rows.max() >= labels or columns.max() > labels):
        raise ValueError(
            f"labels up to {max(rows.max(), columns.max())}, expected 0..{labels - 1} or {IGNORE}"
        )
    return np.bincount(rows * (labels + 1) + columns, minlength=labels * (labels + 1)).reshape(
        labels, labels + 1
    )


@dataclass(frozen=True)
class MaskScores:
    """Scores of masks against truth, in [0, 1]; NaN where undefined.

    Attributes:
        miou: mean IoU over the labels that occur in truth or prediction; undecided pixels count as missed.
        miou_sure: the same over decided pixels only; equals miou where every pixel is decided.
        iou: (L,) per label, undecided pixels counted as missed.
        precision: (L,).
        recall: (L,).
        accuracy: share of truth pixels labelled rightly.
        undecided: share of truth pixels without a decision.
        images: number of images scored.
    """

    miou: float
    miou_sure: float
    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    accuracy: float
    undecided: float
    images: int


def mask_scores(counts: Counts, images: int) -> MaskScores:
    """Scores of a summed confusion matrix (L, L + 1)."""
    decided = counts[:, :-1]
    right = np.diagonal(decided)
    total = counts.sum()
    return MaskScores(
        miou=_mean(_iou(right, counts.sum(1), decided.sum(0))),
        miou_sure=_mean(_iou(right, decided.sum(1), decided.sum(0))),
        iou=_iou(right, counts.sum(1), decided.sum(0)),
        precision=_ratio(right, decided.sum(0)),
        recall=_ratio(right, counts.sum(1)),
        accuracy=float(_ratio(right.sum(), total)),
        undecided=float(_ratio(counts[:, -1].sum(), total)),
        images=images,
    )


class SeedCounts:
    """Confusion of the seed (CAMs against a background score) at every threshold, in one pass.

    A pixel's label is its strongest class where that CAM reaches the threshold, else background. Counting
    pixels by (truth, strongest class, bin of its value) gives all thresholds at once by cumulative sums.

    Args:
        labels: L.
        thresholds: ascending background scores in (0, 1).
    """

    def __init__(self, labels: int, thresholds: Sequence[float] = THRESHOLDS) -> None:
        self.labels = labels
        self.thresholds = np.asarray(thresholds, dtype=np.float32)
        self.images = 0
        self._bins = np.zeros((labels, labels, len(thresholds) + 1), dtype=np.int64)

    def add(self, truth: NDArray[np.uint8], cams: NDArray[np.floating], classes: NDArray[np.integer]) -> None:
        """Count one image.

        Args:
            truth: (H, W) labels or 255.
            cams: (K, H, W) in [0, 1], on the truth's grid; K may be 0.
            classes: (K,) classes 0..C-1 of the maps.
        """
        self.images += 1
        counted = truth != IGNORE
        rows = truth[counted].astype(np.int64)
        if len(cams) == 0:
            strongest, values = np.zeros_like(rows), np.zeros(rows.shape, np.float32)
        else:
            strongest = classes.astype(np.int64)[cams.argmax(0)[counted]] + 1
            values = cams.max(0)[counted].astype(np.float32)
        reached = np.searchsorted(self.thresholds, values, side="right")  # thresholds <= value
        size = self._bins.shape
        flat = (rows * size[1] + strongest) * size[2] + reached
        self._bins += np.bincount(flat, minlength=self._bins.size).reshape(size)

    def confusion(self, index: int) -> Counts:
        """Confusion matrix (L, L + 1) at ``thresholds[index]``."""
        counts = np.zeros((self.labels, self.labels + 1), dtype=np.int64)
        counts[:, :-1] = self._bins[:, :, index + 1 :].sum(2)
        counts[:, 0] += self._bins[:, :, : index + 1].sum((1, 2))
        return counts

    def curve(self) -> list[float]:
        """mIoU at every threshold."""
        return [mask_scores(self.confusion(index), self.images).miou for index in range(len(self.thresholds))]


def _iou(right: Counts, truth: Counts, predicted: Counts) -> NDArray[np.float64]:
    return _ratio(right, truth + predicted - right)


def _ratio(part: Counts, whole: Counts) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(part, whole, where=whole > 0, out=np.full(np.shape(whole), np.nan)))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
