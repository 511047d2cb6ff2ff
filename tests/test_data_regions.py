"""Polygons and run lengths against the reference implementation, pixel for pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference

from data.regions import Region, polygon_region, run_length_region, unpacked_counts

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # the reference's own

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60))
COORDINATES = st.one_of(
    st.floats(-20, 80), st.integers(-5, 65).map(float), st.integers(0, 600).map(lambda v: v / 10)
)


@given(SIZES, st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=12))
@settings(max_examples=400)
def test_polygons_are_those_of_the_reference(
    size: tuple[int, int], points: list[tuple[float, float]]
) -> None:
    encoded = reference.frPyObjects([[value for point in points for value in point]], *size)
    wanted = reference.decode(encoded)[:, :, 0].astype(bool)
    np.testing.assert_array_equal(polygon_region(np.array(points), size), wanted)


def test_a_rectangle_covers_its_pixels() -> None:
    region = polygon_region(np.array([[1, 2], [4, 2], [4, 5], [1, 5.0]]), (6, 6))
    wanted = np.zeros((6, 6), bool)
    wanted[2:5, 1:4] = True
    np.testing.assert_array_equal(region, wanted)


def test_a_polygon_outside_is_empty() -> None:
    assert not polygon_region(np.array([[70, 2], [90, 2], [90, 50.0]]), (6, 6)).any()


def random_region(seed: int, size: tuple[int, int]) -> Region:
    rng = np.random.default_rng(seed)
    region: Region = rng.random(size) < rng.choice([0, 0.02, 0.5, 0.98, 1])
    return region


@given(st.integers(0, 10_000), SIZES)
@settings(max_examples=200)
def test_compressed_run_lengths_are_those_of_the_reference(seed: int, size: tuple[int, int]) -> None:
    region = random_region(seed, size)
    encoded = reference.encode(np.asfortranarray(region.astype(np.uint8)))
    counts = unpacked_counts(encoded["counts"].decode())
    np.testing.assert_array_equal(run_length_region(counts, size), region)


def test_run_lengths_go_down_the_columns_and_begin_outside() -> None:
    assert run_length_region([1, 2, 3], (2, 3)).tolist() == [[False, True, False], [True, False, False]]
    assert run_length_region([0, 6], (2, 3)).all()


@pytest.mark.parametrize("counts", [[5], [7], [], [8, -2]])
def test_run_lengths_of_another_sum_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 6"):
        run_length_region(counts, (2, 3))


@pytest.mark.parametrize("text", ["é", "!", "P", "0P"])
def test_damaged_compressed_run_lengths_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no character of|inside a number"):
        unpacked_counts(text)
