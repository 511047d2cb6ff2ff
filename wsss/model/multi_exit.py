"""Networks: encoder, perhaps a decoder, a head, and exits that exist in training only.

`PlainNetwork` is what is deployed. Two structures: ``conv`` (a timm backbone and a head, DeepLab-like) and
``ushape`` (a decoder of as many up-convolution blocks between the two, U-Net-like). `MultiExitNetwork` wraps
one and adds an exit to its blocks; ``deploy()`` gives the wrapped network back, so nothing of self-regulation
remains at test time. Networks take RGB in [0, 1] and normalise it themselves. ``D`` channels, ``C`` classes.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsss.config import SegmentConfig, TrainConfig
from wsss.model.backbone import Backbone
from wsss.model.decoder import Decoder, LowLevelDecoder, MergedBranches
from wsss.model.heads import AsppHead, CamHead, ExitHead, LightHead, OcrHead, PixelHead


@dataclass(frozen=True)
class ExitOutputs:
    """What a multi-exit network returns, in the order of its blocks; the last is the network's own head.

    Attributes:
        class_maps: per exit (B, C, h_k, w_k) logits.
        feature_maps: per exit that SR-F acts on (B, D, h_k, w_k), where it compares features; else empty.
        detail: (B, D, h, w) features of a shallow block; None unless they are wanted.
        regions: (B, C, h, w) logits of an `OcrHead`'s coarse segmentation; None with other heads.
        scaled: per further scale of the images (B, C, h', w') logits of the network's own head.
        encoder: the exits that SR-F acts on.
        decoder: the exits that SR-L acts on. Without a decoder both act on all exits.
    """

    class_maps: list[Tensor]
    feature_maps: list[Tensor] = field(default_factory=list)
    detail: Tensor | None = None
    encoder: slice = field(default_factory=lambda: slice(None))
    decoder: slice = field(default_factory=lambda: slice(None))
    regions: Tensor | None = None
    scaled: list[Tensor] = field(default_factory=list)


class PlainNetwork(nn.Module):
    """Encoder, decoder (U-shape) and head: the network that is deployed.

    Args:
        backbone: the encoder; gives one feature map per block.
        head: turns the last block's features into class maps.
        decoder: of the U-shape, of low-level features behind `conv`, or what merges a backbone's branches.

    Attributes:
        channels: of every block, the encoder's from shallow to deep, then the decoder's.
        strides: of every block, in pixels.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        decoder: Decoder | LowLevelDecoder | MergedBranches | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.decoder = decoder
        self.channels = backbone.channels + (decoder.channels if decoder else [])
        self.strides = backbone.strides + (decoder.strides if decoder else [])

    @property
    def stride(self) -> int:
        """Pixels of the image per cell of the class maps."""
        return self.strides[-1]

    def blocks(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [0, 1] -> per block (B, D_k, ceil(H / stride_k), ceil(W / stride_k))."""
        features: list[Tensor] = self.backbone(images)
        return features if self.decoder is None else features + self.decoder(features)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, C, h, w) logits at ``stride``."""
        maps: Tensor = self.head(self.blocks(images)[-1])
        return maps


class MultiExitNetwork(nn.Module):
    """A plain network in training, with exits on its blocks (MEA).

    Args:
        plain: the network that is deployed; its head is the last exit.
        classes: channels of every class map.
        exits: blocks that get an exit, 1 = shallowest; a decoder's are counted on from the encoder's. The last
            block may be named or not. Empty: all blocks.
        width: channels inside an exit head; fewer where its block has fewer.
        project: whether SR-F compares features (``sr_maps="features"``): of the shallowest exit those that it
            classifies, so that something trains them, of every other a 1x1 projection of its block's to their width.
        tag_layers: classes of the tags, where a linear layer stands between each exit's pooled class map and its score;
            0: none. It starts as the identity.
        detail_block: block whose features are given out too, 1 = shallowest; 0: none.

    Attributes:
        blocks: of every exit but the last, 0 = shallowest.
        sides: the exits that SR-F and those that SR-L acts on.
        known: (E, classes, 3) float32: by exit and class, what was right, what is true and what was predicted in recent
            batches (see `wsss.train`).
        teaches: (E,) uint8: whether the exit has passed the bar for teachers.

    Raises:
        ValueError: a block that the network does not have.
    """

    def __init__(
        self,
        plain: PlainNetwork,
        *,
        classes: int,
        exits: Sequence[int] = (),
        width: int = 64,
        project: bool = False,
        tag_layers: int = 0,
        detail_block: int = 0,
    ) -> None:
        super().__init__()
        channels, strides = plain.channels, plain.strides
        depth = len(channels)
        if any(not 1 <= block <= depth for block in exits):
            raise ValueError(f"exits {list(exits)}: this network has the blocks 1 to {depth}")
        others = sorted(set(exits or range(1, depth)) - {depth})
        self.blocks = [block - 1 for block in others]
        self.plain = plain
        heads = [ExitHead(channels[index], strides[index], classes, width) for index in self.blocks]
        self.exits = nn.ModuleList(heads)
        self.sides = slice(None), slice(None)
        if isinstance(plain.decoder, Decoder):
            inside = sum(index < len(plain.backbone.channels) for index in self.blocks)
            self.sides = slice(inside), slice(inside, None)
        self.students = [*self.blocks, depth - 1][self.sides[0]][1:] if project else []
        self.projections = nn.ModuleList(
            nn.Conv2d(channels[index], heads[0].width, 1) for index in self.students
        )
        layers = [nn.Linear(tag_layers, tag_layers) for _ in range(tag_layers and len(others) + 1)]
        for layer in layers:
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.tag_layers = nn.ModuleList(layers)
        self.detail_block = detail_block
        self.known: Tensor
        self.teaches: Tensor
        self.register_buffer("known", torch.zeros(len(others) + 1, classes, 3))
        self.register_buffer("teaches", torch.zeros(len(others) + 1, dtype=torch.uint8))

    def forward(self, images: Tensor) -> ExitOutputs:
        """(B, 3, H, W) RGB in [0, 1] -> the maps of all exits, in the order of the blocks."""
        features = self.plain.blocks(images)
        class_maps = [exit_(features[index]) for exit_, index in zip(self.exits, self.blocks, strict=True)]
        head, regions = self.plain.head, None
        if isinstance(head, OcrHead):
            regions, final = head.both(features[-1])
        else:
            final = head(features[-1])
        class_maps.append(final)
        reduced: list[Tensor] = []
        if self.students:
            teacher: ExitHead = self.exits[0]  # type: ignore[assignment]
            reduced.append(teacher.reduced(features[self.blocks[0]]))
        reduced += [
            project(features[index]) for project, index in zip(self.projections, self.students, strict=True)
        ]
        detail = features[self.detail_block - 1].detach() if self.detail_block else None
        return ExitOutputs(class_maps, reduced, detail, *self.sides, regions)

    def deploy(self) -> PlainNetwork:
        """The plain network, in evaluation mode: what is left when training is over."""
        return self.plain.eval()


@torch.no_grad()
def folded(network: PlainNetwork) -> PlainNetwork:
    """A copy whose BatchNorm layers are part of the convolutions before them: for inference, 1.5x faster on a CPU.

    A trained BatchNorm is a fixed scale and shift per channel, which a convolution's weights and bias can hold (Jacob
    et al., CVPR 2018, section 3.2). Which layer follows which is taken from the order in which they were made.

    Args:
        network: in evaluation mode.

    Returns:
        The copy; the network itself where the copy's class maps of an image of noise differ by more than 1e-3 of
        their largest value.
    """
    result = copy.deepcopy(network)
    for (name, layer), (next_name, norm) in itertools.pairwise(list(result.named_modules())):
        if not isinstance(layer, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        if layer.out_channels == norm.num_features:
            result.set_submodule(name, fuse_conv_bn_eval(layer, norm))
            # timm's BatchNorm holds the activation that follows; torch's own holds nothing.
            result.set_submodule(next_name, getattr(norm, "act", nn.Identity()))
    noise = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    noise = noise.to(next(network.parameters()))
    wanted, found = network(noise), result(noise)
    return result if (found - wanted).abs().max() <= 1e-3 * wanted.abs().max() else network


def plain_network(config: TrainConfig, classes: int, backbone: Backbone) -> PlainNetwork:
    """The network that a training stage deploys, with random weights in decoder and head.

    Args:
        config: the stage's section. Of a `SegmentConfig` a segmenter: class maps of background (channel 0) and the C
            foreground classes; otherwise a classifier: class maps of the C classes.
        classes: C.
        backbone: the encoder.
    """
    segment = config if isinstance(config, SegmentConfig) else None
    decoder: Decoder | LowLevelDecoder | MergedBranches | None = None
    if config.structure == "ushape":
        decoder = Decoder(backbone.channels, backbone.strides, config.decoder_channels)
    elif segment and segment.head == "v3plus":
        decoder = LowLevelDecoder(backbone.channels, backbone.strides, segment.head_channels)
    elif backbone.parallel:
        decoder = MergedBranches(backbone.channels, backbone.strides)
    channels = (decoder or backbone).channels[-1]
    head: nn.Module
    if segment is None:
        head = CamHead(channels, classes)
    elif isinstance(decoder, Decoder | LowLevelDecoder):
        head = PixelHead(channels, classes + 1)
    elif segment.head == "aspp":
        head = AsppHead(channels, classes + 1)
    else:
        kind = OcrHead if segment.head == "ocr" else LightHead
        head = kind(channels, classes + 1, segment.head_channels)
    return PlainNetwork(backbone, head, decoder)
