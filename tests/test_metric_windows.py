"""Windows against plain loops and scipy's filters; the random label maps that the other metric tests share."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from wsss.metrics.boundary import Labels, dilated, eroded, uniform, window_max
from wsss.metrics.counting import counted

SHAPES = ((1, 1), (1, 2), (1, 17), (23, 1), (2, 31), (7, 9), (24, 17), (70, 90), (150, 130))
GRAINS = (1, 2, 3, 5, 9, 20, 40)

SYMMETRIES: dict[str, Callable[[Labels], Labels]] = {
    "left to right": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "transposed": lambda image: image.swapaxes(0, 1),
    "turned": lambda image: np.rot90(image),
}


def random_map(seed: int, shape: tuple[int, int], labels: int, ignore: bool = True) -> Labels:
    """(H, W) uint8: blocks of random size, some lines and specks of other labels, and perhaps 255."""
    random = np.random.default_rng(seed)
    grain = int(random.choice(GRAINS))
    coarse = random.integers(0, labels, (shape[0] // grain + 1, shape[1] // grain + 1))
    image = np.kron(coarse, np.ones((grain, grain)))[: shape[0], : shape[1]].astype(np.uint8)
    values = [*range(labels), 255] if ignore else [*range(labels)]
    for _ in range(random.integers(4)):  # thin parts
        width = int(random.integers(1, 4))
        start = int(random.integers(max(shape)))
        image[start : start + width] = random.choice(values)
        image[:, start : start + width] = random.choice(values)
    specks = random.random(shape) < random.choice([0, 0.02, 0.2])
    image[specks] = random.choice(values, specks.sum())
    if ignore and random.random() < 0.05:
        image[:] = 255
    return image


def random_pair(seed: int, shape: tuple[int, int], labels: int) -> tuple[Labels, Labels]:
    """A truth and a prediction that has parts of it right, both with some 255."""
    truth, prediction, other = (random_map(3 * seed + part, shape, labels) for part in range(3))
    right = random_map(seed, shape, 2, ignore=False) == 1
    return truth, np.where(right & (truth != 255), truth, np.where(other == 255, 255, prediction))


def slow_window(values: Labels, y: int, x: int, radius: int) -> list[int]:
    """The values in the square around a pixel that are in the image."""
    height, width = values.shape
    rows = range(max(y - radius, 0), min(y + radius, height - 1) + 1)
    columns = range(max(x - radius, 0), min(x + radius, width - 1) + 1)
    return [int(values[row, column]) for row in rows for column in columns]


def each_window(values: Labels, radius: int, what: Callable[[list[int]], int]) -> list[list[int]]:
    return [
        [what(slow_window(values, y, x, radius)) for x in range(values.shape[1])]
        for y in range(values.shape[0])
    ]


@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    radius=st.integers(0, 11),  # also wider than the image
    labels=st.integers(2, 6),
)
@settings(max_examples=60)
def test_windows_equal_plain_loops(seed: int, height: int, width: int, radius: int, labels: int) -> None:
    image = random_map(seed, (height, width), labels)
    assert window_max(image, radius).tolist() == each_window(image, radius, max)
    assert uniform(image, radius).tolist() == each_window(image, radius, lambda window: len(set(window)) == 1)
    assert dilated(image == 1, radius).tolist() == each_window(image, radius, lambda window: 1 in window)
    assert eroded(image == 1, radius).tolist() == each_window(
        image, radius, lambda window: set(window) == {1}
    )


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), radius=st.integers(0, 20))
@settings(max_examples=60)
def test_windows_equal_scipys_filters(seed: int, shape: tuple[int, int], radius: int) -> None:
    image, size = random_map(seed, shape, 6), 2 * radius + 1
    largest = ndimage.maximum_filter(image, size, mode="nearest")
    smallest = ndimage.minimum_filter(image, size, mode="nearest")
    np.testing.assert_array_equal(window_max(image, radius), largest)
    np.testing.assert_array_equal(uniform(image, radius), largest == smallest)
    near = ndimage.maximum_filter(image == 2, size, mode="nearest")
    np.testing.assert_array_equal(dilated(image == 2, radius), near)


@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from(SHAPES),
    radius=st.integers(1, 6),
    more=st.integers(0, 14),
)
@settings(max_examples=60)
def test_uniform_windows_eroded_are_those_of_a_larger_radius(
    seed: int, shape: tuple[int, int], radius: int, more: int
) -> None:
    image = random_map(seed, shape, 4)
    np.testing.assert_array_equal(eroded(uniform(image, radius), more), uniform(image, radius + more))


@pytest.mark.parametrize("radius", range(12))
def test_one_pixel_grows_to_its_square_and_no_further(radius: int) -> None:
    image = np.zeros((30, 28), np.uint8)
    image[14, 12] = 200
    wanted = np.zeros_like(image)
    wanted[14 - radius : 15 + radius, 12 - radius : 13 + radius] = 200
    np.testing.assert_array_equal(window_max(image, radius), wanted)
    np.testing.assert_array_equal(dilated(image > 0, radius), wanted > 0)
    alone = wanted == 0
    alone[14, 12] = radius == 0
    np.testing.assert_array_equal(uniform(image, radius), alone)


def test_the_border_of_the_image_is_no_boundary() -> None:
    assert uniform(np.full((5, 4), 3, np.uint8), 10).all()
    halves = np.array([[1, 1, 1, 2, 2, 2]], np.uint8)
    assert uniform(halves, 1).tolist() == [[True, True, False, False, True, True]]
    assert uniform(halves, 2).tolist() == [[True, False, False, False, False, True]]
    assert not uniform(halves, 3).any()


@pytest.mark.parametrize("low", [0, 1, 127, 254])
def test_neighbouring_values_are_told_apart(low: int) -> None:
    image = np.array([[low, low, low, low + 1]], np.uint8)
    assert uniform(image, 1).tolist() == [[True, True, False, False]]


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), radius=st.integers(0, 6))
@settings(max_examples=30)
def test_windows_follow_flips_and_turns(seed: int, shape: tuple[int, int], radius: int) -> None:
    image = random_map(seed, shape, 4)
    for name, turn in SYMMETRIES.items():
        np.testing.assert_array_equal(window_max(turn(image), radius), turn(window_max(image, radius)), name)
        alone: NDArray[np.uint8] = uniform(image, radius).view(np.uint8)
        np.testing.assert_array_equal(uniform(turn(image), radius), turn(alone), name)


@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from(SHAPES),
    first=st.integers(0, 4),
    second=st.integers(0, 4),
)
@settings(max_examples=30)
def test_windows_of_windows_add_their_radii(
    seed: int, shape: tuple[int, int], first: int, second: int
) -> None:
    image = random_map(seed, shape, 5)
    np.testing.assert_array_equal(
        window_max(window_max(image, first), second), window_max(image, first + second)
    )


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), radius=st.integers(0, 6))
@settings(max_examples=30)
def test_uniform_windows_do_not_depend_on_the_labels_names(
    seed: int, shape: tuple[int, int], radius: int
) -> None:
    names = np.random.default_rng(seed).permutation(256).astype(np.uint8)
    image = random_map(seed, shape, 6)
    np.testing.assert_array_equal(uniform(names[image], radius), uniform(image, radius))
    assert (uniform(image, radius + 1) <= uniform(image, radius)).all()


def test_inputs_stay_as_they_are_and_types_are_kept() -> None:
    image = random_map(5, (7, 9), 4)
    before = image.copy()
    assert window_max(image, 2).dtype == np.uint8
    assert uniform(image, 2).dtype == np.bool_
    assert dilated(image == 1, 2).dtype == np.bool_
    np.testing.assert_array_equal(image, before)


@given(seed=st.integers(0, 10_000), shape=st.sampled_from([(0,), (0, 4), *SHAPES]), bins=st.integers(1, 300))
@settings(max_examples=60)
def test_counting_by_runs_is_counting(seed: int, shape: tuple[int, ...], bins: int) -> None:
    random = np.random.default_rng(seed)
    values = np.repeat(random.integers(0, bins, shape), random.integers(1, 5), axis=0).astype(np.uint16)
    for view in (values, values.T, values[::-1]):
        found = counted(view, bins)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, np.bincount(view.ravel(), minlength=bins))
