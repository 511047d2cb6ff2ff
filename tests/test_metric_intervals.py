"""The paired bootstrap against every possible resample and known distributions; Student's t against scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wsss.metrics.intervals import Difference, Table, mean_and_deviation, paired_bootstrap, paired_difference


def mean(sums: Table) -> Table:
    """The mean of column 0, where column 1 counts images."""
    return sums[:, :1] / sums[:, 1:2]


def total(sums: Table) -> Table:
    return sums


def ratio_or_nan(sums: Table) -> Table:
    """Column 0 over column 1, NaN where that is zero."""
    whole = sums[:, 1:2]
    return np.where(whole > 0, sums[:, :1] / np.maximum(whole, 1), np.nan)


def table(values: Table) -> Table:
    return np.stack([values, np.ones_like(values)], axis=1)


def counts(seed: int, images: int, columns: int = 3) -> Table:
    return np.random.default_rng(seed).integers(0, 1000, (images, columns)).astype(np.float64)


def as_lists(difference: Difference) -> list[list[float]]:
    return [figures.tolist() for figures in vars(difference).values()]


def slow_percentile(values: list[float], share: float) -> float:
    """Linear between the two nearest of the sorted values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def test_intervals_equal_those_of_every_possible_resample() -> None:
    # 4 images: 256 equally likely resamples. Both limits lie within a run of equal differences, so that
    # thousands of random resamples must find the same values.
    a, b = [[3, 10], [5, 10], [1, 10], [8, 10]], [[4, 10], [9, 10], [0, 10], [8, 10]]
    differences = []
    for drawn in itertools.product(range(4), repeat=4):
        figures = [
            sum(rows[image][0] for image in drawn) / sum(rows[image][1] for image in drawn) for rows in (a, b)
        ]
        differences.append(figures[1] - figures[0])
    got = paired_bootstrap(np.array(a), np.array(b), mean, resamples=8000)
    assert got.low.tolist() == pytest.approx([slow_percentile(differences, 0.025)])
    assert got.high.tolist() == pytest.approx([slow_percentile(differences, 0.975)])
    assert got.a.tolist() == pytest.approx([17 / 40])
    assert got.b.tolist() == pytest.approx([21 / 40])
    assert got.value.tolist() == pytest.approx([0.1])


def test_resamples_draw_as_many_images_with_replacement_the_same_for_both() -> None:
    seen: list[Table] = []

    def keep(sums: Table) -> Table:
        seen.append(sums)
        return sums

    each = np.eye(12)  # the sums are how often each image was drawn
    paired_bootstrap(each, each, keep, resamples=500)
    draws = [sums for sums in seen if len(sums) == 500]
    assert len(draws) == 2
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0].sum(1) == 12).all()
    assert len({tuple(draw) for draw in draws[0].tolist()}) > 490
    assert draws[0].mean(0).tolist() == pytest.approx([1] * 12, abs=0.2)
    # Each image is left out of a resample with probability (1 - 1 / 12)^12.
    assert (draws[0] == 0).mean() == pytest.approx((11 / 12) ** 12, abs=0.02)


@given(seed=st.integers(0, 10_000), images=st.integers(1, 30))
@settings(max_examples=25)
def test_the_same_gain_on_every_image_leaves_no_doubt(seed: int, images: int) -> None:
    values = counts(seed, images, 1)[:, 0]
    got = paired_bootstrap(table(values), table(values + 7), mean, seed=seed, resamples=50)
    assert [got.value, got.low, got.high] == [pytest.approx(7)] * 3


