"""Cross-entropy of class maps upsampled to the labels' grid, and its gradient, in one bounded pass.

`torch.nn.functional.interpolate` and ``cross_entropy`` keep several tensors of (B, C, H, W) per exit until the
backward pass, which costs more than an exit head: here pixels are visited a piece at a time, small enough for
the cache, and the gradient is made in the same visit, so that (B, C, H, W) never exists, only (B, C, H, w). Bilinear
upsampling is two matrix products, its adjoint the transposed ones. Same mathematics, other roundings.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE_CPU = 1 << 21
"""Logits at once per thread of a CPU: 8 MiB. Fewer fit the cache better, but leave threads waiting for each other."""
PIECE_ACCELERATOR = 1 << 25
"""Logits at once elsewhere: 128 MiB, enough for the launch of a kernel not to count."""
BAND_CELLS, BAND_PIXELS = 12, 48
"""Least of each in a part of a row that a CPU upsamples at a time."""
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
    label, weight = labels[:, None].where(counted, 0), counted.float()
    target = _Target(label, weight, -weight)
    return [
        _UpsampledCrossEntropy.apply(single.float().contiguous(), target)  # type: ignore[no-untyped-call]
        for single in class_maps
    ]


class _Target(NamedTuple):
    """The labels, prepared once for all maps: (B, 1, H, W) int64, and what each counts, 1 or 0, and its negative."""

    label: Tensor
    counted: Tensor
    negative: Tensor

    def piece(self, images: slice, rows: slice) -> "_Target":
        """Some rows of some images."""
        return _Target(*(each[images, :, rows] for each in self))


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, target: _Target) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            loss, gradient = _loss_and_gradient(maps, target)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weight, None


def _loss_and_gradient(maps: Tensor, target: _Target) -> tuple[Tensor, Tensor]:
    """(B, C, h, w) float32 -> the summed loss, its gradient (B, C, h, w)."""
    C, (H, W) = maps.shape[1], target.label.shape[2:]
    down = _taps(maps.shape[2], H, maps)  # (h, H)
    bands = _bands(_taps(maps.shape[3], W, maps))
    # The same for all classes, so nothing changes but that no pixel's logit is above 0: cells are cheaper to shift.
    maps = maps - maps.amax(1, keepdim=True)
    # An accelerator would have to be waited for.
    steep = maps.device.type != "cpu" or bool(maps.amin() < -STEEP)
    tall = down.t() @ maps  # (B, C, H, w): logits at first, piece by piece their gradient instead
    pixels = maps.new_empty(0)  # of a piece: memory that is used again
    own, total = torch.empty_like(target.counted), torch.empty_like(target.counted)
    for images, rows in _pieces(C, target.label):
        piece = tall[images, :, rows]
        lines = piece.reshape(-1, piece.shape[3])
        if len(pixels) < len(lines):
            pixels = maps.new_empty((len(lines), W))
        flat = pixels[: len(lines)]
        for band in bands:
            torch.mm(lines[:, band.cells], band.taps, out=flat[:, band.pixels])
        logits = flat.view(*piece.shape[:3], W)
        if steep:
            logits.sub_(logits.amax(1, keepdim=True))
        _to_slope(logits, target.piece(images, rows), own[images, :, rows], total[images, :, rows])
        lines.zero_()
        for band in bands:
            lines[:, band.cells].addmm_(flat[:, band.pixels], band.back)
        piece.copy_(lines.view(piece.shape))
    loss = ((total.log_() - own) * target.counted).sum()
    return loss, down @ tall


def _to_slope(logits: Tensor, target: _Target, own: Tensor, total: Tensor) -> None:
    """Logits (b, C, H', W) become the loss's gradient. Fills in, (b, 1, H', W), the labels' logits and the sums."""
    torch.gather(logits, 1, target.label, out=own)
    exponential = logits.exp_()
    torch.sum(exponential, 1, keepdim=True, out=total)
    exponential.mul_(target.counted / total).scatter_add_(1, target.label, target.negative)


def _pieces(C: int, index: Tensor) -> Iterator[tuple[slice, slice]]:
    """Whole images together, or about equally many rows of one image where it is larger than a piece."""
    B, _, H, W = index.shape
    values = PIECE_CPU * torch.get_num_threads() if index.device.type == "cpu" else PIECE_ACCELERATOR
    images, strips = max(1, values // (C * H * W)), min(H, -(-C * H * W // values))
    for first in range(0, B, images):
        for top in range(0, H, -(-H // strips)):
            yield slice(first, first + images), slice(top, top + -(-H // strips))


class _Band(NamedTuple):
    """Pixels that lie side by side, the cells that they depend on, and the weights (cells, pixels) and transposed."""

    pixels: slice
    cells: slice
    taps: Tensor
    back: Tensor


def _bands(taps: Tensor) -> list[_Band]:
    """The parts of a product with ``taps`` (w, W) that are not all zero: a pixel lies between two cells.

    A CPU's time goes by the number of products. An accelerator multiplies all at once: looking for zeros would mean
    waiting for it.
    """
    w, W = taps.shape
    count = min(w // BAND_CELLS, W // BAND_PIXELS) if taps.device.type == "cpu" else 1
    if count < 2:
        return [_Band(slice(0, W), slice(0, w), taps, taps.t().contiguous())]
    found = []
    for first in range(0, W, -(-W // count)):
        pixels = slice(first, min(W, first + -(-W // count)))
        used = taps[:, pixels].any(1).nonzero()
        cells = slice(int(used[0]), int(used[-1]) + 1)
        part = taps[cells, pixels]
        found.append(_Band(pixels, cells, part.contiguous(), part.t().contiguous()))
    return found


def _taps(cells: int, pixels: int, like: Tensor) -> Tensor:
    """(cells, pixels): the weight of each cell in each pixel, as `interpolate` has them (half-pixel centres)."""
    units = torch.eye(cells, dtype=like.dtype, device=like.device)
    return F.interpolate(units[None], size=pixels, mode="linear", align_corners=False)[0]
