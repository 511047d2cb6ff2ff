"""The exit heads of the authors' code as its description has them, to compare costs with: never used in training."""

from torch import Tensor, nn

from wsss.model.multi_exit import MultiExitNetwork


class ReleasedHead(nn.Module):
    """Two 3x3 convolutions of 256 channels at the block's own resolution, then 1x1 to C.

    Normalised like ours, so that the heads alone differ.
    """

    def __init__(self, channels: int, classes: int, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w) logits."""
        maps: Tensor = self.layers(features)
        return maps


def with_released_heads(network: MultiExitNetwork, classes: int) -> MultiExitNetwork:
    """Put the released heads in place of the network's exits; ``classes`` counts background."""
    channels = network.plain.channels
    network.exits = nn.ModuleList(ReleasedHead(channels[index], classes) for index in network.blocks)
    return network
