"""Tiles against the untiled network: equal within rounding, on the sampling grid, bounded."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.networks import tiny_backbone
from wsss.model.backbone import create_backbone
from wsss.model.heads import LightHead
from wsss.model.multi_exit import PlainNetwork, segmentation_network
from wsss.model.tiles import BLIND_MARGIN, TiledNetwork, receptive_margin, spans

CPU = torch.device("cpu")


def segmenter(head: str) -> PlainNetwork:
    structure, name = ("ushape", "light") if head == "ushape" else ("conv", head)
    network = segmentation_network(
        tiny_backbone(), 3, head=name, head_channels=8, structure=structure, decoder_channels=8
    ).eval()
    for parameter in network.parameters():  # the heads start near zero, which would hide every difference
        nn.init.normal_(parameter, std=0.3)
    return network


def tiled(network: PlainNetwork, tile: int) -> TiledNetwork:
    return TiledNetwork(network, device=CPU, precision=torch.float32, tile=tile)


def untiled(network: PlainNetwork, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        result: NDArray[np.float32] = network(pixels)[0].numpy()
    return result


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        ("light", (160, 224)),
        ("light", (163, 229)),
        ("light", (40, 301)),
        ("ushape", (160, 231)),
        ("ushape", (163, 229)),
        ("aspp", (24, 1203)),  # its rates reach 24 cells of 16 pixels further than the backbone
        ("aspp", (1200, 24)),
    ],
)
def test_tiles_equal_the_whole(head: str, size: tuple[int, int]) -> None:
    network = segmenter(head)
    tiles = tiled(network, 32)
    assert tiles.exact
    assert max(size) > tiles.tile + 2 * tiles.margin
    image = noise(*size)
    expected = untiled(network, image)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(tiles.maps(image), expected, atol=1e-5 * float(np.ptp(expected)))


def test_the_measured_margin_is_needed_and_enough() -> None:
    network = segmenter("light")
    tiles = tiled(network, 32)
    assert tiles.margin == receptive_margin(network, CPU) == 16  # 1 + 2 + 4 + 8 pixels, in cells of 16
    assert receptive_margin(segmenter("aspp"), CPU) == 16 + 24 * 16
    image = noise(160, 224)
    expected = untiled(network, image)
    tiles.margin = 0
    assert np.abs(tiles.maps(image) - expected).max() > 0.01


def test_same_padding_of_any_size_falls_as_in_the_whole() -> None:
    backbone = create_backbone("tf_efficientnet_lite0", weights="none", output_stride=16)
    network = PlainNetwork(backbone, LightHead(backbone.channels[-1], 3, 8)).eval()
    tiles = tiled(network, 64)
    assert tiles.margin == 432
    for width in (1023, 1034, 1040):  # remainders 15, 10 and 0 by the stride
        image = noise(21, width)
        assert width > tiles.tile + 2 * tiles.margin
        expected = untiled(network, image)
        np.testing.assert_allclose(tiles.maps(image), expected, atol=1e-5 * float(np.ptp(expected)))


def test_a_padded_backbone_in_tiles_equals_the_whole() -> None:
    backbone = create_backbone("convnext_atto", weights="none", output_stride=32)
    assert backbone.multiple == 32
    network = segmentation_network(backbone, 2, head="light", head_channels=8).eval()
    tiles = tiled(network, 64)
    image = noise(45, 1371)
    assert tiles.tile + 2 * tiles.margin < 1371
    expected = untiled(network, image)
    np.testing.assert_allclose(tiles.maps(image), expected, atol=1e-5 * float(np.ptp(expected)))


class _Global(nn.Module):
    """Features that depend on the whole image, as with attention or squeeze-and-excitation."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.features(images)
        return [*maps[:-1], maps[-1] * maps[-1].mean((2, 3), keepdim=True)]


def test_a_network_that_sees_everything_is_found_out() -> None:
    network = segmenter("light")
    network.backbone.features = _Global(network.backbone.features)
    tiles = tiled(network, 64)
    assert not tiles.exact
    assert tiles.margin == BLIND_MARGIN


def test_memory_does_not_grow_with_the_image() -> None:
    network = segmenter("light")
    tiles = tiled(network, 64)
    assert tiles.margin == 16  # measured here, before anything is counted
    seen: list[int] = []
    network.backbone.register_forward_hook(lambda _module, given, _out: seen.append(given[0][0, 0].numel()))
    for side in (128, 256, 512):
        seen.clear()
        tiles.maps(noise(side, side))
        assert max(seen) <= (64 + 2 * 16) ** 2
    assert len(seen) == 64


@given(
    length=st.integers(1, 3000),
    tile=st.integers(1, 20),
    margin=st.integers(0, 20),
    stride=st.sampled_from([8, 16, 32]),
)
def test_spans_cover_an_axis_once_on_the_grid(length: int, tile: int, margin: int, stride: int) -> None:
    found = list(spans(length, tile * stride, margin * stride, stride))
    assert [span.core for span in found] == [0, *(span.core_stop for span in found[:-1])]
    assert found[-1].core_stop == length
    for span in found:
        assert span.start % stride == 0
        assert (span.stop - span.start) % stride == length % stride
        assert span.start == 0 or span.start == span.core - margin * stride
        assert span.stop == length or span.stop >= span.core_stop + margin * stride
        assert span.stop <= length
