"""Local refinement against slow loops on a tiny image, and the laws that it keeps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from wsss.par import DILATIONS, ITERATIONS, local_affinity, refine_local

Map = NDArray[np.float64]


def offsets(dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


def at(maps: Map, y: int, x: int) -> Map:
    """The value (D,) of maps (D, H, W) at a pixel; borders repeat."""
    return maps[:, min(max(y, 0), maps.shape[1] - 1), min(max(x, 0), maps.shape[2] - 1)]


def softmax(energies: list[float]) -> list[float]:
    largest = max(energies)
    powers = [math.exp(energy - largest) for energy in energies]
    return [power / sum(powers) for power in powers]


def slow_row(image: Map, y: int, x: int, dilations: tuple[int, ...], colour: float) -> list[float]:
    """PAR's kernel of one pixel, as the paper's equations say it."""
    own = image[:, y, x]
    neighbours = np.stack([at(image, y + dy, x + dx) for dy, dx in offsets(dilations)])
    spread = neighbours.std(0) + 1e-4
    colours = softmax([float(-np.mean((np.abs(n - own) / (colour * spread)) ** 2)) for n in neighbours])
    distances = np.array([math.hypot(dy, dx) for dy, dx in offsets(dilations)])
    places = softmax([float(-((d / (0.3 * distances.std())) ** 2)) for d in distances])
    return [(c + 0.01 * p) / 1.01 for c, p in zip(colours, places, strict=True)]


def slow_refinement(
    image: Map, maps: Map, iterations: int, dilations: tuple[int, ...], colour: float = 0.3
) -> Map:
    for _ in range(iterations):
        result = np.zeros_like(maps)
        for y in range(maps.shape[1]):
            for x in range(maps.shape[2]):
                row = slow_row(image, y, x, dilations, colour)
                for weight, (dy, dx) in zip(row, offsets(dilations), strict=True):
                    result[:, y, x] += weight * at(maps, y + dy, x + dx)
        maps = result
    return maps


def random_problem(
    seed: int, batch: int = 1, labels: int = 3, size: tuple[int, int] = (7, 9)
) -> tuple[Tensor, Tensor]:
    """Images of 8 bits and probabilities."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (batch, 3, *size), generator=generator) / 255
    return image, torch.rand((batch, labels, *size), generator=generator).softmax(1)


@pytest.mark.parametrize("dilations", [(1,), (2,), (1, 2, 4)])
@pytest.mark.parametrize(("iterations", "colour"), [(1, 0.3), (3, 0.3), (2, 1.0)])
def test_refinement_agrees_with_slow_loops(
    dilations: tuple[int, ...], iterations: int, colour: float
) -> None:
    image, maps = random_problem(0, batch=2)
    got = refine_local(image, maps, iterations=iterations, dilations=dilations, colour=colour)
    for index in range(2):
        wanted = slow_refinement(
            image[index].double().numpy(), maps[index].double().numpy(), iterations, dilations, colour
        )
        assert got[index].numpy() == pytest.approx(wanted, abs=2e-5)


def test_the_published_settings_are_the_default() -> None:
    image, maps = random_problem(1, size=(5, 6))
    wanted = slow_refinement(image[0].double().numpy(), maps[0].double().numpy(), 10, (1, 2, 4, 8, 12, 24))
    assert refine_local(image, maps)[0].numpy() == pytest.approx(wanted, abs=5e-5)
    assert (ITERATIONS, DILATIONS) == (10, (1, 2, 4, 8, 12, 24))


def test_refinement_snaps_noise_to_the_images_edge() -> None:
    image = torch.zeros(3, 12, 16)
    image[:, :, 8:] = 0.8
    truth = torch.zeros(12, 16)
    truth[:, 8:] = 1
    noise = torch.randn((12, 16), generator=torch.Generator().manual_seed(0))
    bright = (0.2 + 0.6 * truth + 0.3 * noise).clamp(0, 1)
    maps = torch.stack([1 - bright, bright])[None]
    refined = refine_local(image, maps)
    assert (maps.argmax(1)[0] == truth).float().mean() < 0.95
    assert (refined.argmax(1)[0] == truth).all()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**20), height=st.integers(1, 9), width=st.integers(1, 9), labels=st.integers(1, 4)
)
def test_distributions_stay_distributions(seed: int, height: int, width: int, labels: int) -> None:
    image, maps = random_problem(seed, labels=labels, size=(height, width))
    affinity = local_affinity(image)
    assert affinity.shape == (1, 48, height, width)
    assert torch.allclose(affinity.sum(1), torch.ones(1, height, width), atol=1e-5)
    assert (affinity >= 0).all()
    refined = refine_local(image, maps)
    assert torch.allclose(refined.sum(1), torch.ones(1, height, width), atol=1e-4)
    assert (refined >= 0).all()
    assert (refined <= maps.amax((2, 3), keepdim=True) + 1e-4).all()  # convex combinations


@settings(max_examples=15)
@given(seed=st.integers(0, 2**20), dims=st.sampled_from([(2,), (3,), (2, 3)]))
def test_mirroring_commutes(seed: int, dims: tuple[int, ...]) -> None:
    image, maps = random_problem(seed)
    mirrored = refine_local(image.flip(dims), maps.flip(dims), iterations=3)
    assert torch.allclose(mirrored, refine_local(image, maps, iterations=3).flip(dims), atol=1e-4)


def test_classes_and_images_of_a_batch_do_not_see_each_other() -> None:
    image, maps = random_problem(3, batch=3, labels=4)
    together = refine_local(image, maps)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(refine_local(image, maps[:, order]), together[:, order])
    for index in range(3):
        alone = refine_local(image[index], maps[index : index + 1])
        assert torch.allclose(alone[0], together[index], atol=1e-6)


def test_nothing_changes_where_all_is_constant() -> None:
    image = torch.full((3, 6, 8), 0.37)
    maps = torch.tensor([0.2, 0.5, 0.3]).reshape(1, 3, 1, 1).expand(1, 3, 6, 8)
    assert torch.allclose(refine_local(image, maps), maps, atol=1e-5)


def test_a_flat_image_takes_the_mean_of_its_neighbours() -> None:
    affinity = local_affinity(torch.full((1, 3, 4, 4), 0.9), dilations=(1,))
    colour_alone = (affinity * 1.01 - 0.01 / 8).mean(1)  # the position kernel's mean is 1/8
    assert torch.allclose(colour_alone, torch.full((1, 4, 4), 1 / 8), atol=1e-6)


def test_brightness_and_contrast_hardly_matter() -> None:
    image, _ = random_problem(4)
    assert torch.allclose(local_affinity(image), local_affinity(0.5 * image + 0.3), atol=5e-3)


def test_no_iteration_changes_nothing() -> None:
    image, maps = random_problem(5)
    assert torch.equal(refine_local(image, maps, iterations=0), maps)


def test_half_precision_is_left_outside() -> None:
    image, maps = random_problem(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined = refine_local(image.double(), maps.bfloat16())
    assert refined.dtype == torch.float32
    assert torch.equal(refined, refine_local(image, maps.bfloat16().float()))


def test_what_does_not_fit_is_refused() -> None:
    image, maps = random_problem(7)
    with pytest.raises(ValueError, match="of one size"):
        refine_local(image, maps[..., 1:])
    with pytest.raises(ValueError, match="images \\(B, 3, H, W\\)"):
        local_affinity(image[:, :1])
    with pytest.raises(ValueError, match="at least one dilation"):
        local_affinity(image, dilations=())
