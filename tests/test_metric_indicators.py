"""Indicators without truth against explicit sums, and cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from tests.label_maps import random_map
from wsss.metrics.confusion import Labels
from wsss.metrics.indicators import (
    agreement,
    agreement_curve,
    colour_information,
    colour_information_curve,
    edge_alignment,
    gradient_ranks,
    label_free_threshold,
    rank_correlation,
    rank_shares,
    review_scores,
)
from wsss.metrics.sweep import THRESHOLDS

Image = NDArray[np.uint8]
Cams = NDArray[np.float32]

SHAPES = ((1, 1), (1, 8), (9, 1), (2, 2), (7, 9), (16, 11))
STEPS = (0.1, 0.25, 0.5, 0.9)
PLACES = [THRESHOLDS.index(step) for step in STEPS]
RED, BLUE = (255, 0, 0), (0, 0, 255)

shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 10_000)


def random_image(seed: int, shape: tuple[int, int]) -> Image:
    """(h, w, 3): any colours, or few, with plateaus."""
    random = np.random.default_rng(seed)
    if random.random() < 0.5:
        return random.integers(0, 256, (*shape, 3)).astype(np.uint8)
    palette = random.integers(0, 256, (4, 3)).astype(np.uint8)
    return np.asarray(palette[random_map(seed, shape, 4, ignore=False)])


def random_cams(seed: int, classes: int, shape: tuple[int, int]) -> Cams:
    """(K, h, w) multiples of 0.05: values meet thresholds and each other."""
    return (np.random.default_rng(seed).integers(0, 21, (classes, *shape)) / 20).astype(np.float32)


def slow_seed(cams: Cams, threshold: float) -> Labels:
    """1 + the first of the strongest classes, where it reaches the threshold."""
    mask = np.zeros(cams.shape[1:], np.uint8)
    for y, x in np.ndindex(mask.shape):
        values = cams[:, y, x].tolist()
        if values and max(values) >= np.float32(threshold):
            mask[y, x] = 1 + values.index(max(values))
    return mask


def slow_kappa(first: Labels, second: Labels) -> float:
    """Cohen's kappa from the table of both labels, pixel by pixel."""
    table = [[0] * 256 for _ in range(256)]
    for mine, theirs in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True):
        table[mine][theirs] += 1
    pixels = first.size
    observed = sum(table[label][label] for label in range(256))
    by_chance = sum(sum(table[label]) * sum(row[label] for row in table) for label in range(256))
    if by_chance == pixels**2:
        return math.nan
    return (observed / pixels - by_chance / pixels**2) / (1 - by_chance / pixels**2)


