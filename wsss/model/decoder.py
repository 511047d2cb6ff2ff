"""The decoder of the U-shape: as many up-convolution blocks as the encoder has blocks, with skip connections.

Decoder block j of N works on the grid of encoder block N + 1 - j: the first on the deepest map alone, every
other on the map of the block before it, enlarged, and the encoder's map of its own grid (Ronneberger et al.,
*U-Net*, MICCAI 2015). Skip connections are added, not set beside (Chaurasia and Culurciello, *LinkNet*, 2017), and
each block adds to what it is given: what the encoder knows at its deepest reaches the head from the first step on.
With narrowing blocks that are not residual, a few hundred steps taught a pretrained encoder's decoder nothing.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.model.heads import ImageDropout, LightContext, conv_norm_relu

LOW_CHANNELS = 32
"""Width of a projection of low-level features: wide ones outweigh the context (DeepLab-v3+, section 3.1)."""


class ChannelNorm(nn.LayerNorm):
    """Normalisation over the channels of each position: (B, D, h, w) -> the same."""

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class UpBlock(nn.Module):
    """Enlarge, add the skip connection, add a 3x3 convolution of the sum.

    ``x = enlarged(deep) + norm(conv1x1(skip))``; the result is ``x + relu(norm(conv3x3(x)))``. The norms run over the
    channels of each position: independent of the batch, and local, so that an image can be computed in tiles
    without any difference.

    Args:
        skip: channels of the encoder's map.
        width: channels of the deeper map and of the result.
        factor: how much finer the skip connection's grid is than the deeper map's.
    """

    def __init__(self, skip: int, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.lateral = nn.Sequential(nn.Conv2d(skip, width, 1, bias=False), ChannelNorm(width, eps=1e-6))
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), ChannelNorm(width, eps=1e-6), nn.ReLU()
        )

    def forward(self, deep: Tensor | None, skip: Tensor) -> Tensor:
        """(B, D, h, w) or None for the first block, (B, D', h', w') -> (B, D, h', w')."""
        joined: Tensor = self.lateral(skip)
        if deep is not None:
            joined = joined + self._enlarged(deep, skip)
        return joined + self.body(joined)  # type: ignore[no-any-return]

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
        width: channels of every block.

    Attributes:
        channels: of the decoder's blocks, deepest grid first.
        strides: of the decoder's blocks, in pixels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.strides = list(reversed(strides))
        self.channels = [width] * len(self.strides)
        coarser = [self.strides[0], *self.strides[:-1]]
        self.blocks = nn.ModuleList(
            UpBlock(skip, width, before // stride)
            for skip, before, stride in zip(reversed(channels), coarser, self.strides, strict=True)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The encoder's N maps, shallowest first -> the decoder's N maps, deepest grid first."""
        maps: list[Tensor] = []
        for block, skip in zip(self.blocks, reversed(features), strict=True):
            maps.append(block(maps[-1] if maps else None, skip))
        return maps


class LowLevelDecoder(nn.Module):
    """One block that brings the deepest map to stride 4 beside shallow ones: the decoder of DeepLab-v3+.

    Chen et al., ECCV 2018, arXiv 1802.02611: context at the deepest grid, enlarged, beside narrow projections of
    low-level features, then separable 3x3 convolutions. Here the context is a `LightHead`'s, the low-level features are
    those of the two shallowest blocks of stride 4 or more, and normalisation is over groups, independent of the batch.
    Unlike there, the enlarged context is also handed on as it is, so that detail corrects what the light head alone
    would say: in trainings of a few minutes the decoder by itself finds no class at all (10.6 mIoU on the sample
    after four epochs where the light head has 39.9, and both together 42.3).

    Args:
        channels: of the encoder's blocks, shallowest first.
        strides: of the encoder's blocks, in pixels.
        width: channels of the context; the block has one and a half times as many.

    Attributes:
        channels: [of the block].
        strides: [of the block], 4 where the encoder has such a block.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.low = [block for block, stride in enumerate(strides) if 4 <= stride < strides[-1]][:2]
        self.channels = [width + width // 2]
        self.strides = [strides[self.low[0]] if self.low else strides[-1]]
        joined = width // 2 + LOW_CHANNELS * len(self.low)
        self.context = LightContext(channels[-1], width)
        self.squeeze = conv_norm_relu(width, width // 2, 1)
        self.projections = nn.ModuleList(
            conv_norm_relu(channels[block], LOW_CHANNELS, 1) for block in self.low
        )
        self.join = nn.Sequential(_separable(joined, width // 2), _separable(width // 2, width // 2))
        self.dropout = ImageDropout(0.1)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The encoder's maps, shallowest first -> [(B, 3 width / 2, h, w)] on the finest grid used."""
        grid = features[self.low[0] if self.low else -1].shape[2:]
        context = self.context(features[-1])
        maps = [self.squeeze(context)]
        maps += [project(features[block]) for project, block in zip(self.projections, self.low, strict=True)]
        finest = [F.interpolate(each, size=grid, mode="bilinear", align_corners=False) for each in maps]
        context = F.interpolate(context, size=grid, mode="bilinear", align_corners=False)
        return [self.dropout(torch.cat([context, self.join(torch.cat(finest, 1))], 1))]


class MergedBranches(nn.Module):
    """All maps of a backbone whose branches run side by side, on the finest of their grids, one after the other.

    HRNetV2 (Wang et al., TPAMI 2020, arXiv 1908.07919): the coarser branches are enlarged bilinearly; the stem, which
    comes before the branches, is left out.

    Args:
        channels: of the encoder's blocks, the stem first.
        strides: of the encoder's blocks, in pixels.

    Attributes:
        channels: [of the result].
        strides: [of the finest branch].
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.channels = [sum(channels[1:])]
        self.strides = [strides[1]]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The encoder's maps, the stem first -> [(B, D, h, w)]."""
        grid = features[1].shape[2:]
        coarse = [
            F.interpolate(each, size=grid, mode="bilinear", align_corners=False) for each in features[2:]
        ]
        return [torch.cat([features[1], *coarse], 1)]


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, conv_norm_relu(inputs, outputs, 1))
