"""Cross-entropy of class maps upsampled to the labels' grid, and its gradient, in one bounded pass.

`torch.nn.functional.interpolate` and ``cross_entropy`` keep several tensors of (B, C, H, W) per exit until the
backward pass, which costs more than an exit head: here pixels are visited a piece at a time, small enough for
the cache, and the gradient is made in the same visit, so that (B, C, H, W) never exists. Bilinear upsampling is
two matrix products, its adjoint the transposed ones. Same mathematics, other roundings.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE_CPU = 1 << 20
"""Logits at once per thread of a CPU: 4 MiB. Fewer fit the cache better, but leave threads waiting for each other."""
PIECE_ACCELERATOR = 1 << 25
"""Logits at once elsewhere: 128 MiB, enough for the launch of a kernel not to count."""
STEEP = 100.0
"""Where a cell's logits lie closer together than this, exponentials of pixels stay far from float32's limits."""


def upsampled_cross_entropy(class_maps: Sequence[Tensor], labels: Tensor, *, ignore: int) -> list[Tensor]:
    """Per map, the sum over labelled pixels of CE(Z upsampled bilinearly to the labels' grid, Y).

    Each equals ``cross_entropy(interpolate(Z, (H, W), mode="bilinear"), Y, ignore_index=ignore, reduction="sum")``
    up to rounding. The gradient can be taken once, not differentiated again.

    Args:
        class_maps: (B, C, h, w) logits each.
        labels: (B, H, W) int64, 0..C-1 or ``ignore``.
        ignore: the label that is not counted.

    Returns:
        Scalars, float32.
    """
    counted = (labels != ignore)[:, None]
    index = labels[:, None].where(counted, 0)
    weight = counted.float()
    return [
        _UpsampledCrossEntropy.apply(single.float().contiguous(), index, weight)  # type: ignore[no-untyped-call]
        for single in class_maps
    ]


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, index: Tensor, counted: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            loss, gradient = _loss_and_gradient(maps, index, counted)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weight, None, None


def _loss_and_gradient(maps: Tensor, index: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, h, w) float32, (B, 1, H, W) labels and weights -> the summed loss, its gradient (B, C, h, w)."""
    B, C, h, w = maps.shape
    H, W = index.shape[2:]
    down, across = _taps(h, H, maps), _taps(w, W, maps)  # (h, H), (w, W)
    # The same for all classes, so nothing changes but that no pixel's logit is above 0: cells are cheaper to shift.
    maps = maps - maps.amax(1, keepdim=True)
    steep = maps.device.type != "cpu" or bool(
        maps.amin() < -STEEP
    )  # an accelerator would have to be waited for
    images, rows = _piece(C, H, W, maps.device)
    loss, gradient = maps.new_zeros(()), torch.empty_like(maps)
    for first in range(0, B, images):
        chosen = slice(first, first + images)
        tall = down.t() @ maps[chosen]  # (b, C, H, w)
        for top in range(0, H, rows):
            strip = slice(top, top + rows)
            part, slope = _pixels(
                tall[:, :, strip] @ across, index[chosen, :, strip], counted[chosen, :, strip], steep=steep
            )
            loss += part
            tall[:, :, strip] = slope @ across.t()
        gradient[chosen] = down @ tall
    return loss, gradient


def _pixels(logits: Tensor, index: Tensor, counted: Tensor, *, steep: bool) -> tuple[Tensor, Tensor]:
    """(b, C, H', W), overwritten, and (b, 1, H', W) twice -> the summed loss, its gradient (b, C, H', W)."""
    if steep:
        logits.sub_(logits.amax(1, keepdim=True))
    own = logits.gather(1, index)
    exponential = logits.exp_()
    total = exponential.sum(1, keepdim=True)
    loss = ((total.log() - own) * counted).sum()
    slope = exponential.mul_(counted / total).scatter_add_(1, index, -counted)
    return loss, slope


def _piece(C: int, H: int, W: int, device: torch.device) -> tuple[int, int]:
    """Whole images at once, or about equally many rows of one image where it is larger than a piece."""
    values = PIECE_CPU * torch.get_num_threads() if device.type == "cpu" else PIECE_ACCELERATOR
    if images := values // (C * H * W):
        return images, H
    strips = min(H, -(-C * H * W // values))
    return 1, -(-H // strips)


def _taps(cells: int, pixels: int, like: Tensor) -> Tensor:
    """(cells, pixels): the weight of each cell in each pixel, as `interpolate` has them (half-pixel centres)."""
    units = torch.eye(cells, dtype=like.dtype, device=like.device)
    return F.interpolate(units[None], size=pixels, mode="linear", align_corners=False)[0]