def slow_information(image: Image, labels: Labels) -> float:
    """Sum of p(c, l) log2(p(c, l) / p(c) p(l)) over colours of 4 levels per channel and object or not."""
    pairs = [
        (tuple(int(channel) // 64 for channel in image[y, x]), bool(labels[y, x]))
        for y, x in np.ndindex(labels.shape)
        if labels[y, x] != 255
    ]
    if not pairs:
        return math.nan
    total = 0.0
    for colour, label in set(pairs):
        joint = pairs.count((colour, label)) / len(pairs)
        by_colour = sum(pair[0] == colour for pair in pairs) / len(pairs)
        by_label = sum(pair[1] == label for pair in pairs) / len(pairs)
        total += joint * math.log2(joint / (by_colour * by_label))
    return total


def slow_ranks(image: Image) -> NDArray[np.float64]:
    height, width = image.shape[:2]
    grey = image.astype(int).sum(axis=2)

    def at(values: NDArray[np.int64], y: int, x: int) -> int:
        return int(values[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    smooth, strength = np.zeros((height, width), int), np.zeros((height, width), int)
    for y, x in np.ndindex(height, width):
        for down, across in np.ndindex(3, 3):
            weight = (1, 2, 1)[down] * (1, 2, 1)[across]
            smooth[y, x] += weight * at(grey, y + down - 1, x + across - 1)
    for y, x in np.ndindex(height, width):
        strength[y, x] = abs(at(smooth, y, x + 1) - at(smooth, y, x - 1))
        strength[y, x] += abs(at(smooth, y + 1, x) - at(smooth, y - 1, x))
    # An average rank is the number of weaker pixels, half the ties, and a half for the pixel itself.
    average = rankdata(strength.ravel(), method="average")
    return np.asarray((average - 0.5) / strength.size).reshape(height, width)


def slow_alignment(ranks: NDArray[np.float32], labels: Labels) -> float:
    height, width = labels.shape
    chosen = []
    for y, x in np.ndindex(height, width):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(row, col) for row, col in around if 0 <= row < height and 0 <= col < width]
        if any(labels[place] != labels[y, x] for place in inside):
            chosen.append(float(ranks[y, x]))
    return sum(chosen) / len(chosen) if chosen else math.nan


@given(seed=seeds, shape=shapes, labels=st.integers(2, 6))
@settings(max_examples=40)
def test_agreement_is_cohens_kappa(seed: int, shape: tuple[int, int], labels: int) -> None:
    first, second = random_map(seed, shape, labels), random_map(seed + 1, shape, labels)
    mixed = np.where(random_map(seed + 2, shape, 2, ignore=False) == 1, first, second)
    value = agreement(first, mixed)
    assert value == pytest.approx(slow_kappa(first, mixed), nan_ok=True, abs=1e-12)
    assert value == pytest.approx(agreement(mixed, first), nan_ok=True, abs=1e-12)
    assert math.isnan(value) or -1 - 1e-12 <= value <= 1 + 1e-12
    names = np.random.default_rng(seed).permutation(256).astype(np.uint8)
    assert agreement(names[first], names[mixed]) == pytest.approx(value, nan_ok=True, abs=1e-12)


def test_agreement_by_hand() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    assert agreement(mask, mask) == 1
    assert agreement(mask, 1 - mask) == -1
    # 6 of 8 equal, shares 4/8 and 2/8 of object: by chance 1/8 + 3/8; (6/8 - 4/8) / (4/8)
    assert agreement(mask, np.array([[0, 0, 1, 1], [0, 0, 0, 0]], np.uint8)) == pytest.approx(0.5)
    # rows against columns: half equal, half by chance
    assert agreement(mask, np.array([[0, 0, 0, 0], [1, 1, 1, 1]], np.uint8)) == pytest.approx(0)
    assert agreement(mask, np.ones_like(mask)) == pytest.approx(0)  # covering everything earns nothing
    assert agreement(mask, mask + 2) == 0  # no label in common
    assert math.isnan(agreement(np.ones_like(mask), np.ones_like(mask)))


@given(seed=seeds, shape=shapes, classes=st.integers(0, 5))
@settings(max_examples=40)
def test_agreement_curve_equals_thresholding_again_and_again(
    seed: int, shape: tuple[int, int], classes: int
) -> None:
    first, second = random_cams(seed, classes, shape), random_cams(seed + 1, classes, shape)
    second = np.where(random_map(seed, shape, 2, ignore=False) == 1, first, second)
    curve = agreement_curve(first, second)[PLACES]
    wanted = [slow_kappa(slow_seed(first, step), slow_seed(second, step)) for step in STEPS]
    assert curve.tolist() == pytest.approx(wanted, nan_ok=True, abs=1e-12)


@given(seed=seeds, shape=shapes, classes=st.integers(0, 4))
@settings(max_examples=40)
def test_colour_information_curve_equals_thresholding_again_and_again(
    seed: int, shape: tuple[int, int], classes: int
) -> None:
    image, cams = random_image(seed, shape), random_cams(seed, classes, shape)
    curve = colour_information_curve(image, cams)[PLACES]
    wanted = [slow_information(image, slow_seed(cams, step)) for step in STEPS]
    assert curve.tolist() == pytest.approx(wanted, abs=1e-9)
    assert colour_information(image, slow_seed(cams, 0.5)) == pytest.approx(wanted[2], abs=1e-9)


@given(seed=seeds, shape=shapes, labels=st.integers(2, 6))
@settings(max_examples=40)
def test_colour_information_is_mutual_information(seed: int, shape: tuple[int, int], labels: int) -> None:
    image, mask = random_image(seed, shape), random_map(seed + 1, shape, labels)
    value = colour_information(image, mask)
    assert value == pytest.approx(slow_information(image, mask), nan_ok=True, abs=1e-9)
    assert math.isnan(value) == bool((mask == 255).all())
    assert math.isnan(value) or 0 <= value <= 1 + 1e-12
    unseen = image.copy()
    unseen[mask == 255] = RED
    assert colour_information(unseen, mask) == pytest.approx(value, nan_ok=True)
    one_class = np.where(mask == 255, 255, mask > 0).astype(np.uint8)
    assert colour_information(image, one_class) == pytest.approx(value, nan_ok=True)


def test_colour_information_by_hand() -> None:
    image = np.empty((4, 6, 3), np.uint8)
    image[:, :3], image[:, 3:] = RED, BLUE
    right = np.zeros((4, 6), np.uint8)
    right[:, 3:] = 7
    assert colour_information(image, right) == pytest.approx(1)
    assert colour_information(image, np.full_like(right, 7)) == pytest.approx(0, abs=1e-12)
    assert colour_information(image, np.zeros_like(right)) == pytest.approx(0, abs=1e-12)
    across = np.zeros_like(right)
    across[:2] = 1  # half of each colour
    assert colour_information(image, across) == pytest.approx(0, abs=1e-12)
    half = np.zeros_like(right)
    half[:2, 3:] = 1  # half of the blue: H(1/4) - H(1/2) / 2
    assert colour_information(image, half) == pytest.approx(-0.75 * math.log2(0.75) + 0.5 - 0.5)
    right[0] = 255
    assert colour_information(image, right) == pytest.approx(1)
    assert math.isnan(colour_information(image, np.full_like(right, 255)))
    cams = np.zeros((2, 4, 6), np.float32)
    cams[0], cams[1, :, 3:] = 0.2, 0.6
    curve = colour_information_curve(image, cams)
    assert curve.shape == (99,)
    assert curve[[9, 39, 79]].tolist() == pytest.approx([0, 1, 0], abs=1e-12)


@pytest.mark.parametrize("channel", range(3))
@pytest.mark.parametrize(("dark", "bright", "bits"), [(0, 63, 0), (63, 64, 1), (128, 191, 0), (191, 192, 1)])
def test_colours_have_four_levels_per_channel(channel: int, dark: int, bright: int, bits: int) -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    image[0, :, channel], image[1, :, channel] = dark, bright
    assert colour_information(image, np.array([[0, 0], [1, 1]], np.uint8)) == pytest.approx(bits)


@given(seed=seeds, shape=shapes, labels=st.integers(2, 6))
@settings(max_examples=40)
def test_gradient_ranks_and_alignment_equal_plain_loops(
    seed: int, shape: tuple[int, int], labels: int
) -> None:
    image, mask = random_image(seed, shape), random_map(seed + 1, shape, labels)
    ranks = gradient_ranks(image)
    np.testing.assert_allclose(ranks, slow_ranks(image), atol=1e-6)
    assert ranks.dtype == np.float32
    assert ((ranks >= 0) & (ranks <= 1)).all()
    assert ranks.mean(dtype=np.float64) == pytest.approx(0.5, abs=1e-6)
    value = edge_alignment(ranks, mask)
    assert value == pytest.approx(slow_alignment(ranks, mask), nan_ok=True)


def test_gradient_ranks_of_a_step_by_hand() -> None:
    # A step between columns 3 and 4 of 8: smoothed it climbs in four steps, so 1, 4, 4, 1 of the differences in
    # columns 2 to 5. Of 8 columns 4 are flat: rank (0 + 4 / 2) / 8; 2 weak: (4 + 1) / 8; 2 strong: (6 + 1) / 8.
    image = np.zeros((5, 8, 3), np.uint8)
    image[:, 4:] = 255
    wanted = [0.25, 0.25, 0.625, 0.875, 0.875, 0.625, 0.25, 0.25]
    np.testing.assert_allclose(gradient_ranks(image), [wanted] * 5)
    assert (gradient_ranks(np.full((3, 4, 3), 90, np.uint8)) == 0.5).all()


def test_a_mask_along_the_edge_scores_near_one_and_any_mask_on_noise_a_half() -> None:
    image = np.zeros((60, 100, 3), np.uint8)
    image[:, 50:] = 200
    along, beside = np.zeros((60, 100), np.uint8), np.zeros((60, 100), np.uint8)
    along[:, 50:] = beside[:, 20:] = 1
    assert edge_alignment(gradient_ranks(image), along) == pytest.approx(
        0.99
    )  # 2 of 100 columns share the top
    assert edge_alignment(gradient_ranks(image), beside) == pytest.approx(0.48)
    assert math.isnan(edge_alignment(gradient_ranks(image), np.ones_like(along)))
    random, square = np.random.default_rng(0), np.zeros((64, 64), np.uint8)
    square[16:48, 16:48] = 1
    noise = random.integers(0, 256, (30, 64, 64, 3)).astype(np.uint8)
    scores = [edge_alignment(gradient_ranks(image), square) for image in noise]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.03)


def test_the_label_free_threshold_is_a_sensible_top() -> None:
    curve = np.linspace(0.1, 0.2, len(THRESHOLDS))  # rises to 0.99: what random maps give
    assert label_free_threshold(curve) == 0.6
    curve[THRESHOLDS.index(0.25)] = 0.9
    curve[THRESHOLDS.index(0.26)] = np.nan
    assert label_free_threshold(curve) == 0.25
    assert label_free_threshold(np.zeros(len(THRESHOLDS))) is None
    assert label_free_threshold(np.full(len(THRESHOLDS), np.nan)) is None


figures = st.lists(st.integers(-3, 3), min_size=2, max_size=30)


@given(figures, seeds)
def test_ranks_and_their_correlation_are_scipys_whatever_the_scale(values: list[int], seed: int) -> None:
    first = np.array(values, float)
    other = np.random.default_rng(seed).integers(-3, 4, len(values)).astype(float)
    assert rank_shares(first) == pytest.approx((rankdata(first) - 0.5) / len(first))
    assert rank_shares(np.exp(first)) == pytest.approx(rank_shares(first))
    if np.ptp(first) and np.ptp(other):
        assert rank_correlation(first, other) == pytest.approx(spearmanr(first, other)[0])
        assert rank_correlation(first, -first) == pytest.approx(-1)
    else:
        assert math.isnan(rank_correlation(first, other))
    missing = np.append(first, np.nan)
    assert rank_shares(missing)[:-1] == pytest.approx(rank_shares(first))
    assert rank_correlation(missing, np.append(other, 1.0)) == pytest.approx(
        rank_correlation(first, other), nan_ok=True
    )


def test_an_image_is_ranked_by_the_indicators_that_it_has() -> None:
    nan = np.nan
    scores = review_scores([np.array([1.0, 2.0, nan, nan]), np.array([7.0, 5.0, 6.0, nan])])
    assert scores == pytest.approx([(1 / 4 + 5 / 6) / 2, (3 / 4 + 1 / 6) / 2, 1 / 2, nan], nan_ok=True)
