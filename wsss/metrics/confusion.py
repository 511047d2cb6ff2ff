"""What is right and what is wrong with masks. Counters are int64; 255 in the truth is never counted.

``L = C + 1`` labels: 0 background, 1..C the classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsss import IGNORE
from wsss.metrics.counting import Counts, counted


def label_pixels(labels: NDArray[np.uint8]) -> Counts:
    """(H, W) uint8 -> (256,) int64: pixels of every label."""
    return counted(labels, IGNORE + 1)


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
    # All pairs of bytes are counted: picking out the pixels that count would take longer than the counting.
    pairs = truth.astype(np.uint16) << 8 | prediction
    counts = counted(pairs, (IGNORE + 1) ** 2).reshape(IGNORE + 1, IGNORE + 1)[:IGNORE]
    rows, columns = np.flatnonzero(counts.any(1)), np.flatnonzero(counts[:, :IGNORE].any(0))
    highest = max(*rows[-1:].tolist(), *columns[-1:].tolist(), 0, 0)
    if highest >= labels:
        raise ValueError(f"labels up to {highest}, expected 0..{labels - 1} or {IGNORE}")
    return np.concatenate([counts[:labels, :labels], counts[:labels, IGNORE:]], axis=1)


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
        fwiou: frequency-weighted IoU: the labels' IoU, weighted by their share of the truth's pixels.
        undecided: share of truth pixels without a decision.
        images: number of images scored.
    """

    miou: float
    miou_sure: float
    iou: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    accuracy: float
    fwiou: float
    undecided: float
    images: int


def mask_scores(counts: Counts, images: int) -> MaskScores:
    """Scores of a summed confusion matrix (L, L + 1)."""
    decided = counts[:, :-1]
    right = np.diagonal(decided)
    total = counts.sum()
    iou = _iou(right, counts.sum(1), decided.sum(0))
    return MaskScores(
        miou=_mean(iou),
        miou_sure=_mean(_iou(right, decided.sum(1), decided.sum(0))),
        iou=iou,
        precision=_ratio(right, decided.sum(0)),
        recall=_ratio(right, counts.sum(1)),
        accuracy=float(_ratio(right.sum(), total)),
        fwiou=float(np.nansum(iou * counts.sum(1)) / total) if total else float("nan"),
        undecided=float(_ratio(counts[:, -1].sum(), total)),
        images=images,
    )


def _iou(right: Counts, truth: Counts, predicted: Counts) -> NDArray[np.float64]:
    return _ratio(right, truth + predicted - right)


def _ratio(part: Counts, whole: Counts) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(part, whole, where=whole > 0, out=np.full(np.shape(whole), np.nan)))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
