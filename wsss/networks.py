"""Networks: a timm backbone, a head, and exits that exist in training only.

`PlainNetwork` is what is deployed: backbone and head. `MultiExitNetwork` wraps one and adds an exit to its
shallower blocks; ``deploy()`` gives the wrapped network back, so nothing of self-regulation remains at test
time. Networks take RGB in [0, 1] and normalise it themselves. ``D`` channels, ``C`` classes, ``N`` exits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.backbones import Backbone

EXIT_STRIDE = 8
"""Shallower maps are pooled to this stride before their exit head: at the stem a head costs 16x as much."""
ASPP_RATES = (6, 12, 18, 24)
LIGHT_RATES = (1, 3, 6)


@dataclass(frozen=True)
class ExitOutputs:
    """What a multi-exit network returns, shallowest exit first.

    Attributes:
        class_maps: per exit (B, C, h_k, w_k) logits.
        feature_maps: per exit (B, D, h_k, w_k) projected features; empty unless the network projects.
    """

    class_maps: list[Tensor]
    feature_maps: list[Tensor]


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
        self.dropout = nn.Dropout2d(0.1)
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


class ExitHead(nn.Module):
    """The classifier and segmenter of a shallow block: pool to stride 8, 1x1 reduce, 3x3, 1x1 to C."""

    def __init__(self, channels: int, stride: int, classes: int, width: int) -> None:
        super().__init__()
        self.pooling = max(1, EXIT_STRIDE // stride)
        self.body = nn.Sequential(_conv_norm_relu(channels, width, 1), _conv_norm_relu(width, width, 3))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h', w') logits, h' = ceil(h / pooling)."""
        if self.pooling > 1:
            features = F.avg_pool2d(features, self.pooling, ceil_mode=True, count_include_pad=False)
        maps: Tensor = self.classifier(self.body(features))
        return maps


class PlainNetwork(nn.Module):
    """Backbone and head: the network that is deployed.

    Args:
        backbone: gives one feature map per block.
        head: turns the deepest block's features into class maps.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, C, h, w) logits at the backbone's output stride."""
        maps: Tensor = self.head(self.backbone(images)[-1])
        return maps


class MultiExitNetwork(nn.Module):
    """A plain network in training, with exits on its shallower blocks (MEA).

    Args:
        plain: the network that is deployed; its head is the deepest exit.
        classes: channels of every class map.
        exits: blocks that get an exit, 1 = shallowest; the deepest may be named or not. Empty: all blocks.
        width: channels inside an exit head.
        project: channels of the projected feature maps (``sr_maps="features"``); 0 for none.

    Raises:
        ValueError: a block that the backbone does not have.
    """

    def __init__(
        self,
        plain: PlainNetwork,
        *,
        classes: int,
        exits: Sequence[int] = (),
        width: int = 64,
        project: int = 0,
    ) -> None:
        super().__init__()
        channels, strides = plain.backbone.channels, plain.backbone.strides
        depth = len(channels)
        if any(not 1 <= block <= depth for block in exits):
            raise ValueError(f"exits {list(exits)}: this backbone has the blocks 1 to {depth}")
        shallow = sorted(set(exits or range(1, depth)) - {depth})
        self.blocks = [block - 1 for block in shallow]
        self.plain = plain
        self.exits = nn.ModuleList(
            ExitHead(channels[index], strides[index], classes, width) for index in self.blocks
        )
        self.projections = nn.ModuleList(
            nn.Conv2d(channels[index], project, 1) for index in [*self.blocks, depth - 1] if project
        )

    def forward(self, images: Tensor) -> ExitOutputs:
        """(B, 3, H, W) RGB in [0, 1] -> the maps of all exits, shallowest first."""
        features = self.plain.backbone(images)
        class_maps = [exit_(features[index]) for exit_, index in zip(self.exits, self.blocks, strict=True)]
        class_maps.append(self.plain.head(features[-1]))
        used = [features[index] for index in [*self.blocks, len(features) - 1]]
        projected = [project(used[index]) for index, project in enumerate(self.projections)]
        return ExitOutputs(class_maps, projected)

    def deploy(self) -> PlainNetwork:
        """The plain network, in evaluation mode: what is left when training is over."""
        return self.plain.eval()


def classification_network(backbone: Backbone, classes: int) -> PlainNetwork:
    """The plain network of stage 1: class maps of the C foreground classes."""
    return PlainNetwork(backbone, CamHead(backbone.channels[-1], classes))


def segmentation_network(backbone: Backbone, classes: int, *, head: str, head_channels: int) -> PlainNetwork:
    """The plain network of stage 4: class maps of background (channel 0) and the C foreground classes."""
    channels = backbone.channels[-1]
    if head == "aspp":
        return PlainNetwork(backbone, AsppHead(channels, classes + 1))
    return PlainNetwork(backbone, LightHead(channels, classes + 1, head_channels))


def _conv_norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    # GroupNorm: independent of the batch, so of the number of images and processes that share a step.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(_groups(outputs), outputs),
        nn.ReLU(),
    )


def _groups(channels: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)
