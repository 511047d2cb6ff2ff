"""What a network says of one whole image, averaged over scales and mirror images: CAMs, and class probabilities.

Class activation maps: Zhou et al., CVPR 2016; several scales with flip as in the IRN line. The published maps are the
deepest exit's. Those of shallower exits can be fused with them: see `fused_cams`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.affinity import divided
from wsss.losses import pooled_scores
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork

CAM_STRIDE = 4
"""CAMs are stored on a grid of one cell per 4x4 pixels of the working image."""
FusionRule = Literal["mean", "product"]


def cam_grid(height: int, width: int) -> tuple[int, int]:
    """The grid (h, w) of an image's stored CAMs: ceil(H / 4), ceil(W / 4)."""
    return math.ceil(height / CAM_STRIDE), math.ceil(width / CAM_STRIDE)


@dataclass(frozen=True)
class CamViews:
    """What a classification network sees in one image at several scales, and in its mirror image.

    Attributes:
        activations: (E, V, K, h, w) float32 >= 0, ReLU of the class maps of E exits, the deepest last, in V views on
            the CAM grid; the scales in their order, with ``flip`` each followed by its mirror image's, mirrored back.
        logits: (V, C) the deepest exit's image-level scores of all classes.
        scales: (V,) the view's scale.
        mirrored: (V,) whether it is of the mirror image.
        fusion: how the exits' CAMs become one, see `fused_cams`.
        exit_weight: weight of each exit but the deepest, whose weight is 1.
        features: of the upright view at ``features_at``, per backbone block (D, h, w) float32; empty if none is asked.
    """

    activations: Tensor
    logits: Tensor
    scales: tuple[float, ...]
    mirrored: tuple[bool, ...]
    fusion: FusionRule = "mean"
    exit_weight: float = 1.0
    features: tuple[Tensor, ...] = ()

    def cams(self) -> Tensor:
        """(K, h, w) in [0, 1]: the exits' CAMs, fused; a class without activation is all zero."""
        return self._fused(self.activations)

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
        return self._fused(self.activations[:, ~chosen]), self._fused(self.activations[:, chosen])

    def _fused(self, activations: Tensor) -> Tensor:
        return fused_cams(_exit_cams(activations), fusion=self.fusion, exit_weight=self.exit_weight)


def fused_cams(cams: Tensor, *, fusion: FusionRule, exit_weight: float = 1.0) -> Tensor:
    """One CAM per class from those of several exits, each class divided by its maximum.

    Linear and logarithmic opinion pools (Genest and Zidek, Statistical Science 1986): ``mean`` is the weighted mean,
    high where any exit sees the class; ``product`` the weighted geometric mean, high where all of them do and zero
    where one of them is. An exit that sees a class nowhere has no say in it.

    Args:
        cams: (E, K, h, w) in [0, 1], the deepest exit's last; K may be 0.
        fusion: the rule.
        exit_weight: weight of each exit but the deepest, whose weight is 1; at least 0.

    Returns:
        (K, h, w) in [0, 1]; the very maps of the exit where there is only one. A class is all zero where no exit sees
        it, and under ``product`` where the exits have no cell in common.
    """
    if len(cams) == 1:
        return cams[0]
    weights = cams.new_tensor([exit_weight] * (len(cams) - 1) + [1.0])[:, None, None, None]
    weights = weights * (cams.amax((2, 3), keepdim=True) > 0)  # (E, K, 1, 1)
    total = weights.sum(0)
    shares = weights / total.clamp(min=torch.finfo(cams.dtype).tiny)
    pooled = (shares * cams).sum(0) if fusion == "mean" else cams.pow(shares).prod(0)
    return divided(pooled * (total > 0))


@torch.inference_mode()
def class_activation_views(
    network: PlainNetwork | MultiExitNetwork,
    image: Tensor,
    classes: Sequence[int],
    *,
    scales: Sequence[float],
    flip: bool,
    pool: Literal["mean", "max", "lse"] = "mean",
    exits: Sequence[int] = (),
    fusion: FusionRule = "mean",
    exit_weight: float = 1.0,
    features_at: float | None = None,
) -> CamViews:
    """Class maps of the named classes from every view of one image.

    Args:
        network: classification network in evaluation mode, on the image's device; with its exits if any is named.
        image: (3, H, W) RGB float in [0, 1].
        classes: the K classes to map, 0..C-1; may be empty.
        scales: factors on the image's size; every one is run.
        flip: also run the mirrored image and mirror its maps back.
        pool: how the network's class maps become image-level scores.
        exits: blocks, 1 = shallowest, whose exits' maps are wanted beside the deepest's.
        fusion: how the exits' CAMs become one, see `fused_cams`.
        exit_weight: weight of each of these exits; the deepest's is 1.
        features_at: also keep the backbone's features of the image at this scale, which costs nothing where it is one
            of ``scales``.

    Raises:
        ValueError: a named block has no exit.
    """
    grid = cam_grid(image.shape[1], image.shape[2])
    chosen = torch.tensor(list(classes), dtype=torch.long, device=image.device)
    activations, logits = [], []
    features = None
    for scale in scales:
        views = resized(image[None], scale)
        if flip:
            views = torch.cat([views, views.flip(3)])
        blocks = _plain(network).blocks(views.contiguous(memory_format=torch.channels_last))
        if scale == features_at:
            features = tuple(block[0].float() for block in blocks[: len(_plain(network).backbone.channels)])
        maps = [torch.cat([each[:1], each[1:].flip(3)]) for each in _exit_maps(network, blocks, exits)]
        logits.append(pooled_scores(maps[-1], pool))
        activations.append(torch.stack([_on_grid(single[:, chosen].relu(), grid) for single in maps]))
    mirrors = (False, True) if flip else (False,)
    if features is None and features_at is not None:
        features = block_features(network, image, scale=features_at)
    return CamViews(
        torch.cat(activations, dim=1),
        torch.cat(logits),
        tuple(scale for scale in scales for _ in mirrors),
        mirrors * len(scales),
        fusion,
        exit_weight,
        features or (),
    )


