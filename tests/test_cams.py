"""Class activation maps against a slow version, and their laws."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks import tiny_plain
from wsss.cams import cam_grid, class_activation_views, resized
from wsss.networks import PlainNetwork


class Colours(nn.Module):
    """A stand-in for a network: its class maps are the colour channels, at full resolution, minus a half."""

    def forward(self, images: Tensor) -> Tensor:
        return images - 0.5


def colour_network() -> PlainNetwork:
    return Colours()  # type: ignore[return-value]


def class_activation_maps(
    network: PlainNetwork, image: Tensor, classes: list[int], *, scales: list[float], flip: bool
) -> Tensor:
    return class_activation_views(network, image, classes, scales=scales, flip=flip).cams()


def slow_cams(
    network: nn.Module, image: Tensor, classes: list[int], scales: list[float], flip: bool
) -> Tensor:
    height, width = image.shape[1:]
    grid = (-(-height // 4), -(-width // 4))
    maps = []
    for label in classes:
        total = torch.zeros(grid)
        for scale in scales:
            view = resized(image[None], scale)
            total += F.interpolate(network(view)[:, [label]].relu(), grid, mode="bilinear")[0, 0]
            if flip:
                mirrored = network(view.flip(3))[:, [label]].relu().flip(3)
                total += F.interpolate(mirrored, grid, mode="bilinear")[0, 0]
        maps.append(total / total.max() if total.max() > 0 else total)
    return torch.stack(maps)


IMAGE = torch.rand(3, 37, 50, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("scales", [[1.0], [1.0, 0.5, 1.5, 2.0]])
def test_cams_equal_the_slow_version(scales: list[float], flip: bool) -> None:
    network = tiny_plain(4).eval()
    with torch.no_grad():
        wanted = slow_cams(network, IMAGE, [2, 0], scales, flip)
    got = class_activation_maps(network, IMAGE, [2, 0], scales=scales, flip=flip)
    assert got.shape == (2, 10, 13)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_cams_lie_in_0_to_1_with_a_peak_of_1() -> None:
    got = class_activation_maps(colour_network(), IMAGE, [0, 1, 2], scales=[1.0], flip=True)
    assert float(got.min()) >= 0
    assert got.flatten(1).amax(1).tolist() == pytest.approx([1, 1, 1])


def test_a_class_without_activation_is_zero_not_nan() -> None:
    dark = torch.zeros(3, 8, 8)
    dark[0] = 1.0
    got = class_activation_maps(colour_network(), dark, [0, 1], scales=[1.0, 0.5], flip=True)
    assert torch.equal(got[1], torch.zeros(2, 2))
    assert torch.equal(got[0], torch.ones(2, 2))


def test_no_tags_give_no_maps() -> None:
    assert class_activation_maps(colour_network(), IMAGE, [], scales=[1.0], flip=True).shape == (0, 10, 13)


def test_cams_of_the_mirrored_image_are_the_mirrored_cams() -> None:
    image = IMAGE[:, :36, :48]  # whole cells, so that the grid mirrors onto itself
    network = tiny_plain(3).eval()
    straight = class_activation_maps(network, image, [0, 1], scales=[1.0, 0.5], flip=True)
    mirrored = class_activation_maps(network, image.flip(2), [0, 1], scales=[1.0, 0.5], flip=True)
    assert torch.allclose(mirrored, straight.flip(2), atol=1e-5)


def test_a_one_pixel_image() -> None:
    network = tiny_plain(3).eval()
    got = class_activation_maps(network, torch.rand(3, 1, 1), [1], scales=[0.5, 1.0, 2.0], flip=True)
    assert got.shape == (1, 1, 1)
    assert cam_grid(1, 5) == (1, 2)


def test_halves_are_the_cams_of_their_own_views() -> None:
    network = tiny_plain(4).eval()
    views = class_activation_views(network, IMAGE, [2, 0], scales=[1.0, 0.5, 2.0], flip=True)
    halves = views.mirror_halves(), views.scale_halves()
    assert halves[0] is not None
    assert halves[1] is not None
    upright = class_activation_maps(network, IMAGE, [2, 0], scales=[1.0, 0.5, 2.0], flip=False)
    assert torch.allclose(halves[0][0], upright, atol=1e-5)
    small = class_activation_maps(network, IMAGE, [2, 0], scales=[0.5], flip=True)
    large = class_activation_maps(network, IMAGE, [2, 0], scales=[1.0, 2.0], flip=True)
    assert torch.allclose(halves[1][0], small, atol=1e-5)
    assert torch.allclose(halves[1][1], large, atol=1e-5)


def test_there_are_no_halves_of_a_single_view() -> None:
    views = class_activation_views(colour_network(), IMAGE, [1], scales=[1.0], flip=False)
    assert views.mirror_halves() is None
    assert views.scale_halves() is None


def test_image_scores_of_every_view_pool_all_classes() -> None:
    views = class_activation_views(colour_network(), IMAGE, [1], scales=[1.0], flip=True, pool="max")
    wanted = (IMAGE - 0.5).flatten(1).amax(1)
    assert torch.allclose(views.logits, torch.stack([wanted, wanted]))
    assert (views.scales, views.mirrored) == ((1.0, 1.0), (False, True))
