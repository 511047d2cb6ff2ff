"""Multi-scale class activation maps (Zhou et al., CVPR 2016; multi-scale with flip as in the IRN line)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses import pooled_scores
from wsss.networks import PlainNetwork

CAM_STRIDE = 4
"""CAMs are stored on a grid of one cell per 4x4 pixels of the working image."""


def cam_grid(height: int, width: int) -> tuple[int, int]:
    """The grid (h, w) of an image's stored CAMs: ceil(H / 4), ceil(W / 4)."""
    return math.ceil(height / CAM_STRIDE), math.ceil(width / CAM_STRIDE)


@dataclass(frozen=True)
class CamViews:
    """What a classification network sees in one image at several scales, and in its mirror image.

    Attributes:
        activations: (V, K, h, w) float32 >= 0, ReLU of the class maps of the V views on the CAM grid; the scales in
            their order, with ``flip`` each followed by its mirror image's, mirrored back.
        logits: (V, C) image-level scores of all classes.
        scales: (V,) the view's scale.
        mirrored: (V,) whether it is of the mirror image.
    """

    activations: Tensor
    logits: Tensor
    scales: tuple[float, ...]
    mirrored: tuple[bool, ...]

    def cams(self) -> Tensor:
        """(K, h, w) in [0, 1]: the views' sum, each class divided by its maximum; without activation all zero."""
        return _fused(self.activations)

    def mirror_halves(self) -> tuple[Tensor, Tensor] | None:
        """CAMs of the upright and of the mirrored views; None without mirrored ones."""
        return self._halves(self.mirrored)

    def scale_halves(self) -> tuple[Tensor, Tensor] | None:
        """CAMs of the smaller and of the larger scales; None with one scale only."""
        ordered = sorted(set(self.scales))
        return self._halves([scale >= ordered[len(ordered) // 2] for scale in self.scales])

    def _halves(self, second: Sequence[bool]) -> tuple[Tensor, Tensor] | None:
        chosen = torch.tensor(list(second), device=self.activations.device)
        if chosen.all() or not chosen.any():
            return None
        return _fused(self.activations[~chosen]), _fused(self.activations[chosen])


@torch.inference_mode()
def class_activation_views(
    network: PlainNetwork,
    image: Tensor,
    classes: Sequence[int],
    *,
    scales: Sequence[float],
    flip: bool,
    pool: Literal["mean", "max", "lse"] = "mean",
) -> CamViews:
    """Class maps of the named classes from every view of one image.

    Args:
        network: classification network in evaluation mode, on the image's device.
        image: (3, H, W) RGB float in [0, 1].
        classes: the K classes to map, 0..C-1; may be empty.
        scales: factors on the image's size; every one is run.
        flip: also run the mirrored image and mirror its maps back.
        pool: how the network's class maps become image-level scores.
    """
    grid = cam_grid(image.shape[1], image.shape[2])
    chosen = torch.tensor(list(classes), dtype=torch.long, device=image.device)
    activations, logits = [], []
    for scale in scales:
        maps = _maps_at(network, image, scale, flip=flip)
        logits.append(pooled_scores(maps, pool))
        activations.append(_on_grid(maps[:, chosen].relu(), grid))
    views = [(scale, mirror) for scale in scales for mirror in ([False, True] if flip else [False])]
    return CamViews(
        torch.cat(activations),
        torch.cat(logits),
        tuple(scale for scale, _ in views),
        tuple(mirror for _, mirror in views),
    )


def _on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, K, h, w) -> (B, K, *grid), bilinear; K may be 0, which `interpolate` refuses."""
    if not maps.shape[1]:
        return maps.new_zeros((len(maps), 0, *grid))
    return F.interpolate(maps, size=grid, mode="bilinear", align_corners=False)


def _fused(activations: Tensor) -> Tensor:
    total = activations.sum(0)
    if not len(total):
        return total
    peak = total.flatten(1).amax(1)[:, None, None]
    return total / peak.clamp(min=torch.finfo(torch.float32).tiny)


def _maps_at(network: PlainNetwork, image: Tensor, scale: float, *, flip: bool) -> Tensor:
    """Class maps (1, C, h, w) of the image at one scale; with ``flip`` also its mirror image's, mirrored back."""
    batch = resized(image[None], scale)
    if flip:
        batch = torch.cat([batch, batch.flip(3)])
    maps = network(batch.contiguous(memory_format=torch.channels_last)).float()
    return torch.cat([maps[:1], maps[1:].flip(3)]) if flip else maps


def resized(images: Tensor, scale: float) -> Tensor:
    """(B, 3, H, W) -> (B, 3, round(scale H), round(scale W)), at least 1 pixel, bilinear, antialiased down."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)
