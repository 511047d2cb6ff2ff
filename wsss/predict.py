"""Prediction with a segmentation network on a whole image."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cams import resized
from wsss.networks import MultiExitNetwork, PlainNetwork


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
    return _averaged(lambda images: [network(images)], image, scales, flip)[0]


@torch.inference_mode()
def exit_probabilities(
    network: MultiExitNetwork, image: Tensor, *, scales: Sequence[float], flip: bool
) -> list[Tensor]:
    """What the exits of shallower blocks say, each by itself, in the way of `label_probabilities`.

    Args:
        network: segmentation network with its exits, in evaluation mode, on the image's device.
        image: (3, H, W) RGB float in [0, 1].
        scales: factors on the image's size.
        flip: also run the mirrored image.

    Returns:
        Per exit but the deepest, shallowest first, (L, H, W) float32, sums to 1 over L; channel 0 is background.
    """
    return _averaged(lambda images: network(images).class_maps[:-1], image, scales, flip)


def _averaged(
    class_maps: Callable[[Tensor], list[Tensor]], image: Tensor, scales: Sequence[float], flip: bool
) -> list[Tensor]:
    """Per list entry of ``class_maps`` the probabilities (L, H, W) averaged over the views."""
    totals: list[Tensor] = []
    views = [(scale, mirror) for scale in scales for mirror in ([False, True] if flip else [False])]
    for scale, mirror in views:
        batch = resized(image[None], scale)
        batch = batch.flip(3) if mirror else batch
        found = class_maps(batch.contiguous(memory_format=torch.channels_last))
        for index, maps in enumerate(found):
            share = _shares(maps.float(), image.shape[1:], mirror=mirror)
            if index == len(totals):
                totals.append(share)
            else:
                totals[index] += share
    if not views:
        raise ValueError("expected at least one scale")
    return [total / len(views) for total in totals]


def _shares(logits: Tensor, size: torch.Size, *, mirror: bool) -> Tensor:
    """(1, L, h, w) class maps of one view -> (L, H, W) probabilities, mirrored back."""
    logits = logits.flip(3) if mirror else logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(1)[0]
