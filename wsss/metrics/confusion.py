"""Confusion matrices and their scores. Counters are int64; pixels that the ground truth ignores (255) never count.

``L = C + 1`` labels: 0 background, 1..C the classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss import IGNORE

Labels = NDArray[np.uint8]
Counts = NDArray[np.int64]

LABEL_COLUMNS = ("label", "right", "truth", "predicted", "band_right", "band_either")
"""Columns of `label_rows`: pixels right, in the ground truth, in the prediction; in both bands, in either."""


def label_pixels(labels: Labels) -> Counts:
    """(H, W) uint8 -> (256,) int64: pixels of every label."""
    return np.bincount(labels.ravel(), minlength=IGNORE + 1)


def confusion_counts(truth: Labels, prediction: Labels, labels: int) -> Counts:
    """Confusion matrix of one image.

    Args:
        truth: (H, W) labels 0..L-1, or 255: ignored.
        prediction: (H, W) labels 0..L-1, or 255: no decision.
        labels: L.

    Returns:
        (L, L + 1) int64, ``[t, p]`` pixels of label t predicted as p; the last column is "no decision".

    Raises:
        ValueError: the sizes differ, or a label is out of range.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"ground truth {truth.shape} and prediction {prediction.shape} differ in size")
    pairs = truth.astype(np.uint16) << 8 | prediction
    counts = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)[:IGNORE]
    present = np.flatnonzero(counts.any(1) | counts[:, :IGNORE].any(0))
    if present.size and present[-1] >= labels:
        raise ValueError(f"labels up to {present[-1]}, expected 0..{labels - 1} or {IGNORE}")
    return np.concatenate([counts[:labels, :labels], counts[:labels, IGNORE:]], axis=1)


@dataclass(frozen=True)
class MaskScores:
    """Scores of masks against ground truth, in [0, 1]; NaN where undefined.

    Attributes:
        miou: mean IoU over the labels that occur in either; undecided pixels count as false negatives.
        miou_sure: the same over decided pixels only; equals miou where every pixel is decided.
        iou: (L,) per label, undecided pixels counted as false negatives.
        precision: (L,).
        recall: (L,).
        accuracy: share of the ground truth's pixels with the right label.
        fwiou: frequency-weighted IoU: the labels' IoU, weighted by their share of the ground truth's pixels.
        undecided: share of the ground truth's pixels without a decision.
    """

    miou: float
    miou_sure: float
    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    accuracy: float
    fwiou: float
    undecided: float


def mask_scores(counts: Counts) -> MaskScores:
    """Scores of a confusion matrix (L, L + 1), summed over images."""
    decided, truth = counts[:, :-1], counts.sum(1)
    right, predicted, total = np.diagonal(decided), decided.sum(0), counts.sum()
    iou = ratio(right, truth + predicted - right)
    return MaskScores(
        miou=float(mean_defined(iou)),
        miou_sure=float(mean_defined(ratio(right, decided.sum(1) + predicted - right))),
        iou=iou,
        precision=ratio(right, predicted),
        recall=ratio(right, truth),
        accuracy=float(ratio(right.sum(), total)),
        fwiou=float(ratio(np.nansum(iou * truth), total)),
        undecided=float(ratio(counts[:, -1].sum(), total)),
    )


def label_rows(confusion: Counts, boundary: Counts) -> Counts:
    """(L, L + 1) and (L, 2) counts of one image -> (n, 6): LABEL_COLUMNS of each label that occurs in it.

    Rows hold counts, not scores, so that any score can be formed from any choice of images.
    """
    right, truth, predicted = np.diagonal(confusion), confusion.sum(1), confusion[:, :-1].sum(0)
    table = np.stack([np.arange(len(right)), right, truth, predicted, *boundary.T], axis=1)
    return np.asarray(table[truth + predicted > 0])


def image_miou(rows: Counts) -> float:
    """(n, 6) rows of one image -> mIoU over its labels; NaN without any."""
    return float(mean_defined(ratio(rows[:, 1], rows[:, 2] + rows[:, 3] - rows[:, 1])))


def ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """``part / whole``, broadcast; NaN where whole is 0."""
    whole = np.asarray(whole)
    return np.asarray(np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan))


def mean_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of the values that are not NaN; NaN where there is none."""
    return ratio(np.nansum(values, axis=-1), np.isfinite(values).sum(-1))
