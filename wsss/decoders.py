"""The decoder of the U-shape: as many up-convolution blocks as the encoder has blocks, with skip connections.

Decoder block j of N works on the grid of encoder block N + 1 - j: the first on the deepest map alone, every
other on the map of the block before it, enlarged, beside the encoder's map of its own grid (Ronneberger et al.,
*U-Net*, MICCAI 2015).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import wsss.torchvision_guard  # noqa: F401 - must come before timm

from timm.layers.norm import LayerNorm2d  # isort: skip

LEAST_WIDTH = 16


class UpBlock(nn.Module):
    """Enlarge, set beside the skip connection, 3x3 convolution, norm, ReLU.

    The norm runs over the channels of each position: independent of the batch, and local, so that an image
    can be computed in tiles without any difference.

    Args:
        inputs: channels of the deeper map; 0 for the first block, which has the skip connection alone.
        skip: channels of the encoder's map.
        outputs: channels of the result.
        factor: how much finer the skip connection's grid is.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.convolution = nn.Conv2d(inputs + skip, outputs, 3, padding=1, bias=False)
        self.norm = LayerNorm2d(outputs)
        self.activation = nn.ReLU()

    def forward(self, deep: Tensor | None, skip: Tensor) -> Tensor:
        """(B, D, h, w) or None, (B, D', h', w') -> (B, D'', h', w')."""
        joined = skip if deep is None else torch.cat([self._enlarged(deep, skip), skip], 1)
        result: Tensor = self.activation(self.norm(self.convolution(joined)))
        return result

    def _enlarged(self, deep: Tensor, skip: Tensor) -> Tensor:
        # By the exact factor and then cut: resizing to the skip connection's size would shift odd sizes.
        if self.factor > 1:
            deep = F.interpolate(deep, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return deep[:, :, : skip.shape[2], : skip.shape[3]]


class Decoder(nn.Module):
    """N up-convolution blocks for an encoder of N blocks.

    Args:
        channels: of the encoder's blocks, shallowest first.
        strides: of the encoder's blocks, in pixels.
        width: channels of a decoder block; fewer where the skip connection has fewer, but at least 16.

    Attributes:
        channels: of the decoder's blocks, deepest grid first.
        strides: of the decoder's blocks, in pixels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        super().__init__()
        skips, self.strides = list(reversed(channels)), list(reversed(strides))
        self.channels = [min(width, max(LEAST_WIDTH, skip)) for skip in skips]
        inputs = [0, *self.channels[:-1]]
        coarser = [self.strides[0], *self.strides[:-1]]
        self.blocks = nn.ModuleList(
            UpBlock(given, skip, wanted, before // stride)
            for given, skip, wanted, before, stride in zip(
                inputs, skips, self.channels, coarser, self.strides, strict=True
            )
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The encoder's N maps, shallowest first -> the decoder's N maps, deepest grid first."""
        maps: list[Tensor] = []
        for block, skip in zip(self.blocks, reversed(features), strict=True):
            maps.append(block(maps[-1] if maps else None, skip))
        return maps
