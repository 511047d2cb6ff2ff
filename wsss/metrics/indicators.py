"""Quality without ground truth: what images, tags and CAMs alone say about masks.

Each function is one indicator of one image; `docs/masks.md` shows how well each ranks thresholds and CRF
presets against the true mIoU.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsss import IGNORE
from wsss.metrics.confusion import Labels, label_pixels, ratio
from wsss.metrics.sweep import THRESHOLDS, reaching_each, thresholds_reached

Curve = NDArray[np.float64]

CHOICE = (0.05, 0.6)
"""Lowest and highest background score that is chosen without ground truth; published ones are 0.15 to 0.21."""
COLOUR_LEVELS = 4
"""Per channel: 64 colours. With 512 the choice of threshold is the same, from sparser counts."""


def agreement(first: Labels, second: Labels) -> float:
    """Cohen's kappa of two label maps (H, W): 1 where all pixels agree, 0 as good as chance, NaN if undefined.

    Plain overlap grows with the objects' size, so it would favour masks that cover everything; kappa takes out
    what two unrelated maps of these sizes share by chance (Cohen 1960). 255 is a label like any other.
    """
    shares = [label_pixels(labels) / labels.size for labels in (first, second)]
    return float(_kappa(np.mean(first == second), (shares[0] * shares[1]).sum()))


def agreement_curve(first: NDArray[np.floating], second: NDArray[np.floating]) -> Curve:
    """`agreement` of two seeds of one image at every threshold.

    Args:
        first: (K, h, w) CAMs in [0, 1].
        second: (K, h, w) CAMs of the same classes from other views of the image.

    Returns:
        (T,) float64, NaN where undefined.
    """
    if not len(first):
        return np.full(len(THRESHOLDS), np.nan)
    label = [maps.argmax(0).ravel() for maps in (first, second)]
    reached = [thresholds_reached(maps.max(0).ravel()) for maps in (first, second)]
    pixels, same = label[0].size, label[0] == label[1]
    both = reaching_each(0, np.minimum(*reached)[same], 1)[0]
    neither = pixels - reaching_each(0, np.maximum(*reached), 1)[0]
    counts = [reaching_each(*pair, len(first)) for pair in zip(label, reached, strict=True)]
    background = [pixels - count.sum(0) for count in counts]
    chance = ((counts[0] * counts[1]).sum(0) + background[0] * background[1]) / pixels**2
    return _kappa((both + neither) / pixels, chance)


def colour_information_curve(image: NDArray[np.uint8], cams: NDArray[np.floating]) -> Curve:
    """How much a pixel's colour tells about object or background, at every threshold of the seed.

    The mutual information of the 64 colours of 4 levels per channel and the seed's two labels. It is zero where
    all is object or all is background, and largest where the seed divides the image along its colours.

    Args:
        image: (h, w, 3) uint8, at the CAMs' size.
        cams: (K, h, w) in [0, 1].

    Returns:
        (T,) float64 in bits, 0 to 1.
    """
    colour = _colour(image)
    reached = thresholds_reached(cams.max(0).ravel()) if len(cams) else np.zeros(len(colour), np.int64)
    total = np.bincount(colour, minlength=COLOUR_LEVELS**3)
    return _information(reaching_each(colour, reached, len(total)), total[:, None])


def label_free_threshold(curve: Curve) -> float | None:
    """The threshold of THRESHOLDS at which colour information is largest; None where it is zero or unknown.

    Args:
        curve: (T,) summed or averaged over images, NaN where undefined.

    Only thresholds that make sense for a background score are considered (CHOICE): the maps of a classifier that has
    learned little give a flat curve, whose top means nothing.
    """
    values = np.where([CHOICE[0] <= threshold <= CHOICE[1] for threshold in THRESHOLDS], curve, np.nan)
    if not (np.nan_to_num(values) > 0).any():
        return None
    return THRESHOLDS[int(np.nanargmax(values))]


def colour_information(image: NDArray[np.uint8], labels: Labels) -> float:
    """The same of a mask (H, W), any class against background, in bits; 255 is left out. NaN if all is."""
    side = (labels > 0).view(np.uint8) + (labels == IGNORE)  # background, a class, left out
    cells = _colour(image) * np.uint8(3) + side.ravel()
    joint = np.bincount(cells, minlength=3 * COLOUR_LEVELS**3).reshape(-1, 3)[:, :2]
    if not joint.any():
        return float("nan")
    return float(_information(joint[:, 1:], joint.sum(1, keepdims=True))[0])


def gradient_ranks(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 -> (H, W) share of the image's pixels with a weaker gradient, in [0, 1], ties halved.

    The gradient is that of the grey image smoothed by 1-2-1 in both directions, |dx| + |dy|.
    """
    grey = image[..., 0].astype(np.int16) + image[..., 1] + image[..., 2]  # its gradient stays within 16 bits
    for _ in range(2):
        padded = np.pad(grey, ((1, 1), (0, 0)), mode="edge")
        grey = (padded[:-2] + 2 * padded[1:-1] + padded[2:]).T
    padded = np.pad(grey, 1, mode="edge")
    strength = np.abs(padded[1:-1, 2:] - padded[1:-1, :-2]) + np.abs(padded[2:, 1:-1] - padded[:-2, 1:-1])
    counts = np.bincount(strength.ravel())
    rank = ((np.cumsum(counts) - counts / 2) / strength.size).astype(np.float32)
    return np.asarray(rank[strength])


