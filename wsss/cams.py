"""Multi-scale class activation maps (Zhou et al., CVPR 2016; multi-scale with flip as in the IRN line)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.networks import PlainNetwork

CAM_STRIDE = 4
"""CAMs are stored on a grid of one cell per 4x4 pixels of the working image."""


def cam_grid(height: int, width: int) -> tuple[int, int]:
    """The grid (h, w) of an image's stored CAMs: ceil(H / 4), ceil(W / 4)."""
    return math.ceil(height / CAM_STRIDE), math.ceil(width / CAM_STRIDE)


@torch.inference_mode()
def class_activation_maps(
    network: PlainNetwork,
    image: Tensor,
    classes: Sequence[int],
    *,
    scales: Sequence[float],
    flip: bool,
) -> Tensor:
    """CAMs of the named classes: per scale ReLU of the class map, resized and summed, divided by its maximum.

    Args:
        network: classification network in evaluation mode, on the image's device.
        image: (3, H, W) RGB float in [0, 1].
        classes: the K classes to map, 0..C-1; may be empty.
        scales: factors on the image's size; every one is run.
        flip: also run the mirrored image and mirror its maps back.

    Returns:
        (K, ceil(H/4), ceil(W/4)) float32 in [0, 1]; a class with no activation anywhere is all zero.
    """
    grid = cam_grid(image.shape[1], image.shape[2])
    total = torch.zeros((len(classes), *grid), device=image.device)
    if not classes:
        return total
    chosen = torch.tensor(list(classes), device=image.device)
    for scale in scales:
        for maps in _maps_at(network, image, scale, flip=flip):
            activation = maps[chosen].float().relu()  # (K, h, w)
            total += F.interpolate(activation[None], size=grid, mode="bilinear", align_corners=False)[0]
    peak = total.flatten(1).amax(1)[:, None, None]
    return total / peak.clamp(min=torch.finfo(torch.float32).tiny)


def _maps_at(network: PlainNetwork, image: Tensor, scale: float, *, flip: bool) -> list[Tensor]:
    """Class maps (C, h, w) of the image at one scale and, if asked for, of its mirror image, mirrored back."""
    batch = resized(image[None], scale)
    if flip:
        batch = torch.cat([batch, batch.flip(3)])
    maps = network(batch.contiguous(memory_format=torch.channels_last))
    return [maps[0], maps[1].flip(2)] if flip else [maps[0]]


def resized(images: Tensor, scale: float) -> Tensor:
    """(B, 3, H, W) -> (B, 3, round(scale H), round(scale W)), at least 1 pixel, bilinear, antialiased down."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)
