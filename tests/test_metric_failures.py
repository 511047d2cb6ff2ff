"""Both failures against scikit-image's objects and openings, and cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label as components
from skimage.measure import regionprops
from skimage.morphology import opening

from tests.label_maps import SHAPES, random_pair
from wsss.metrics.confusion import Labels
from wsss.metrics.failures import DEPTHS, FAILURE_COLUMNS, SIZES, FailureCounts, depth_radii, failure_counts

cases = given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), labels=st.integers(2, 6))
TINY, SMALL, MEDIUM, LARGE = range(4)
CAT, DOG, HORSE = 1, 2, 3


def slow_radii(height: int, width: int) -> list[int]:
    diagonal = math.hypot(height, width)
    radii = [0]
    for share in (0.005, 0.01, 0.02, 0.04):
        radii.append(max(radii[-1] + 1, round(share * diagonal)))
    return radii[1:]


def no_failures(labels: int) -> FailureCounts:
    shapes = [(4, 2), (4, 2), (5, 2), (2,), (labels,), (), (2,)]
    return FailureCounts(*(np.zeros((labels, *shape), np.int64) for shape in shapes))


def slow_counts(truth: Labels, prediction: Labels, labels: int) -> FailureCounts:
    """The module's definitions, one class after the other, in whole numbers."""
    counts, radii = no_failures(labels), slow_radii(*truth.shape)
    for cls in range(1, labels):
        mask = truth == cls
        found = mask & (prediction == cls)
        for region in regionprops(components(mask, connectivity=2)):  # type: ignore[no-untyped-call]
            rows, columns = region.coords.T
            area, right = len(rows), int(found[rows, columns].sum())
            if area < 10:
                continue
            size = sum(100 * area >= per_cent * truth.size for per_cent in (1, 4, 16))
            counts.by_size[cls, size] += [right, area]
            counts.objects[cls, size] += [10 * right < area, 1]
            if size < MEDIUM:
                continue
            given_classes = prediction[rows, columns].tolist()
            mistaken = [given for given in given_classes if given not in (0, cls, 255)]
            for other in mistaken:
                counts.mistaken[cls, other] += 1
            counts.large[cls] += area
            counts.split[cls] += [area <= 20 * len(mistaken) <= 10 * area, 1]
        thick = opening(mask, np.ones((2 * radii[1] + 1,) * 2))
        counts.thin[cls] += [(found & ~thick).sum(), (mask & ~thick).sum()]
        depth = np.full(truth.shape, 10**6)  # no other label: as deep as can be
        if not mask.all():
            depth = ndimage.distance_transform_cdt(mask, metric="chessboard")
        steps = sum((depth > radius).astype(int) for radius in radii)
        for step in range(5):
            at_depth = mask & (steps == step)
            counts.by_depth[cls, step] += [(found & at_depth).sum(), at_depth.sum()]
    return counts


def as_lists(counts: FailureCounts) -> dict[str, object]:
    return {name: value.tolist() for name, value in vars(counts).items()}


def square(area: int, labelled: int = CAT) -> Labels:
    """100 x 100 with one object of so many pixels, 20 to a row (at most 1600); one per cent is 100 pixels."""
    truth = np.zeros((100, 100), np.uint8)
    rows, columns = np.divmod(np.arange(area), 20)
    truth[10 + rows, 10 + columns] = labelled
    return truth


@cases
@settings(max_examples=80)
def test_counts_equal_the_definitions(seed: int, shape: tuple[int, int], labels: int) -> None:
    truth, prediction = random_pair(seed, shape, labels)
    counts = failure_counts(truth, prediction, labels)
    assert as_lists(counts) == as_lists(slow_counts(truth, prediction, labels))
    for name, value in vars(counts).items():
        assert value.dtype == np.int64, name


