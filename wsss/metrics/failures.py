"""The two failures the method is about (Zhang et al., ICCV 2021, section 1), made countable.

**Object**: an 8-connected component of one class in the truth, of at least 10 pixels. Its size is its share of
the image's pixels: tiny below 1 %, small below 4 %, medium below 16 %, large from 16 % on (each step doubles
the linear size).

**Failure-1**, missed small objects and thin parts, by recall (share of truth pixels given their class):

- by the size of the object, and the share of objects *missed*: with fewer than 10 % of their pixels found;
- by depth, the Chebyshev distance to the nearest pixel of another label in steps of 0.5, 1, 2 and 4 % of the
  image's diagonal (the image's border is no boundary, as what it cuts off is unknown; the edge of an ignored region
  is one). In small images each step is at least a pixel more than the one before, see `depth_radii`;
- on thin parts: pixels of a class that its opening by a square of 2 r + 1 pixels removes, r being the second step.

**Failure-2**, a part of a large object given another class: of the pixels of each object of at least 4 % of the
image, the share that the prediction gives another class (not background), by which class; an object is *split*
where that share is between 5 % and a half: a part of it, as opposed to all of it, got another class.

Pixels that the truth ignores belong to no object. Depth and thin parts are of all pixels of a class, those of objects
below 10 pixels included.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

from wsss import IGNORE
from wsss.metrics.boundary import Labels, dilated, eroded, uniform
from wsss.metrics.counting import Counts, counted

MIN_OBJECT = 10
SIZES = ("tiny", "small", "medium", "large")
SIZE_STEPS = (0.01, 0.04, 0.16)
DEPTHS = ("up to 0.5 %", "0.5 to 1 %", "1 to 2 %", "2 to 4 %", "above 4 %")
DEPTH_STEPS = (0.005, 0.01, 0.02, 0.04)
THIN_STEP = 1
"""Index into DEPTH_STEPS of the radius that defines thin parts."""
MISSED = 0.1
LARGE = 0.04
SPLIT = (0.05, 0.5)


@dataclass(frozen=True)
class FailureCounts:
    """Counters of one image or of many; ``+`` adds them. All int64, L labels, row 0 (background) is zero.

    Attributes:
        by_size: (L, 4, 2) pixels found, and all, of objects by size.
        objects: (L, 4, 2) objects missed, and all, by size.
        by_depth: (L, 5, 2) pixels found, and all, by depth.
        thin: (L, 2) pixels found, and all, of thin parts.
        mistaken: (L, L) pixels of large objects [class, given class]; the diagonal and column 0 are zero.
        large: (L,) pixels of large objects.
        split: (L, 2) large objects that are split, and all.
    """

    by_size: Counts
    objects: Counts
    by_depth: Counts
    thin: Counts
    mistaken: Counts
    large: Counts
    split: Counts

    def __add__(self, other: "FailureCounts") -> "FailureCounts":
        return FailureCounts(
            *(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True))
        )


def no_failures(labels: int) -> FailureCounts:
    """Counters at zero."""
    shapes = [(4, 2), (4, 2), (5, 2), (2,), (labels,), (), (2,)]
    return FailureCounts(*(np.zeros((labels, *shape), np.int64) for shape in shapes))


def failure_counts(truth: Labels, prediction: Labels, labels: int) -> FailureCounts:
    """Count both failures in one image.

    Args:
        truth: (H, W) labels 0..L-1 or 255.
        prediction: (H, W) labels 0..L-1, or 255 (found nothing).
        labels: L; `confusion_counts` refuses labels outside it, this function relies on that.
    """
    foreground = (truth > 0) & (truth != IGNORE)
    found = foreground & (truth == prediction)
    depth, thin = _depth(truth)
    objects = _Objects(truth, foreground)
    by_size, missed = objects.recall(found, labels)
    mistaken, large, split = objects.mistakes(prediction, labels)
    by_depth, on_thin = _by_depth_and_thin(truth, depth, thin, found, labels)
    return FailureCounts(
        by_size=by_size,
        objects=missed,
        by_depth=by_depth,
        thin=on_thin,
        mistaken=mistaken,
        large=large,
        split=split,
    )


def depth_radii(height: int, width: int) -> list[int]:
    """The depth steps in pixels, each at least one more than the one before."""
    radii: list[int] = []
    for step in DEPTH_STEPS:
        lowest = radii[-1] + 1 if radii else 1
        radii.append(max(lowest, round(step * math.hypot(height, width))))
    return radii


def _depth(truth: Labels) -> tuple[Labels, NDArray[np.bool_]]:
    """(H, W) depth steps 0..4 reached, and thin parts."""
    radii = depth_radii(*truth.shape)
    core = uniform(truth, radii[0])
    depth = core.astype(np.uint8)
    thin = np.zeros(truth.shape, bool)
    for step, (before, radius) in enumerate(pairwise(radii), start=1):
        # Windows of the smaller radius that overlap and hold one label each hold the same one.
        core = eroded(core, radius - before)
        depth += core
        if step == THIN_STEP:
            # A core pixel's window holds its own label alone, so dilating the cores of all labels at once
            # cannot reach across a boundary: the result is the union of every label's opening.
            thin = ~dilated(core, radius)
    return depth, thin


class _Objects:
    """The truth's objects: their pixels, classes and sizes."""

    def __init__(self, truth: Labels, foreground: NDArray[np.bool_]) -> None:
        components: NDArray[np.int64] = connected_components(  # type: ignore[no-untyped-call]
            np.where(foreground, truth, 0), background=0, connectivity=2
        )
        self.component = components[foreground]  # (P,), P foreground pixels
        self.foreground = foreground
        self.area = np.bincount(self.component, minlength=1)
        self.label = np.zeros(len(self.area), np.int64)
        self.label[self.component] = truth[foreground]
        self.counted = self.area >= MIN_OBJECT
        self.share = self.area / truth.size

    def recall(self, found: NDArray[np.bool_], labels: int) -> tuple[Counts, Counts]:
        """Pixels found and all, objects missed and all: (L, 4, 2) each."""
        size = np.digitize(self.share, SIZE_STEPS)
        right = np.bincount(self.component[found[self.foreground]], minlength=len(self.area))
        pixels = np.zeros((labels, len(SIZES), 2), np.int64)
        objects = np.zeros_like(pixels)
        chosen = np.flatnonzero(self.counted)
        missed = (right < MISSED * self.area).astype(np.int64)
        for index, values in ((0, right), (1, self.area)):
            np.add.at(pixels[..., index], (self.label[chosen], size[chosen]), values[chosen])
        for index, values in ((0, missed), (1, np.ones_like(right))):
            np.add.at(objects[..., index], (self.label[chosen], size[chosen]), values[chosen])
        return pixels, objects

    def mistakes(self, prediction: Labels, labels: int) -> tuple[Counts, Counts, Counts]:
        """Pixels of large objects given another class (L, L), their pixels (L,), objects split and all (L, 2)."""
        given = prediction[self.foreground].astype(np.int64)
        mine = self.label[self.component]
        wrong = (given != mine) & (given != 0) & (given != IGNORE)
        is_large = self.counted & (self.share >= LARGE)
        large = np.flatnonzero(is_large)
        of_large = wrong & is_large[self.component]
        mistaken = np.bincount(mine[of_large] * labels + given[of_large], minlength=labels * labels).reshape(
            labels, labels
        )
        pixels, split = np.zeros(labels, np.int64), np.zeros((labels, 2), np.int64)
        np.add.at(pixels, self.label[large], self.area[large])
        share = np.bincount(self.component[wrong], minlength=len(self.area)) / np.maximum(self.area, 1)
        np.add.at(split[:, 0], self.label[large], (share[large] >= SPLIT[0]) & (share[large] <= SPLIT[1]))
        np.add.at(split[:, 1], self.label[large], 1)
        return mistaken, pixels, split


def _by_depth_and_thin(
    truth: Labels, depth: Labels, thin: NDArray[np.bool_], found: NDArray[np.bool_], labels: int
) -> tuple[Counts, Counts]:
    """(L, 5, 2) pixels found, and all, by label and depth; (L, 2) the same of thin parts. Row 0 is zero."""
    # Every pixel is one of 256 x 5 x 2 x 2 kinds: one count without picking any out.
    kinds = truth.astype(np.uint16) * np.uint16(4 * len(DEPTHS))
    kinds += depth * np.uint8(4) + thin * np.uint8(2) + found
    shape = (IGNORE + 1, len(DEPTHS), 2, 2)
    counts = counted(kinds, math.prod(shape)).reshape(shape)[:labels]
    counts[0] = 0
    pairs = np.stack([counts[..., 1], counts.sum(-1)], axis=-1)  # found, and all
    return pairs.sum(2), pairs[:, :, 1].sum(1)
