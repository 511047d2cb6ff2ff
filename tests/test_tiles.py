"""Tiles against the untiled network: equal where the margin covers what a pixel depends on, near it otherwise."""

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.networks import tiny_segmenter
from wsss.config import SegmentConfig
from wsss.model.backbone import create_backbone
from wsss.model.multi_exit import PlainNetwork, plain_network
from wsss.model.tiles import MARGIN, tiled_maps, windows
from wsss.model.weights import BUNDLED_BACKBONE


def untiled(network: PlainNetwork, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.inference_mode():
        result: NDArray[np.float32] = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0].numpy()
    return result


def tiled(network: PlainNetwork, image: NDArray[np.generic], tile: int) -> NDArray[np.float32]:
    with torch.inference_mode():
        return tiled_maps(network, image, tile=tile, strides=network.strides)


@pytest.mark.parametrize("structure", ["conv", "ushape"])
@pytest.mark.parametrize("size", [(70, 1203), (1200, 24)])
def test_tiles_equal_the_whole_where_the_margin_is_enough(structure: str, size: tuple[int, int]) -> None:
    network = tiny_segmenter(3, structure=structure).eval()
    if structure == "conv":
        network.head = nn.Conv2d(10, 4, 3, padding=1)  # sees its neighbours alone
    for parameter in network.parameters():  # heads start near zero, which would hide every difference
        nn.init.normal_(parameter, std=0.3)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = untiled(network, image)
    assert np.ptp(expected) > 0.5
    for pixels in (image, image.astype(np.float32) / 255):
        np.testing.assert_allclose(tiled(network, pixels, 100), expected, atol=1e-5 * float(np.ptp(expected)))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1410, 1411])
def test_tiles_of_a_network_that_sees_further_are_near_the_whole(width: int) -> None:
    """Pretrained, with a light head: beyond its margin, and with GroupNorm, a tile is an approximation."""
    torch.manual_seed(0)
    backbone = create_backbone(BUNDLED_BACKBONE, weights="bundled", output_stride=16)
    network = plain_network(SegmentConfig(head="light", head_channels=64), 7, backbone).eval()
    parts = [getattr(skimage.data, name)()[:250] for name in ("coffee", "chelsea", "astronaut")]
    image = np.concatenate(parts, axis=1)[:, :width]
    expected = untiled(network, image)
    found = tiled(network, image, 512)
    assert np.abs(found - expected).mean() < 0.02 * np.ptp(expected)
    assert np.abs(found - expected).max() < 0.12 * np.ptp(expected)


def test_memory_does_not_grow_with_the_image() -> None:
    seen: list[int] = []

    def forward(pixels: Tensor) -> Tensor:
        seen.append(pixels[0, 0].numel())
        return pixels[:, :, ::16, ::16]

    for side in (1000, 2000):
        seen.clear()
        image = np.random.default_rng(0).random((side, side, 3), np.float32)
        maps = tiled_maps(forward, image, tile=256, strides=(2, 16))
        assert np.array_equal(maps, np.moveaxis(image, 2, 0)[:, ::16, ::16])
        assert max(seen) <= (256 + 2 * MARGIN + 2 * 16) ** 2
    assert len(seen) == 64


@given(length=st.integers(1, 5000), tile=st.integers(1, 1600), grid=st.sampled_from([8, 16, 32]))
def test_windows_cover_an_axis_once_on_the_grid(length: int, tile: int, grid: int) -> None:
    found = windows(length, tile, grid)
    cores = [core for _, core in found]
    assert [core.start for core in cores] == [0, *(core.stop for core in cores[:-1])]
    assert cores[-1].stop == length
    for window, core in found:
        assert core.start < core.stop
        assert core.stop - core.start <= max(tile, grid) + grid
        assert window.start % grid == core.start % grid == 0
        assert (window.stop - window.start) % grid == length % grid
        assert window.start == 0 or window.start <= core.start - MARGIN
        assert window.stop == length or window.stop >= core.stop + MARGIN
