"""Class activation maps against a slow version, and their laws."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.networks import tiny_multi_exit, tiny_plain
from wsss.cams import CamViews, FusionRule, cam_grid, class_activation_views, fused_cams, resized
from wsss.model.multi_exit import PlainNetwork


class Colours(nn.Module):
    """A stand-in for a network: its class maps are the colour channels, at full resolution, minus a half."""

    def blocks(self, images: Tensor) -> list[Tensor]:
        return [images]

    def head(self, features: Tensor) -> Tensor:
        return features - 0.5


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


RULES: tuple[FusionRule, ...] = ("mean", "product")
Table = NDArray[np.float64]


def slow_fusion(cams: Table, rule: FusionRule, weight: float) -> Table:
    """Cell by cell, from the words of the docstring."""
    exits, classes, height, width = cams.shape
    fused = np.zeros((classes, height, width))
    for label in range(classes):
        seeing = [exit_ for exit_ in range(exits) if cams[exit_, label].max() > 0]
        weights = {exit_: 1.0 if exit_ == exits - 1 else weight for exit_ in seeing}
        total = sum(weights.values())
        for y in range(height):
            for x in range(width):
                values = {exit_: float(cams[exit_, label, y, x]) for exit_ in seeing if weights[exit_] > 0}
                if not values:
                    continue
                if rule == "mean":
                    fused[label, y, x] = sum(weights[e] * value for e, value in values.items()) / total
                elif min(values.values()) > 0:
                    logarithm = sum(weights[e] * math.log(value) for e, value in values.items()) / total
                    fused[label, y, x] = math.exp(logarithm)
        if fused[label].max() > 0:
            fused[label] /= fused[label].max()
    return fused


CAMS = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 4), st.integers(1, 4)),
    elements=st.one_of(st.just(0.0), st.floats(0.0078125, 1, width=32)),
)


@given(CAMS, st.sampled_from(RULES), st.sampled_from([0.0, 0.25, 1.0, 3.0]))
def test_fusion_equals_the_slow_version_and_stays_in_0_to_1(
    cams: NDArray[np.float32], rule: FusionRule, weight: float
) -> None:
    if len(cams) == 1 and cams.size:  # the maps of a single exit are taken as they are: divided already
        cams = cams / np.maximum(cams.max((2, 3), keepdims=True), np.float32(0.0078125))
    got = fused_cams(torch.from_numpy(cams), fusion=rule, exit_weight=weight).numpy()
    assert got.shape == cams.shape[1:]
    assert np.isfinite(got).all()
    assert ((got >= 0) & (got <= 1)).all()
    assert np.allclose(got, slow_fusion(cams.astype(np.float64), rule, weight), atol=1e-5)


@given(CAMS, st.sampled_from(RULES))
def test_equal_exits_fuse_to_themselves(cams: NDArray[np.float32], rule: FusionRule) -> None:
    single = torch.from_numpy(cams[:1])
    peak = single.amax((2, 3), keepdim=True)
    single = single / peak.clamp(min=1e-6)
    assert torch.allclose(fused_cams(single.expand(3, -1, -1, -1), fusion=rule), single[0], atol=1e-6)


def test_where_one_exit_is_zero_the_product_is_and_the_mean_is_not() -> None:
    cams = torch.tensor([[[[1.0, 0.0, 0.5]]], [[[0.0, 1.0, 0.5]]]])
    assert fused_cams(cams, fusion="product").tolist() == [[[0.0, 0.0, 1.0]]]
    assert fused_cams(cams, fusion="mean").tolist() == [[[1.0, 1.0, 1.0]]]
    assert fused_cams(cams, fusion="mean", exit_weight=3.0)[0, 0].tolist() == pytest.approx([1, 1 / 3, 2 / 3])


@pytest.mark.parametrize("rule", RULES)
def test_an_exit_that_sees_a_class_nowhere_has_no_say_in_it(rule: FusionRule) -> None:
    deepest = torch.rand(1, 5, 6, generator=torch.Generator().manual_seed(2))
    deepest = deepest / deepest.max()
    cams = torch.stack([torch.zeros_like(deepest), deepest])
    assert torch.allclose(fused_cams(cams, fusion=rule), deepest)
    assert not fused_cams(torch.zeros(3, 2, 4, 4), fusion=rule).any()


@pytest.mark.parametrize("rule", RULES)
def test_cams_of_exits_equal_the_slow_version(rule: FusionRule) -> None:
    network = tiny_multi_exit(4).eval()
    scales = [1.0, 0.5, 1.5]

    class Exit(nn.Module):
        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

        def forward(self, images: Tensor) -> Tensor:
            maps: Tensor = network(images).class_maps[self.index]
            return maps

    with torch.no_grad():
        each = [slow_cams(Exit(index), IMAGE, [2, 0], scales, True) for index in (2, 0, 3)]
    views = class_activation_views(
        network, IMAGE, [2, 0], scales=scales, flip=True, exits=[3, 1], fusion=rule, exit_weight=0.5
    )
    assert views.activations.shape == (3, 6, 2, 10, 13)
    wanted = slow_fusion(torch.stack(each).double().numpy(), rule, 0.5)
    assert np.allclose(views.cams().numpy(), wanted, atol=1e-4)


def test_without_exits_the_whole_network_gives_the_deployed_ones_very_maps() -> None:
    network = tiny_multi_exit(3).eval()
    whole = class_activation_views(network, IMAGE, [1, 2], scales=[1.0, 0.5], flip=True, fusion="product")
    plain = class_activation_views(network.deploy(), IMAGE, [1, 2], scales=[1.0, 0.5], flip=True)
    assert torch.equal(whole.cams(), plain.cams())
    assert torch.equal(whole.logits, plain.logits)
    fused = class_activation_views(network, IMAGE, [1, 2], scales=[1.0, 0.5], flip=True, exits=[2])
    assert torch.equal(fused.logits, plain.logits)  # confidence stays the deployed network's
    assert not torch.equal(fused.cams(), plain.cams())


@pytest.mark.parametrize("rule", RULES)
def test_fused_cams_of_the_mirrored_image_are_the_mirrored_cams(rule: FusionRule) -> None:
    image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(3))
    network = tiny_multi_exit(3).eval()
    straight, mirrored = (
        class_activation_views(network, view, [0, 1], scales=[1.0, 0.5], flip=True, exits=[1, 2], fusion=rule)
        for view in (image, image.flip(2))
    )
    assert torch.allclose(mirrored.cams(), straight.cams().flip(2), atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_halves_are_fused_like_the_whole(rule: FusionRule) -> None:
    network = tiny_multi_exit(3).eval()

    def views_of(scales: list[float], flip: bool) -> CamViews:
        return class_activation_views(
            network, IMAGE, [0, 2], scales=scales, flip=flip, exits=[2], fusion=rule
        )

    views = views_of([1.0, 0.5], True)
    mirrors, scales = views.mirror_halves(), views.scale_halves()
    assert mirrors is not None
    assert scales is not None
    assert torch.allclose(mirrors[0], views_of([1.0, 0.5], False).cams(), atol=1e-4)
    assert torch.allclose(scales[0], views_of([0.5], True).cams(), atol=1e-4)
    assert torch.allclose(scales[1], views_of([1.0], True).cams(), atol=1e-4)


def test_no_tags_give_no_fused_maps() -> None:
    views = class_activation_views(
        tiny_multi_exit(3).eval(), IMAGE, [], scales=[1.0], flip=True, exits=[1], fusion="product"
    )
    assert views.cams().shape == (0, 10, 13)


def test_exits_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"exits \[4\].*\[1, 2, 3\]"):
        class_activation_views(tiny_multi_exit(3), IMAGE, [0], scales=[1.0], flip=False, exits=[4])
    with pytest.raises(ValueError, match=r"exits \[1\].*\[\]"):
        class_activation_views(tiny_plain(3), IMAGE, [0], scales=[1.0], flip=False, exits=[1])
