"""Everything that is counted about masks against truth: sums over images, and one row per image.

The rows are what comparisons resample; they hold counts, not scores, so that any score can be formed from any
choice of images. A row takes a few hundred bytes, whatever the image's size.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsss import IGNORE
from wsss.metrics.boundary import Labels, boundary_counts
from wsss.metrics.confusion import confusion_counts
from wsss.metrics.counting import Counts
from wsss.metrics.failures import DEPTHS, SIZES, FailureCounts, failure_counts, no_failures

LABEL_COLUMNS = ("label", "right", "truth", "predicted", "band_right", "band_either")
"""Columns of a row's labels: pixels right, in the truth, in the prediction; in both bands, in either (Boundary IoU)."""

FAILURE_COLUMNS = (
    *(f"{what} {size}" for what in ("found", "pixels", "missed objects", "objects") for size in SIZES),
    *(f"{what} depth {depth}" for what in ("found", "pixels") for depth in DEPTHS),
    "found thin",
    "pixels thin",
    "mistaken",
    "pixels of large objects",
    "split",
    "large objects",
)
"""Columns of a row's failures, over all classes."""


@dataclass(frozen=True)
class Row:
    """Counts of one image.

    Attributes:
        labels: (n, 6) int64, LABEL_COLUMNS for each label in truth or prediction.
        failures: (32,) int64, FAILURE_COLUMNS.
    """

    labels: Counts
    failures: Counts


@dataclass
class Tally:
    """Counters over images; all int64, L labels.

    Attributes:
        confusion: (L, L + 1), see `confusion_counts`.
        boundary: (L, 2), see `boundary_counts`.
        failures: see `failure_counts`.
        ignored: pixels that the truth ignores, and all.
        rows: by image id.
    """

    confusion: Counts
    boundary: Counts
    failures: FailureCounts
    ignored: Counts
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def empty(cls, labels: int) -> "Tally":
        """All zero."""
        return cls(
            np.zeros((labels, labels + 1), np.int64),
            np.zeros((labels, 2), np.int64),
            no_failures(labels),
            np.zeros(2, np.int64),
        )

    @classmethod
    def of(cls, image_id: str, truth: Labels, prediction: Labels, labels: int) -> "Tally":
        """Count one image: (H, W) truth (255 ignored) and prediction (255 no decision)."""
        confusion = confusion_counts(truth, prediction, labels)
        boundary = boundary_counts(truth, prediction, labels)
        failures = failure_counts(truth, prediction, labels)
        ignored = np.array([np.count_nonzero(truth == IGNORE), truth.size], np.int64)
        row = Row(_label_rows(confusion, boundary), _failure_row(failures))
        return cls(confusion, boundary, failures, ignored, {image_id: row})

    def merge(self, other: "Tally") -> None:
        """Add what was counted about other images."""
        self.confusion += other.confusion
        self.boundary += other.boundary
        self.failures = self.failures + other.failures
        self.ignored += other.ignored
        self.rows |= other.rows


def image_ious(rows: Counts) -> NDArray[np.float64]:
    """(n, 6) label rows of one image -> (n,) IoU."""
    right, truth, predicted = rows[:, 1], rows[:, 2], rows[:, 3]
    return np.asarray(right / (truth + predicted - right), dtype=np.float64)


def _label_rows(confusion: Counts, boundary: Counts) -> Counts:
    truth, predicted = confusion.sum(1), confusion[:, :-1].sum(0)
    present = np.flatnonzero(truth + predicted)
    table = [
        present,
        np.diagonal(confusion)[present],
        truth[present],
        predicted[present],
        *boundary[present].T,
    ]
    return np.stack(table, axis=1)


def _failure_row(failures: FailureCounts) -> Counts:
    size, objects, depth = (getattr(failures, name).sum(0).T for name in ("by_size", "objects", "by_depth"))
    return np.concatenate(
        [
            size.ravel(),
            objects.ravel(),
            depth.ravel(),
            failures.thin.sum(0),
            [failures.mistaken.sum(), failures.large.sum()],
            failures.split.sum(0),
        ]
    )
