"""Heads: what turns a block's features into class maps. ``D`` channels, ``C`` classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.runtime import distributed

EXIT_STRIDE = 8
"""Shallower maps are pooled to this stride before their exit head: at the stem a head costs 16x as much."""
VECTOR = 16
"""Numbers that a processor multiplies at a time."""
ASPP_RATES = (6, 12, 18, 24)
LIGHT_RATES = (1, 3, 6)


class CamHead(nn.Module):
    """A 1x1 convolution without bias: its output is at once the class activation map and, pooled, the score.

    It starts at zero: what random weights add to a map is noise that image-level training never removes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, classes, 1, bias=False)
        nn.init.zeros_(self.classifier.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w) logits."""
        maps: Tensor = self.classifier(features)
        return maps


class AsppHead(nn.Module):
    """DeepLab-v2's atrous spatial pyramid: the sum of four dilated 3x3 classifiers (Chen et al., TPAMI 2018)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in ASPP_RATES
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(branch.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w) logits."""
        return torch.stack([branch(features) for branch in self.branches]).sum(0)

    def local(self, features: Tensor) -> Tensor:
        """The part of ``forward`` in which an output depends on nearby inputs alone: all of it."""
        return self(features)  # type: ignore[no-any-return]

    def rest(self, maps: Tensor) -> Tensor:
        """What of ``forward`` comes after `local`: nothing."""
        return maps


class ImageDropout(nn.Module):
    """Dropout of whole channels (Tompson et al., CVPR 2015), drawn for the whole batch.

    Which channels an image loses does not depend on the process that holds it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> the same with channels at zero and the others enlarged; in training alone."""
        if not self.training:
            return features
        images = int(distributed.total(torch.tensor(len(features))))
        kept = features.new_empty((images, features.shape[1], 1, 1)).bernoulli_(1 - self.rate)
        return features * (kept / (1 - self.rate))[distributed.part(images)]


class LightHead(nn.Module):
    """ASPP for small machines: 1x1 reduction, depthwise dilated branches summed with the input, 1x1 classifier."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.reduce = _conv_norm_relu(channels, width, 1)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=rate, dilation=rate, groups=width, bias=False)
            for rate in LIGHT_RATES
        )
        self.mix = _conv_norm_relu(width, width, 1)
        self.dropout = ImageDropout(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w) logits."""
        return self.rest(self.local(features))

    def local(self, features: Tensor) -> Tensor:
        """The part of ``forward`` before the first GroupNorm, whose statistics are those of the whole map."""
        reduced: Tensor = self.reduce[0](features)
        return reduced

    def rest(self, maps: Tensor) -> Tensor:
        """What of ``forward`` comes after `local`: (B, width, h, w) -> (B, C, h, w) logits."""
        reduced = self.reduce[2](self.reduce[1](maps))
        context = torch.stack([reduced, *(branch(reduced) for branch in self.branches)]).sum(0)
        logits: Tensor = self.classifier(self.dropout(self.mix(context)))
        return logits


class PixelHead(nn.Module):
    """A 1x1 classifier: what a decoder's last map, already fine and rich in context, needs."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w) logits."""
        maps: Tensor = self.classifier(features)
        return maps

    def local(self, features: Tensor) -> Tensor:
        """The part of ``forward`` in which an output depends on nearby inputs alone: all of it."""
        return self(features)  # type: ignore[no-any-return]

    def rest(self, maps: Tensor) -> Tensor:
        """What of ``forward`` comes after `local`: nothing."""
        return maps


class ExitHead(nn.Module):
    """The classifier and segmenter of a block that is not the last: pool to stride 8, 1x1 reduce, 3x3, 1x1 to C.

    It is no wider than its block, since what reduces is not there to enlarge, and a multiple of 16 channels wide where
    it can be: processors multiply that many at a time (40 channels take 1.8 times as long as 32).
    """

    def __init__(self, channels: int, stride: int, classes: int, width: int) -> None:
        super().__init__()
        self.pooling = max(1, EXIT_STRIDE // stride)
        width = min(width, channels)
        width = width // VECTOR * VECTOR or width
        self.body = nn.Sequential(_conv_norm_relu(channels, width, 1), _conv_norm_relu(width, width, 3))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h', w') logits, h' = ceil(h / pooling)."""
        if self.pooling > 1:
            features = F.avg_pool2d(features, self.pooling, ceil_mode=True, count_include_pad=False)
        maps: Tensor = self.classifier(self.body(features))
        return maps


def _conv_norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    # GroupNorm: independent of the batch, so of the number of images and processes that share a step.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(_groups(outputs), outputs),
        nn.ReLU(),
    )


def _groups(channels: int) -> int:
    # At least two channels each: a single value, which a map of one cell would leave, has no deviation.
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0 and channels > groups)
