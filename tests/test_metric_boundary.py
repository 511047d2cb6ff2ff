"""Boundary IoU against a literal rendering of the published method, windows against scipy's filters, cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tests.label_maps import SHAPES, random_map, random_pair
from wsss.metrics.boundary import band_width, boundary_counts, uniform, window_max
from wsss.metrics.confusion import Labels

cases = given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), labels=st.integers(2, 6))


def published_band(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pad with zeros, erode d times with a 3x3 square, cut the padding off, subtract (arXiv 2103.16562)."""
    height, width = mask.shape
    d = round(0.02 * (height**2 + width**2) ** 0.5)
    padded = np.pad(mask, 1)
    for _ in range(max(d, 1)):
        eroded = np.zeros_like(padded)
        eroded[1:-1, 1:-1] = True
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                eroded[1:-1, 1:-1] &= padded[1 + down : height + 1 + down, 1 + across : width + 1 + across]
        padded = eroded
    return mask & ~padded[1:-1, 1:-1]


def slow_counts(truth: Labels, prediction: Labels, labels: int) -> list[list[int]]:
    counted = truth != 255
    filled = np.where(counted, truth, prediction)  # ours: the publication knows no ignored pixels
    rows = []
    for label in range(labels):
        true_band = published_band(filled == label) & counted
        predicted_band = published_band(prediction == label) & counted
        rows.append([int((true_band & predicted_band).sum()), int((true_band | predicted_band).sum())])
    return rows


@cases
@settings(max_examples=80)
def test_bands_equal_the_published_method(seed: int, shape: tuple[int, int], labels: int) -> None:
    truth, prediction = random_pair(seed, shape, labels)
    counts = boundary_counts(truth, prediction, labels)
    assert counts.tolist() == slow_counts(truth, prediction, labels)
    assert counts.dtype == np.int64


@pytest.mark.parametrize(
    ("height", "width", "d"),
    [
        (1, 1, 1),
        (30, 40, 1),  # diagonal 50: exactly 1
        (44, 58, 1),  # 72.8: 1.456
        (45, 60, 2),  # 75: 1.5, halves to the even number
        (75, 100, 2),  # 125: 2.5, halves to the even number
        (76, 100, 3),  # 125.6: 2.51
        (375, 500, 12),  # 625: 12.5
        (500, 500, 14),  # 707.1: 14.14
    ],
)
def test_the_band_is_two_per_cent_of_the_diagonal(height: int, width: int, d: int) -> None:
    assert band_width(height, width) == band_width(width, height) == d


def test_a_square_and_its_shifted_copy_by_hand() -> None:
    # 30 x 40: d = 1. A square of 10 and the same two pixels to the right: rings of 36 pixels each.
    truth, prediction = np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)
    truth[10:20, 10:20] = 1
    prediction[10:20, 12:22] = 1
    # The rings share 8 pixels of the top row and 8 of the bottom row; their sides do not meet.
    # Background: the image's border (2 * 40 + 2 * 28 = 136) is in both; around the squares run rings of 44.
    # Those share columns 11..20 of rows 9 and 20: 20 pixels. Of the others, (10..19, 20) and (10..19, 11)
    # are background in one mask and object in the other.
    wanted = [[136 + 20, 136 + 44 + 44 - 20], [16, 36 + 36 - 16]]
    assert boundary_counts(truth, prediction, 2).tolist() == wanted
    assert slow_counts(truth, prediction, 2) == wanted


def test_the_inside_of_an_object_does_not_count() -> None:
    truth = np.zeros((30, 40), np.uint8)
    truth[5:25, 5:25] = 1
    holed = truth.copy()
    holed[12, 12] = 2  # one wrong pixel far inside: 8 around it and itself
    assert boundary_counts(truth, truth, 3)[1].tolist() == [76, 76]
    assert boundary_counts(truth, holed, 3).tolist()[1:] == [[76, 76 + 8], [0, 1]]


def test_the_border_of_the_image_is_part_of_the_contour() -> None:
    full = np.ones((30, 40), np.uint8)
    assert boundary_counts(full, full, 2).tolist() == [[0, 0], [136, 136]]
    full = np.ones((60, 80), np.uint8)  # d = 2: two rings
    assert boundary_counts(full, full, 2)[1].tolist() == [60 * 80 - 56 * 76] * 2


def test_what_happens_in_ignored_pixels_costs_nothing() -> None:
    truth, prediction = np.ones((30, 40), np.uint8), np.ones((30, 40), np.uint8)
    truth[10:15, 10:15] = 255  # far from the border
    assert boundary_counts(truth, prediction, 2).tolist() == [[0, 0], [136, 136]]
    prediction[10:15, 10:15] = 0  # only where nothing counts; the ring of 7 x 7 around it is band of both
    assert boundary_counts(truth, prediction, 2).tolist() == [[0, 0], [136 + 24, 136 + 24]]


def test_an_ignored_seam_around_every_object_leaves_a_right_mask_perfect() -> None:
    y, x = np.mgrid[:90, :120]
    distance = np.hypot(y - 45, x - 60)
    prediction = (distance < 25).astype(np.uint8)
    truth = np.where(np.abs(distance - 25) < 2.5, 255, prediction).astype(np.uint8)
    counts = boundary_counts(truth, prediction, 2)
    assert (counts[:, 0] == counts[:, 1]).all()
    assert counts[1, 1] > 0


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), radius=st.integers(0, 20))
@settings(max_examples=60)
def test_windows_equal_scipys_filters(seed: int, shape: tuple[int, int], radius: int) -> None:
    image, size = random_map(seed, shape, 6), 2 * radius + 1
    before = image.copy()
    largest = ndimage.maximum_filter(image, size, mode="nearest")
    smallest = ndimage.minimum_filter(image, size, mode="nearest")
    np.testing.assert_array_equal(window_max(image, radius), largest)
    np.testing.assert_array_equal(uniform(image, radius), largest == smallest)
    np.testing.assert_array_equal(image, before)


def test_in_windows_the_border_of_the_image_is_no_boundary() -> None:
    assert uniform(np.full((5, 4), 3, np.uint8), 10).all()
    halves = np.array([[1, 1, 1, 2, 2, 2]], np.uint8)
    assert uniform(halves, 1).tolist() == [[True, True, False, False, True, True]]
    assert uniform(halves, 2).tolist() == [[True, False, False, False, False, True]]
    assert not uniform(halves, 3).any()