@torch.inference_mode()
def block_features(
    network: PlainNetwork | MultiExitNetwork, image: Tensor, *, scale: float
) -> tuple[Tensor, ...]:
    """Features of all blocks of the backbone, for `wsss.affinity.propagate` and `wsss.cells`.

    Args:
        network: in evaluation mode, on the image's device.
        image: (3, H, W) RGB float in [0, 1].
        scale: factor on the image's size.

    Returns:
        Per block, shallowest first, (D, h, w) float32.
    """
    view = resized(image[None], scale).contiguous(memory_format=torch.channels_last)
    backbone = _plain(network).backbone
    return tuple(block[0].float() for block in backbone(view))


@torch.inference_mode()
def label_probabilities(
    network: PlainNetwork, image: Tensor, *, scales: Sequence[float], flip: bool
) -> Tensor:
    """Class probabilities of every pixel, averaged over scales and mirror images.

    Args:
        network: segmentation network in evaluation mode, on the image's device.
        image: (3, H, W) RGB float in [0, 1].
        scales: factors on the image's size; at least one.
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
        scales: factors on the image's size; at least one.
        flip: also run the mirrored image.

    Returns:
        Per exit but the deepest, shallowest first, (L, H, W) float32, sums to 1 over L; channel 0 is background.
    """
    return _averaged(lambda images: network(images).class_maps[:-1], image, scales, flip)


def resized(images: Tensor, scale: float) -> Tensor:
    """(B, 3, H, W) -> (B, 3, round(scale H), round(scale W)), at least 1 pixel, bilinear, antialiased down."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)


def _plain(network: PlainNetwork | MultiExitNetwork) -> PlainNetwork:
    return network.plain if isinstance(network, MultiExitNetwork) else network


def _exit_maps(
    network: PlainNetwork | MultiExitNetwork, features: Sequence[Tensor], exits: Sequence[int]
) -> list[Tensor]:
    """Class maps of the named exits, and last of the deepest, in float32, from the features of all blocks."""
    heads: dict[int, nn.Module] = {}
    if isinstance(network, MultiExitNetwork):
        heads = {block + 1: head for block, head in zip(network.blocks, network.exits, strict=True)}
    if not set(exits) <= heads.keys():
        raise ValueError(f"exits {list(exits)}: this network has exits at the blocks {list(heads)}")
    maps = [heads[block](features[block - 1]) for block in exits]
    return [each.float() for each in (*maps, _plain(network).head(features[-1]))]


def _on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, K, h, w) -> (B, K, *grid), bilinear; K may be 0, which `interpolate` refuses."""
    if not maps.shape[1]:
        return maps.new_zeros((len(maps), 0, *grid))
    return F.interpolate(maps, size=grid, mode="bilinear", align_corners=False)


def _exit_cams(activations: Tensor) -> Tensor:
    """(E, V, K, h, w) -> (E, K, h, w): each exit's CAMs."""
    return torch.stack([divided(views.sum(0)) for views in activations])


def _averaged(
    class_maps: Callable[[Tensor], list[Tensor]], image: Tensor, scales: Sequence[float], flip: bool
) -> list[Tensor]:
    """Per list entry of ``class_maps`` the probabilities (L, H, W) averaged over the views."""
    totals: list[Tensor] = []
    views = [(scale, mirror) for scale in scales for mirror in ((False, True) if flip else (False,))]
    for scale, mirror in views:
        view = resized(image[None], scale)
        view = (view.flip(3) if mirror else view).contiguous(memory_format=torch.channels_last)
        maps = [each.float().flip(3) if mirror else each.float() for each in class_maps(view)]
        found = [F.interpolate(each, size=image.shape[1:], mode="bilinear").softmax(1)[0] for each in maps]
        totals = [total + own for total, own in zip(totals, found, strict=True)] if totals else found
    return [total / len(views) for total in totals]