@given(seed=st.integers(0, 10_000), images=st.integers(1, 30))
@settings(max_examples=25)
def test_exchanging_the_runs_mirrors_the_interval(seed: int, images: int) -> None:
    a, b = counts(seed, images), counts(seed + 1, images)
    there = paired_bootstrap(a, b, total, seed=seed, resamples=80)
    back = paired_bootstrap(b, a, total, seed=seed, resamples=80)
    assert (there.low <= there.high).all()
    assert there.low.tolist() == pytest.approx((-back.high).tolist())
    assert there.high.tolist() == pytest.approx((-back.low).tolist())
    assert there.value.tolist() == (-back.value).tolist()
    assert there.value.tolist() == (b.sum(0) - a.sum(0)).tolist()


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    low, high = 0, 0
    for seed in range(200):
        a = random.normal(0.6, 0.2, 50)
        b = a + random.normal(0.05, 0.1, 50)
        got = paired_bootstrap(table(a), table(b), mean, seed=seed, resamples=400)
        low += bool(got.low[0] > 0.05)
        high += bool(got.high[0] < 0.05)
    assert 0.90 <= 1 - (low + high) / 200 <= 0.98
    assert max(low, high) <= 14  # of 5 expected: the interval is not lopsided


def test_the_seed_decides() -> None:
    a, b = counts(1, 40), counts(2, 40)
    first = as_lists(paired_bootstrap(a, b, total, seed=5, resamples=300))
    assert as_lists(paired_bootstrap(a, b, total, seed=5, resamples=300)) == first
    other = as_lists(paired_bootstrap(a, b, total, seed=6, resamples=300))
    assert other[:2] == first[:2]
    assert other[2:] != first[2:]


def test_undefined_figures_are_left_out_of_the_interval() -> None:
    # Of 3 images only the first defines the figure: it is drawn in 19 of 27 resamples.
    a = np.array([[1, 2], [0, 0], [0, 0]])
    b = np.array([[2, 2], [0, 0], [0, 0]])
    got = paired_bootstrap(a, b, ratio_or_nan, resamples=200)
    assert [got.a[0], got.b[0], got.low[0], got.high[0]] == [0.5, 1, 0.5, 0.5]


def test_a_figure_that_is_never_defined_is_nan_and_spoils_no_other() -> None:
    def both(sums: Table) -> Table:
        return np.concatenate([mean(sums), np.full((len(sums), 1), np.nan)], axis=1)

    values = np.arange(9.0)
    got = paired_bootstrap(table(values), table(values + 1), both, resamples=100)
    for figures, first in ((got.a, 4), (got.b, 5), (got.value, 1), (got.low, 1), (got.high, 1)):
        assert figures.tolist() == pytest.approx([first, math.nan], nan_ok=True)


def test_a_figure_that_only_one_run_has_is_undefined() -> None:
    a, b = np.array([[1, 2], [3, 4]]), np.array([[0, 0], [0, 0]])
    got = paired_bootstrap(a, b, ratio_or_nan, resamples=100)
    assert got.a.tolist() == pytest.approx([4 / 6])
    assert np.isnan([got.b, got.value, got.low, got.high]).all()


@pytest.mark.parametrize(("a", "b"), [((0, 2), (0, 2)), ((3, 2), (2, 2)), ((3, 2), (3, 1)), ((0, 2), (3, 2))])
def test_empty_and_unequal_tables_are_refused(a: tuple[int, int], b: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="two equal, non-empty tables"):
        paired_bootstrap(np.zeros(a), np.zeros(b), mean)


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_students_interval_is_that_of_scipys_paired_test(count: int) -> None:
    first, other = np.random.default_rng(count).normal(size=(2, count))
    found = paired_difference(first.tolist(), other.tolist())
    wanted = stats.ttest_rel(other, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx(float(np.mean(other - first)))
    assert found.pairs == count


def test_students_interval_by_hand() -> None:
    found = paired_difference([0.0, 0.0, 0.0], [1.0, 2.0, 3.0])  # mean 2, deviation 1, t(0.975, 2) = 4.3027
    reach = 4.302652730 / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - reach, 2 + reach))
    assert not found.excludes_zero
    assert paired_difference([0, 0], [1, 1]).excludes_zero
    assert not paired_difference([1, 1], [1, 1]).excludes_zero
    assert mean_and_deviation([1.0, 2.0, 3.0]) == (2.0, 1.0)


def test_one_pair_has_no_interval_and_none_is_refused() -> None:
    found = paired_difference([1.0], [3.0])
    assert (found.mean, found.low, found.high, found.excludes_zero) == (2.0, None, None, False)
    assert mean_and_deviation([4.0]) == (4.0, None)
    for first, other in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match=r"no pairs|argument"):
            paired_difference(first, other)
