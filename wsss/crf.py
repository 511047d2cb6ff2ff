"""Dense CRF on one image (Kraehenbuehl and Koltun, NIPS 2011). The only importer of pydensecrf.

The CRF is given background and the classes that the image's tags name, nothing else: with 2 or 3 labels it is
3 to 16 times faster than with all, and cannot add a class.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydensecrf import densecrf

from wsss import IGNORE

EPSILON = 1e-5
"""Smallest probability that enters a unary energy."""


@dataclass(frozen=True, kw_only=True)
class CrfPreset:
    """One published set of dense CRF parameters.

    Attributes:
        unary: ``labels``: the most probable label with probability ``gt_prob``, the rest shared by the others;
            ``softmax``: the negative logarithm of the probabilities.
        gaussian: standard deviation in pixels and compatibility of the smoothness kernel.
        bilateral: standard deviations in pixels and in colour (0..255), and compatibility, of the appearance kernel.
        gt_prob: see unary.
    """

    unary: Literal["labels", "softmax"]
    gaussian: tuple[float, float]
    bilateral: tuple[float, float, float]
    gt_prob: float = 0.7


PRESETS: dict[str, CrfPreset] = {
    "irn": CrfPreset(unary="labels", gaussian=(3, 3), bilateral=(50, 5, 10)),
    "psa": CrfPreset(unary="softmax", gaussian=(3, 3), bilateral=(80, 13, 10)),
    "deeplab": CrfPreset(unary="softmax", gaussian=(1, 3), bilateral=(67, 3, 4)),
    "afa": CrfPreset(unary="softmax", gaussian=(3, 3), bilateral=(64, 5, 4)),
    "toco": CrfPreset(unary="softmax", gaussian=(1, 1), bilateral=(121, 5, 4)),
    "sr": CrfPreset(unary="softmax", gaussian=(1, 4), bilateral=(49, 13, 5)),
}
"""By the name of the method that published them; `tests/test_crf.py` holds the table."""


def probabilities(cams: NDArray[np.floating], background: float) -> NDArray[np.float32]:
    """Background score and CAMs as a distribution per pixel.

    Args:
        cams: (K, H, W) in [0, 1].
        background: the background score: a pixel whose CAMs are all below it is background.

    Returns:
        (K + 1, H, W) float32, channel 0 background, positive, sums to 1 over channels.
    """
    scores = np.concatenate([np.full((1, *cams.shape[1:]), background, np.float32), cams.astype(np.float32)])
    scores = np.maximum(scores, EPSILON)
    result: NDArray[np.float32] = scores / scores.sum(0)
    return result


def dense_crf(
    image: NDArray[np.uint8],
    probability: NDArray[np.float32],
    preset: CrfPreset,
    *,
    iterations: int,
    unary_weight: float = 1.0,
) -> NDArray[np.float32]:
    """Mean-field inference of the fully connected CRF.

    Args:
        image: (H, W, 3) uint8 RGB as it was read. (A mean-subtracted image cast to uint8 would wrap.)
        probability: (L, H, W) float32 over L >= 1 labels.
        preset: parameters.
        iterations: of mean field.
        unary_weight: factor on the unary energies, which is to raise the probabilities to this power: the larger, the
            more the kernels only move contours, and the less they delete what is small.

    Returns:
        (L, H, W) float32 posterior, sums to 1 over labels.

    Raises:
        ValueError: image and probability differ in size.
    """
    labels, height, width = probability.shape
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image ({height}, {width}, 3), got {image.dtype} {image.shape}")
    if labels == 1:
        return np.ones_like(probability)
    crf = densecrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.float32(unary_weight) * unary_energy(probability, preset))
    crf.addPairwiseGaussian(sxy=preset.gaussian[0], compat=preset.gaussian[1])
    sxy, srgb, compat = preset.bilateral
    # pydensecrf refuses read-only and strided arrays.
    crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=np.array(image, order="C"), compat=compat)
    posterior = np.array(crf.inference(iterations), dtype=np.float32)
    return posterior.reshape(labels, height, width)


def unary_energy(probability: NDArray[np.float32], preset: CrfPreset) -> NDArray[np.float32]:
    """(L, H, W) probabilities -> (L, H*W) float32 energies, contiguous: what the CRF starts from."""
    flat = probability.reshape(len(probability), -1)
    if preset.unary == "labels":
        others = (1 - preset.gt_prob) / (len(flat) - 1)
        chosen = flat.argmax(0)[None] == np.arange(len(flat))[:, None]
        flat = np.where(chosen, np.float32(preset.gt_prob), np.float32(others))
    return np.ascontiguousarray(-np.log(np.maximum(flat, EPSILON)), dtype=np.float32)


def pseudo_mask(
    posterior: NDArray[np.float32], labels: NDArray[np.integer], *, unsure: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Decide each pixel.

    Args:
        posterior: (L, H, W).
        labels: (L,) the mask value of each channel, 0 for background.
        unsure: a pixel whose largest posterior is below it becomes 255.

    Returns:
        The pseudo-mask (H, W) uint8 with 255 where uncertain, and the most probable label everywhere.
    """
    best = labels.astype(np.uint8)[posterior.argmax(0)]
    return np.where(posterior.max(0) < unsure, np.uint8(IGNORE), best), best
