"""Cross-entropy of class maps upsampled to the labels' grid, and its gradient, in one bounded pass.

`torch.nn.functional.interpolate` and ``cross_entropy`` keep several tensors of (B, C, H, W) per exit until the
backward pass, which costs more than an exit head: here pixels are visited a piece at a time, small enough for
the cache, and the gradient is made in the same visit, so that (B, C, H, W) never exists. Bilinear upsampling is
two matrix products, its adjoint the transposed ones. Same mathematics, other roundings.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE_CPU = 1 << 20
"""Logits at once per thread of a CPU: 4 MiB, about what its cache holds."""
PIECE_ACCELERATOR = 1 << 25
"""Logits at once elsewhere: 128 MiB, enough for the launch of a kernel not to count."""


def upsampled_cross_entropy(class_map: Tensor, labels: Tensor, *, ignore: int) -> Tensor:
    """The sum over labelled pixels of CE(Z upsampled bilinearly to the labels' grid, Y).

    Equals ``cross_entropy(interpolate(Z, (H, W), mode="bilinear"), Y, ignore_index=ignore, reduction="sum")``
    up to rounding. The gradient can be taken once, not differentiated again.

    Args:
        class_map: (B, C, h, w) logits.
        labels: (B, H, W) int64, 0..C-1 or ``ignore``.
        ignore: the label that is not counted.

    Returns:
        Scalar float32.
    """
    loss: Tensor = _UpsampledCrossEntropy.apply(class_map.float().contiguous(), labels, ignore)  # type: ignore[no-untyped-call]
    return loss


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, labels: Tensor, ignore: int) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            loss, gradient = _loss_and_gradient(maps, labels, ignore)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weight, None, None


def _loss_and_gradient(maps: Tensor, labels: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """(B, C, h, w) float32, (B, H, W) -> the summed loss, its gradient (B, C, h, w)."""
    B, C, h, w = maps.shape
    H, W = labels.shape[1:]
    down, across = _taps(h, H, maps), _taps(w, W, maps)  # (h, H), (w, W)
    images, rows = _piece(C, H, W, maps.device)
    loss, gradient = maps.new_zeros(()), torch.empty_like(maps)
    for first in range(0, B, images):
        chosen = slice(first, first + images)
        tall = down.t() @ maps[chosen]  # (b, C, H, w)
        for top in range(0, H, rows):
            strip = slice(top, top + rows)
            part, slope = _pixels(tall[:, :, strip] @ across, labels[chosen, None, strip], ignore)
            loss += part
            tall[:, :, strip] = slope @ across.t()
        gradient[chosen] = down @ tall
    return loss, gradient


def _pixels(logits: Tensor, labels: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """(b, C, H', W), which is overwritten, and (b, 1, H', W) -> the summed loss, its gradient (b, C, H', W)."""
    counted = (labels != ignore).float()
    index = labels.masked_fill(labels == ignore, 0)
    top = logits.amax(1, keepdim=True)
    own = logits.gather(1, index) - top
    exponential = logits.sub_(top).exp_()
    total = exponential.sum(1, keepdim=True)
    loss = ((total.log() - own) * counted).sum()
    slope = exponential.mul_(counted / total).scatter_add_(1, index, -counted)
    return loss, slope


def _piece(C: int, H: int, W: int, device: torch.device) -> tuple[int, int]:
    """Whole images at once, or rows of one image where it is larger than a piece."""
    values = PIECE_CPU * torch.get_num_threads() if device.type == "cpu" else PIECE_ACCELERATOR
    images = values // (C * H * W)
    return (images, H) if images else (1, max(1, values // (C * W)))


def _taps(cells: int, pixels: int, like: Tensor) -> Tensor:
    """(cells, pixels): the weight of each cell in each pixel, as `interpolate` has them (half-pixel centres)."""
    units = torch.eye(cells, dtype=like.dtype, device=like.device)
    return F.interpolate(units[None], size=pixels, mode="linear", align_corners=False)[0]