@pytest.mark.parametrize(
    ("shape", "radii"),
    [
        ((1, 1), [1, 2, 3, 4]),
        ((100, 100), [1, 2, 3, 6]),  # diagonal 141.4: 0.71, 1.41, 2.83, 5.66
        ((375, 500), [3, 6, 12, 25]),  # 625: 3.125, 6.25, 12.5 (to the even number), 25
        ((300, 400), [2, 5, 10, 20]),  # 500: 2.5 (to the even number), 5, 10, 20
    ],
)
def test_depth_steps_by_hand(shape: tuple[int, int], radii: list[int]) -> None:
    assert depth_radii(*shape) == radii == slow_radii(*shape)


def test_the_thin_leg_of_a_large_square_is_its_thin_part() -> None:
    # 100 x 100: r = 2, so what holds no 5 x 5 square is thin.
    truth = np.zeros((100, 100), np.uint8)
    truth[20:60, 20:60] = CAT
    leg = np.zeros_like(truth, bool)
    leg[60:80, 30:34] = True  # 4 wide and 20 long
    truth[leg] = CAT
    found = np.where(leg, 0, truth)
    found[60:63, 30:34] = CAT
    assert failure_counts(truth, found, 2).thin.tolist() == [[0, 0], [12, 80]]
    truth[60:80, 34] = CAT  # 5 wide: thick
    assert failure_counts(truth, found, 2).thin.tolist() == [[0, 0], [0, 0]]


def test_what_the_border_cuts_off_is_not_thin() -> None:
    truth = np.zeros((100, 100), np.uint8)
    truth[20:60, :3] = CAT  # 3 columns in sight, perhaps of a wide object
    assert failure_counts(truth, truth, 2).thin[CAT].tolist() == [0, 0]
    truth = np.roll(truth, 1, axis=1)
    assert failure_counts(truth, truth, 2).thin[CAT].tolist() == [120, 120]


def test_depths_of_a_square_by_hand() -> None:
    # 100 x 100: radii 1, 2, 3, 6. Rings of a square of 20: 76, 68, 60, then 52 + 44 + 36, the rest is 8 x 8.
    truth = np.zeros((100, 100), np.uint8)
    truth[40:60, 40:60] = CAT
    prediction = np.zeros_like(truth)
    prediction[41:59, 41:59] = CAT  # all but the outermost ring
    wanted = [[0, 76], [68, 68], [60, 60], [132, 132], [64, 64]]
    assert failure_counts(truth, prediction, 2).by_depth[CAT].tolist() == wanted


def test_the_border_is_no_boundary_but_ignored_pixels_are() -> None:
    truth = np.full((100, 100), CAT, np.uint8)
    assert failure_counts(truth, truth, 2).by_depth[CAT, :, 1].tolist() == [0, 0, 0, 0, 10_000]
    truth[:, 50] = 255
    assert failure_counts(truth, truth, 2).by_depth[CAT, :, 1].tolist() == [200, 200, 200, 600, 8700]


@pytest.mark.parametrize(
    ("area", "size"),
    [(10, TINY), (99, TINY), (100, SMALL), (399, SMALL), (400, MEDIUM), (1599, MEDIUM), (1600, LARGE)],
)
def test_sizes_at_their_limits(area: int, size: int) -> None:
    truth = square(area)
    counts = failure_counts(truth, truth, 2)
    assert counts.by_size[CAT].tolist() == [[area, area] if step == size else [0, 0] for step in range(4)]
    assert counts.objects[CAT, :, 1].tolist() == [int(step == size) for step in range(4)]
    assert counts.large[CAT] == (area if size >= MEDIUM else 0)
    assert counts.split[CAT].tolist() == [0, int(size >= MEDIUM)]


@pytest.mark.parametrize(("area", "enough"), [(10, 1), (30, 3), (70, 7), (100, 10), (101, 11), (1000, 100)])
def test_an_object_with_less_than_a_tenth_found_is_missed(area: int, enough: int) -> None:
    truth = square(area)
    for found, missed in ((0, 1), (enough - 1, 1), (enough, 0), (area, 0)):
        counts = failure_counts(truth, square(found), 2)
        assert counts.objects[CAT].sum(0).tolist() == [missed, 1]
        assert counts.by_size[CAT].sum(0).tolist() == [found, area]


