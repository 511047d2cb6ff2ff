"""The two failures the method is about (Zhang et al., ICCV 2021, section 1), made countable.

**Object**: an 8-connected component of one class in the ground truth, of at least 10 pixels. Its size is its share of
the image's pixels: tiny below 1 %, small below 4 %, medium below 16 %, large from 16 % on (each step doubles
the linear size).

**Failure-1**, missed small objects and thin parts, by recall (share of the ground truth's pixels given their class):

- by the size of the object, and the share of objects *missed*: with fewer than 10 % of their pixels found;
- by depth, the Chebyshev distance to the nearest pixel of another label in steps of 0.5, 1, 2 and 4 % of the
  image's diagonal, each at least a pixel more than the one before (the image's border is no boundary, as what it cuts
  off is unknown; the edge of an ignored region is one);
- on thin parts: pixels of a class that its opening by a square of 2 r + 1 pixels removes, r being the second step.

**Failure-2**, a part of a large object given another class: of the pixels of each object of at least 4 % of the
image, the share that the prediction gives another class (not background), by which class; an object is *split*
where that share is between 5 % and a half: a part of it, as opposed to all of it, got another class.

Ignored pixels belong to no object. Depth and thin parts are of all pixels of a class, those of objects below 10 pixels
included.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

from wsss import IGNORE
from wsss.metrics.boundary import uniform, window_max
from wsss.metrics.confusion import Counts, Labels

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

FAILURE_COLUMNS = (
    *(f"{what} {size}" for what in ("found", "pixels", "missed objects", "objects") for size in SIZES),
    *(f"{what} depth {depth}" for what in ("found", "pixels") for depth in DEPTHS),
    *("found thin", "pixels thin", "mistaken", "pixels of large objects", "split", "large objects"),
)
"""What `FailureCounts.row` holds."""


@dataclass(frozen=True)
class FailureCounts:
    """Counters of one image, or sums over many. All int64, L labels, row 0 (background) is zero.

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

    def row(self) -> Counts:
        """(32,) the counts over all classes, in the order of FAILURE_COLUMNS."""
        pairs = [counts.sum(0).T.ravel() for counts in (self.by_size, self.objects, self.by_depth, self.thin)]
        return np.concatenate([*pairs, [self.mistaken.sum(), self.large.sum()], self.split.sum(0)])


def failure_counts(truth: Labels, prediction: Labels, labels: int) -> FailureCounts:
    """Count both failures in one image: (H, W) labels 0..L-1 or 255, as `confusion_counts` takes them."""
    foreground = (truth > 0) & (truth != IGNORE)
    components = connected_components(  # type: ignore[no-untyped-call]
        np.where(foreground, truth, 0), background=0, connectivity=2
    )
    depth, thin = _depth_and_thin(truth)
    # Per foreground pixel:
    component, cls, given = (image[foreground].astype(int) for image in (components, truth, prediction))
    depth, thin, found = depth[foreground], thin[foreground], given == cls
    mistaken = ~found & (given != 0) & (given != IGNORE)
    # Per component; component 0 is the background, which has no pixel here:
    area = np.bincount(component, minlength=1)
    found_of, mistaken_of = (_sums((len(area),), (component,), pixels) for pixels in (found, mistaken))
    class_of = np.zeros_like(area)
    class_of[component] = cls
    share = area / truth.size
    size = np.digitize(share, SIZE_STEPS)
    objects = np.flatnonzero(area >= MIN_OBJECT)
    large = objects[share[objects] >= LARGE]
    part = mistaken_of[large] / area[large]
    split = (part >= SPLIT[0]) & (part <= SPLIT[1])
    of_large = mistaken & np.isin(component, large)

    sizes = (class_of[objects], size[objects])
    missed = found_of[objects] < MISSED * area[objects]
    return FailureCounts(
        by_size=_pairs((labels, len(SIZES)), sizes, found_of[objects], area[objects]),
        objects=_pairs((labels, len(SIZES)), sizes, missed),
        by_depth=_pairs((labels, len(DEPTHS)), (cls, depth), found),
        thin=_pairs((labels,), (cls[thin],), found[thin]),
        mistaken=_sums((labels, labels), (cls[of_large], given[of_large])),
        large=_sums((labels,), (class_of[large],), area[large]),
        split=_pairs((labels,), (class_of[large],), split),
    )


def depth_radii(height: int, width: int) -> list[int]:
    """The depth steps in pixels, each at least one more than the one before."""
    radii = [0]
    for step in DEPTH_STEPS:
        radii.append(max(radii[-1] + 1, round(step * math.hypot(height, width))))
    return radii[1:]


def _depth_and_thin(truth: Labels) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(H, W) depth steps 0..4 reached, and thin parts of any label."""
    radii = depth_radii(*truth.shape)
    cores = [uniform(truth, radius) for radius in radii]
    # A core pixel's window holds its own label alone, so dilating the cores of all labels at once
    # cannot reach across a boundary: the result is the union of every label's opening.
    thick = window_max(cores[THIN_STEP].astype(np.uint8), radii[THIN_STEP])
    return np.sum(cores, axis=0), thick == 0


def _sums(shape: tuple[int, ...], places: tuple[NDArray[np.int64], ...], values: Any = None) -> Counts:
    """Zeros of this shape, with values (or ones) added at the places, as many as there are."""
    flat = np.ravel_multi_index(places, shape)
    return np.bincount(flat, values, math.prod(shape)).reshape(shape).astype(np.int64)


def _pairs(
    shape: tuple[int, ...], places: tuple[NDArray[np.int64], ...], part: Any, whole: Any = None
) -> Counts:
    """(*shape, 2): sums of part and of whole (or how many there are)."""
    return np.stack([_sums(shape, places, part), _sums(shape, places, whole)], axis=-1)
