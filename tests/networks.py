"""Tiny networks for tests: four blocks of strides 2, 4, 8, 16 that run in milliseconds."""

import torch
from torch import Tensor, nn

from wsss.config import SegmentConfig
from wsss.model.backbone import Backbone
from wsss.model.heads import CamHead
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork, plain_network

CHANNELS = [4, 6, 8, 10]


class TinyFeatures(nn.Module):
    """Four strided convolutions with BatchNorm, each a block."""

    def __init__(self) -> None:
        super().__init__()
        sides = zip([3, *CHANNELS], CHANNELS, strict=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in sides
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, current = [], images
        for block in self.blocks:
            current = block(current)
            maps.append(current)
        return maps


def tiny_backbone(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(
        TinyFeatures(),
        channels=CHANNELS,
        strides=[2, 4, 8, 16],
        ends=[f"blocks.{block}" for block in range(4)],
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
    )


def tiny_plain(classes: int, seed: int = 0) -> PlainNetwork:
    backbone, head = tiny_backbone(seed), CamHead(CHANNELS[-1], classes)
    nn.init.normal_(head.classifier.weight)  # it starts at zero, which would make comparisons of outputs void
    return PlainNetwork(backbone, head)


def tiny_multi_exit(classes: int, seed: int = 0, project: bool = False) -> MultiExitNetwork:
    return MultiExitNetwork(tiny_plain(classes, seed), classes=classes, width=8, project=project)


def tiny_segmenter(
    classes: int, *, structure: str = "conv", head: str = "light", width: int = 8
) -> PlainNetwork:
    config = SegmentConfig(structure=structure, head=head, head_channels=width, decoder_channels=width)  # type: ignore[arg-type]
    return plain_network(config, classes, tiny_backbone())
