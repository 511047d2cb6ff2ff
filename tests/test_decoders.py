"""The U-shape's decoder: blocks, widths, grids, and that enlarging keeps every cell in its place."""

import pytest
import torch
from torch import Tensor

from tests.networks import CHANNELS, tiny_backbone
from wsss.model.decoder import Decoder, UpBlock
from wsss.model.heads import PixelHead
from wsss.model.multi_exit import MultiExitNetwork, classification_network, segmentation_network

IMAGES = torch.rand(2, 3, 70, 45, generator=torch.Generator().manual_seed(5))


def test_as_many_blocks_as_the_encoder_each_on_its_grid() -> None:
    decoder = Decoder([8, 40, 112, 320], [2, 4, 16, 16], 64)
    assert decoder.channels == [64, 64, 64, 64]
    assert decoder.strides == [16, 16, 4, 2]
    features = [
        torch.rand(1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip([8, 40, 112, 320], [2, 4, 16, 16], strict=True)
    ]
    shapes = [tuple(single.shape) for single in decoder(features)]
    assert shapes == [(1, 64, 4, 6), (1, 64, 4, 6), (1, 64, 16, 24), (1, 64, 32, 48)]


def test_a_block_adds_the_enlarged_map_the_skip_connection_and_a_convolution() -> None:
    torch.manual_seed(0)
    block = UpBlock(2, 5, 2)
    deep, skip = torch.rand(1, 5, 4, 3), torch.rand(1, 2, 7, 6)
    enlarged = torch.zeros(1, 5, 8, 6)
    for y in range(8):  # half-pixel centres
        for x in range(6):
            enlarged[:, :, y, x] = bilinear(deep, (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5)
    joined = enlarged[:, :, :7] + normalised(block.lateral[0](skip))
    wanted = joined + normalised(block.body[0](joined)).relu()
    assert torch.allclose(block(deep, skip), wanted, atol=1e-5)


def normalised(maps: Tensor) -> Tensor:
    mean, deviation = maps.mean(1, keepdim=True), maps.var(1, unbiased=False, keepdim=True)
    return (maps - mean) / (deviation + 1e-6).sqrt()


def bilinear(maps: Tensor, y: float, x: float) -> Tensor:
    height, width = maps.shape[2:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = maps[:, :, top, left] * (1 - across) + maps[:, :, top, right] * across
    lower = maps[:, :, below, left] * (1 - across) + maps[:, :, below, right] * across
    return upper * (1 - down) + lower * down


def test_the_first_block_stands_on_the_deepest_map_alone() -> None:
    block = UpBlock(4, 6, 1)
    assert block(None, torch.rand(1, 4, 3, 3)).shape == (1, 6, 3, 3)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_networks_of_the_u_shape_give_maps_at_the_shallowest_stride(task: str) -> None:
    backbone = tiny_backbone()
    if task == "classification":
        network = classification_network(backbone, 3, structure="ushape", decoder_channels=8)
    else:
        network = segmentation_network(
            backbone, 2, head="aspp", head_channels=8, structure="ushape", decoder_channels=8
        )
        assert isinstance(network.head, PixelHead)
    assert network.channels == [*CHANNELS, 8, 8, 8, 8]
    assert network.strides == [2, 4, 8, 16, 16, 8, 4, 2]
    assert network.stride == 2
    assert network.eval()(IMAGES).shape == (2, 3, 35, 23)


def test_exits_of_the_u_shape_and_its_deployment() -> None:
    plain = segmentation_network(
        tiny_backbone(), 2, head="light", head_channels=8, structure="ushape", decoder_channels=8
    )
    network = MultiExitNetwork(plain, classes=3, width=8).eval()
    outputs = network(IMAGES)
    sizes = [tuple(single.shape[2:]) for single in outputs.class_maps]
    assert sizes == [(9, 6), (9, 6), (9, 6), (5, 3), (5, 3), (9, 6), (9, 6), (35, 23)]
    assert len(outputs.class_maps[outputs.encoder]) == 4
    assert len(outputs.class_maps[outputs.decoder]) == 4
    assert torch.equal(network.deploy()(IMAGES), outputs.class_maps[-1])
    assert not [name for name in network.deploy().state_dict() if "exit" in name]
    with pytest.raises(ValueError, match=r"exits \[9\].*blocks 1 to 8"):
        MultiExitNetwork(plain, classes=3, exits=(9,))
