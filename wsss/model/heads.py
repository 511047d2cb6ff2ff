"""Heads: what turns a block's features into class maps. ``D`` channels, ``C`` classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        return self.classifier(features)  # type: ignore[no-any-return]


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


class ImageDropout(nn.Module):
    """Dropout of whole channels (Tompson et al., CVPR 2015), in training alone, drawn for the whole batch.

    Attributes:
        batch: where several processes share a batch, the number of its images and those of this process: then it does
            not depend on the process which channels an image loses. None: all images are here.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.batch: tuple[int, slice] | None = None

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> the same with channels at zero and the others scaled up."""
        if not self.training:
            return features
        images, own = self.batch or (len(features), slice(None))
        kept = features.new_empty((images, features.shape[1], 1, 1)).bernoulli_(1 - self.rate)
        return features * (kept / (1 - self.rate))[own]


class LightContext(nn.Module):
    """ASPP for small machines: 1x1 reduction, depthwise dilated branches summed with the input, 1x1 mix."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reduce = conv_norm_relu(channels, width, 1)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=rate, dilation=rate, groups=width, bias=False)
            for rate in LIGHT_RATES
        )
        self.mix = conv_norm_relu(width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, width, h, w)."""
        reduced = self.reduce(features)
        return self.mix(torch.stack([reduced, *(branch(reduced) for branch in self.branches)]).sum(0))  # type: ignore[no-any-return]


class LightHead(nn.Module):
    """`LightContext`, dropout and a 1x1 classifier."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.context = LightContext(channels, width)
        self.dropout = ImageDropout(0.1)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w) logits."""
        return self.classifier(self.dropout(self.context(features)))  # type: ignore[no-any-return]


class OcrHead(nn.Module):
    """Object-contextual representations (Yuan, Chen, Wang, ECCV 2020, arXiv 1909.11065).

    A coarse segmentation says where each class is (soft object regions); the mean of a region's pixels represents it;
    each pixel attends to all regions, and is classified by itself and what it attended to. The coarse segmentation has
    a loss of its own in training (`wsss.losses.loss_terms`). Published: width 512, of keys 256. Normalisation is over
    groups here, independent of the batch.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        keys = width // 2
        self.regions = nn.Sequential(conv_norm_relu(channels, channels, 1), nn.Conv2d(channels, classes, 1))
        self.pixels = conv_norm_relu(channels, width, 3)
        self.query = nn.Sequential(conv_norm_relu(width, keys, 1), conv_norm_relu(keys, keys, 1))
        self.key = nn.Sequential(conv_norm_relu(width, keys, 1), conv_norm_relu(keys, keys, 1))
        self.value = conv_norm_relu(width, keys, 1)
        self.context = conv_norm_relu(keys, width, 1)
        self.fuse = conv_norm_relu(2 * width, width, 1)
        self.dropout = ImageDropout(0.05)
        self.classifier = nn.Conv2d(width, classes, 1)

    def both(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, h, w) -> (B, C, h, w) logits of the coarse segmentation, and of the final one."""
        regions, pixels = self.regions(features), self.pixels(features)
        shares = regions.flatten(2).softmax(2)  # (B, C, hw): each region's distribution over positions
        objects = (pixels.flatten(2) @ shares.transpose(1, 2))[..., None]  # (B, width, C, 1)
        query, key, value = (
            layer(of).flatten(2)
            for layer, of in ((self.query, pixels), (self.key, objects), (self.value, objects))
        )
        relation = (query.transpose(1, 2) @ key / query.shape[1] ** 0.5).softmax(2)  # (B, hw, C)
        context = self.context((value @ relation.transpose(1, 2)).unflatten(2, pixels.shape[2:]))
        return regions, self.classifier(self.dropout(self.fuse(torch.cat([context, pixels], 1))))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w) logits."""
        return self.both(features)[1]


class PixelHead(nn.Module):
    """A 1x1 classifier: what a decoder's last map, already fine and rich in context, needs."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w) logits."""
        return self.classifier(features)  # type: ignore[no-any-return]


class ExitHead(nn.Module):
    """The classifier and segmenter of a block that is not the last: pool to stride 8, 1x1 reduce, 3x3, 1x1 to C.

    It is no wider than its block, since what reduces is not there to enlarge, and a multiple of 16 channels wide where
    it can be: processors multiply that many at a time (40 channels take 1.8 times as long as 32).
    """

    def __init__(self, channels: int, stride: int, classes: int, width: int) -> None:
        super().__init__()
        self.pooling = max(1, EXIT_STRIDE // stride)
        width = min(width, channels)
        self.width = width = width // VECTOR * VECTOR or width
        self.body = nn.Sequential(conv_norm_relu(channels, width, 1), conv_norm_relu(width, width, 3))
        self.classifier = nn.Conv2d(width, classes, 1)

    def reduced(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, width, h', w') what the exit classifies, h' = ceil(h / pooling)."""
        if self.pooling > 1:
            features = F.avg_pool2d(features, self.pooling, ceil_mode=True, count_include_pad=False)
        return self.body(features)  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h', w') logits, h' = ceil(h / pooling)."""
        return self.classifier(self.reduced(features))  # type: ignore[no-any-return]


def conv_norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution, GroupNorm and ReLU: (B, inputs, h, w) -> (B, outputs, h, w)."""
    # GroupNorm: independent of the batch, so of the number of images and processes that share a step.
    # At least two channels a group: a single value, which a map of one cell would leave, has no deviation.
    groups = next(groups for groups in (8, 4, 2, 1) if outputs % groups == 0 and outputs > groups)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(groups, outputs),
        nn.ReLU(),
    )