def edge_alignment(ranks: NDArray[np.float32], labels: Labels) -> float:
    """Mean gradient rank of the pixels on both sides of the mask's boundaries; NaN where there is none.

    A region of 255 has a boundary too. 0.5 is what a boundary drawn anywhere scores, 1 one that follows the strongest
    edges of the image.
    """
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return float(ranks[edge].mean(dtype=np.float64)) if edge.any() else float("nan")


def rank_shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) -> the share of the values below each, in (0, 1), ties halved; NaN stays and does not count."""
    known = np.sort(values[np.isfinite(values)])
    places = [np.searchsorted(known, values, side) for side in ("left", "right")]
    return np.where(np.isfinite(values), (places[0] + places[1]) / 2 / max(len(known), 1), np.nan)


def review_scores(indicators: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Which of n images to look at first: the mean of the ranks that several indicators give them, in (0, 1).

    Args:
        indicators: (n,) each, more is better, NaN where undefined.

    Returns:
        (n,) the least is to be looked at first; NaN where no indicator is defined.
    """
    ranks = np.array([rank_shares(each) for each in indicators])
    known = np.isfinite(ranks)
    return np.asarray(ratio(np.where(known, ranks, 0).sum(0), known.sum(0)))


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's correlation of two (n,) figures where both are known; NaN for fewer than two, or a constant."""
    both = np.isfinite(first) & np.isfinite(second)
    ranks = np.stack([rank_shares(each[both]) for each in (first, second)])
    varied = both.any() and ranks.std(1).min() > 0
    return float(np.asarray(np.corrcoef(ranks))[0, 1]) if varied else float("nan")


def _kappa(observed: NDArray[np.floating], chance: NDArray[np.floating]) -> NDArray[np.float64]:
    undefined = 1 - chance < 1e-9
    return np.where(undefined, np.nan, (observed - chance) / np.where(undefined, 1, 1 - chance))


def _information(inside: NDArray[np.integer], total: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mutual information in bits of colour and two labels: (Q, T) pixels inside and (Q, 1) pixels, by colour."""
    outside, pixels = total - inside, total.sum()
    by_label = _xlogx(inside.sum(0)) + _xlogx(outside.sum(0))
    joint = _xlogx(inside).sum(0) + _xlogx(outside).sum(0)
    return np.asarray(np.maximum((_xlogx(pixels) - _xlogx(total).sum() - by_label + joint) / pixels, 0))


def _xlogx(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    return np.asarray(counts * np.log2(np.maximum(counts, 1)), dtype=np.float64)


def _colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 3) -> (P,) index of each pixel's colour, 0 to 63."""
    red, green, blue = (image[..., channel].ravel() // (256 // COLOUR_LEVELS) for channel in range(3))
    return (red * COLOUR_LEVELS + green) * COLOUR_LEVELS + blue
