"""TensorFlow's "same" depthwise convolutions without a padded copy of the whole map.

"Same" pads one more row below than above where sides are even, which a convolution's own padding cannot. timm therefore
copies the map into a larger one first; in an EfficientNet's strided blocks that takes three times as long as
the convolution. Padding by a stride more on both sides and leaving the first row of results out is the same.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

import wsss.runtime.torchvision_guard  # noqa: F401 - must come before timm

from timm.layers.conv2d_same import Conv2dSame  # isort: skip
from timm.layers.padding import get_same_padding  # isort: skip


class SameConvolution(Conv2dSame):
    """timm's `Conv2dSame`, the same weights and results."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, D', ceil(H / stride), ceil(W / stride))."""
        padding, kept = same_padding(x.shape[2:], self.kernel_size, self.stride, self.dilation)
        result = F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return result[:, :, kept[0], kept[1]]


SAME_CONVOLUTIONS = (Conv2dSame, SameConvolution)
"""Convolutions that pad by TensorFlow's rule."""


def without_copies(network: nn.Module) -> None:
    """Change a network's depthwise `Conv2dSame` layers into `SameConvolution`, in place.

    Others stay: a gradient of a dense convolution that is padded by more than half its kernel is slow on CPUs.
    """
    for module in network.modules():
        if type(module) is Conv2dSame and module.groups == module.in_channels:
            module.__class__ = SameConvolution  # the same parameters under the same names


def same_padding(
    sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[int], list[slice]]:
    """Along rows and columns: a padding for both sides, and which of the convolution's results are those of "same"."""
    paddings, kept = [], []
    for side, *form in zip(sides, kernel, stride, dilation, strict=True):
        padding, first = _padding(side, *form)
        paddings.append(padding)
        kept.append(slice(first, first - (-side // form[1])))
    return paddings, kept


def _padding(side: int, kernel: int, step: int, spread: int) -> tuple[int, int]:
    """Padding on both sides, and how many of the first results are too many."""
    total = get_same_padding(side, kernel, step, spread)
    before, after = total // 2, total - total // 2
    return (before, 0) if before == after else (before + step, 1)
