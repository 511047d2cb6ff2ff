"""Depthwise convolutions in training on a CPU, put so that oneDNN has a quick kernel for their gradients.

oneDNN computes gradients of depthwise convolutions directly for undilated kernels of up to 3x3 alone; for others it
makes matrix products of a row each, and those in bfloat16 are slower still. In an EfficientNet or a MobileNet they
are most of a training step. Two changes of form, not of mathematics: a dilated convolution is an undilated one on
each of the grids of every d-th row and column, and what has no quick kernel in bfloat16 is computed in float32.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

QUICK_KERNEL = 3
"""The largest kernel whose gradients oneDNN computes directly."""
SMALLEST_GRID = 4
"""Rows and columns that the grids of a dilated convolution must have: smaller ones cost more than they bring."""


@contextmanager
def quick_depthwise(device: torch.device) -> Iterator[None]:
    """Depthwise convolutions inside are computed as above, on a CPU; elsewhere nothing changes.

    Those without a gradient are left alone: forward, every form is quick. Results differ by rounding.
    """
    if device.type != "cpu":
        yield
        return
    with _QuickDepthwise():
        yield


class _QuickDepthwise(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.conv2d:
            return _convolution(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, with its arguments."""
    learns = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
    depthwise = groups > 1 and groups == input.shape[1] == weight.shape[0]
    if not (learns and depthwise) or isinstance(padding, str) or input.ndim != 4:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    spread = dilation[0]
    kept = tuple((size - 1) // 2 for size in weight.shape[2:])
    same = all(size % 2 for size in weight.shape[2:]) and padding == tuple(spread * each for each in kept)
    large = min(input.shape[2:]) >= SMALLEST_GRID * spread
    if spread > 1 and dilation == (spread, spread) and stride == (1, 1) and same and large:
        grids = _grids(input, spread)
        return _joined(_computed(grids, weight, bias, stride, kept, (1, 1), groups), spread, input.shape)
    return _computed(input, weight, bias, stride, padding, dilation, groups)


def _computed(input: Tensor, weight: Tensor, bias: Tensor | None, *form: Any) -> Tensor:
    """The convolution in float32 where bfloat16 has no quick gradient, under autocast to bfloat16."""
    stride, _, dilation, _ = form
    quick = max(weight.shape[2:]) <= QUICK_KERNEL and stride == dilation == (1, 1)
    kind = input.device.type
    if quick or not torch.is_autocast_enabled(kind):
        return F.conv2d(input, weight, bias, *form)
    with torch.autocast(kind, enabled=False):
        result = F.conv2d(input.float(), weight.float(), None if bias is None else bias.float(), *form)
    return result.to(torch.get_autocast_dtype(kind))


def _grids(images: Tensor, spread: int) -> Tensor:
    """(B, D, H, W) -> (d * d * B, D, ceil(H / d), ceil(W / d)): every d-th row and column, from each of the first d."""
    B, D, H, W = images.shape
    images = F.pad(images, (0, -W % spread, 0, -H % spread))
    h, w = images.shape[2] // spread, images.shape[3] // spread
    apart = images.permute(0, 2, 3, 1).reshape(B, h, spread, w, spread, D).permute(2, 4, 0, 1, 3, 5)
    return apart.reshape(spread * spread * B, h, w, D).permute(0, 3, 1, 2)


def _joined(grids: Tensor, spread: int, shape: Sequence[int]) -> Tensor:
    """What `_grids` took apart, cut to ``shape``."""
    B, D, H, W = shape
    h, w = grids.shape[2:]
    apart = grids.permute(0, 2, 3, 1).reshape(spread, spread, B, h, w, D).permute(2, 3, 0, 4, 1, 5)
    return apart.reshape(B, h * spread, w * spread, D).permute(0, 3, 1, 2)[:, :, :H, :W]


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
