"""Prediction with a segmentation network on a whole image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cams import resized
from wsss.networks import PlainNetwork


@torch.inference_mode()
def label_probabilities(
    network: PlainNetwork, image: Tensor, *, scales: Sequence[float], flip: bool
) -> Tensor:
    """Class probabilities of every pixel, averaged over scales and mirror images.

    Args:
        network: segmentation network in evaluation mode, on the image's device.
        image: (3, H, W) RGB float in [0, 1].
        scales: factors on the image's size.
        flip: also run the mirrored image.

    Returns:
        (L, H, W) float32, sums to 1 over L; channel 0 is background.
    """
    size = image.shape[1:]
    total: Tensor | None = None
    views = [(scale, mirror) for scale in scales for mirror in ([False, True] if flip else [False])]
    for scale, mirror in views:
        batch = resized(image[None], scale)
        batch = batch.flip(3) if mirror else batch
        logits = network(batch.contiguous(memory_format=torch.channels_last)).float()
        logits = logits.flip(3) if mirror else logits
        share = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(1)[0]
        total = share if total is None else total + share
    if total is None:
        raise ValueError("expected at least one scale")
    return total / len(views)