def test_specks_are_no_objects() -> None:
    truth = square(9)
    counts = failure_counts(truth, truth, 2)
    assert not counts.objects.any()
    assert not counts.by_size.any()
    assert counts.by_depth[CAT].sum(0).tolist() == [9, 9]  # their depth is a matter of pixels
    tiny = np.full((3, 3), CAT, np.uint8)  # the whole image, yet a speck
    assert not failure_counts(tiny, np.full_like(tiny, DOG), 3).split.any()


def test_objects_join_at_corners_and_not_across_classes_or_ignored_lines() -> None:
    truth = np.zeros((60, 60), np.uint8)
    truth[10:20, 10:20] = truth[20:30, 20:30] = CAT
    assert failure_counts(truth, truth, 3).objects[CAT, :, 1].sum() == 1
    truth[20:30, 20:30] = DOG
    assert failure_counts(truth, truth, 3).objects[:, :, 1].sum(1).tolist() == [0, 1, 1]
    truth[10:30, 10:30] = CAT
    truth[10:30, 15] = 255
    counts = failure_counts(truth, np.full_like(truth, CAT), 2)
    assert counts.objects[CAT, :, 1].sum() == 2
    assert counts.by_size[CAT].sum(0).tolist() == [380, 380]


@pytest.mark.parametrize(
    ("head", "split"), [(0, 0), (49, 0), (50, 1), (300, 1), (500, 1), (501, 0), (1000, 0)]
)
def test_a_dog_with_its_head_called_horse(head: int, split: int) -> None:
    truth, prediction = square(1000, DOG), square(1000, DOG)
    prediction[square(head) == CAT] = HORSE
    counts = failure_counts(truth, prediction, 4)
    assert counts.mistaken.tolist() == [[0] * 4, [0] * 4, [0, 0, 0, head], [0] * 4]
    assert counts.large.tolist() == [0, 0, 1000, 0]
    assert counts.split.tolist() == [[0, 0], [0, 0], [split, 1], [0, 0]]


@pytest.mark.parametrize("nothing", [0, 255])
def test_a_part_called_background_or_nothing_is_not_failure_2(nothing: int) -> None:
    truth, prediction = square(1000), square(1000)
    prediction[square(300) == CAT] = nothing
    counts = failure_counts(truth, prediction, 3)
    assert not counts.mistaken.any()
    assert counts.split[CAT].tolist() == [0, 1]
    assert counts.by_size[CAT, MEDIUM].tolist() == [700, 1000]


@cases
@settings(max_examples=30)
def test_the_row_names_the_counts_over_all_classes(seed: int, shape: tuple[int, int], labels: int) -> None:
    counts = failure_counts(*random_pair(seed, shape, labels), labels)
    row = dict(zip(FAILURE_COLUMNS, counts.row().tolist(), strict=True))
    for index, size in enumerate(SIZES):
        assert [row[f"found {size}"], row[f"pixels {size}"]] == counts.by_size[:, index].sum(0).tolist()
        assert [row[f"missed objects {size}"], row[f"objects {size}"]] == counts.objects[:, index].sum(
            0
        ).tolist()
    for index, depth in enumerate(DEPTHS):
        pair = counts.by_depth[:, index].sum(0).tolist()
        assert [row[f"found depth {depth}"], row[f"pixels depth {depth}"]] == pair
    assert [row["found thin"], row["pixels thin"]] == counts.thin.sum(0).tolist()
    assert (row["mistaken"], row["pixels of large objects"]) == (counts.mistaken.sum(), counts.large.sum())
    assert [row["split"], row["large objects"]] == counts.split.sum(0).tolist()
    assert len(row) == 32
