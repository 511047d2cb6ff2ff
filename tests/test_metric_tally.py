"""The tally of all counts: what a row holds, and that rows and images add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.test_metric_windows import SHAPES, SYMMETRIES, random_pair
from wsss.metrics.boundary import Labels, boundary_counts
from wsss.metrics.confusion import confusion_counts, mask_scores
from wsss.metrics.failures import DEPTHS, SIZES, failure_counts
from wsss.metrics.tally import FAILURE_COLUMNS, LABEL_COLUMNS, Row, Tally, image_ious

cases = given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), labels=st.integers(2, 6))


def counters(tally: Tally) -> dict[str, list[object]]:
    """Everything but the rows."""
    fixed = {"confusion": tally.confusion, "boundary": tally.boundary, "ignored": tally.ignored}
    return {name: value.tolist() for name, value in (fixed | vars(tally.failures)).items()}


def named(row: Row) -> dict[str, int]:
    return dict(zip(FAILURE_COLUMNS, row.failures.tolist(), strict=True))


def slow_label_rows(truth: Labels, prediction: Labels, labels: int) -> list[list[int]]:
    boundary, rows = boundary_counts(truth, prediction, labels).tolist(), []
    for label in range(labels):
        true, predicted = truth == label, (prediction == label) & (truth != 255)
        if true.any() or predicted.any():
            pixels = [int(mask.sum()) for mask in (true & predicted, true, predicted)]
            rows.append([label, *pixels, *boundary[label]])
    return rows


def pairs(seed: int, images: int, labels: int) -> list[tuple[Labels, Labels]]:
    shapes = [SHAPES[(seed + index) % len(SHAPES)] for index in range(images)]
    return [random_pair(seed + index, shape, labels) for index, shape in enumerate(shapes)]


def merged(images: list[tuple[Labels, Labels]], labels: int) -> Tally:
    tally = Tally.empty(labels)
    for index, (truth, prediction) in enumerate(images):
        tally.merge(Tally.of(f"image {index}", truth, prediction, labels))
    return tally


@cases
@settings(max_examples=40)
def test_one_image_is_counted_by_every_metric(seed: int, shape: tuple[int, int], labels: int) -> None:
    truth, prediction = random_pair(seed, shape, labels)
    tally = Tally.of("a", truth, prediction, labels)
    assert tally.confusion.tolist() == confusion_counts(truth, prediction, labels).tolist()
    assert tally.boundary.tolist() == boundary_counts(truth, prediction, labels).tolist()
    for name, value in vars(failure_counts(truth, prediction, labels)).items():
        assert getattr(tally.failures, name).tolist() == value.tolist(), name
    assert tally.ignored.tolist() == [truth.ravel().tolist().count(255), truth.size]
    assert tally.confusion.sum() == tally.ignored[1] - tally.ignored[0]
    assert list(tally.rows) == ["a"]
    assert tally.rows["a"].labels.tolist() == slow_label_rows(truth, prediction, labels)


@cases
@settings(max_examples=30)
def test_a_row_names_the_failures_over_all_classes(seed: int, shape: tuple[int, int], labels: int) -> None:
    truth, prediction = random_pair(seed, shape, labels)
    failures = failure_counts(truth, prediction, labels)
    row = named(Tally.of("a", truth, prediction, labels).rows["a"])
    wanted: dict[str, int] = {}

    def expect(name: str, values: NDArray[np.int64]) -> None:
        wanted[name] = sum(values.ravel().tolist())

    for index, size in enumerate(SIZES):
        expect(f"found {size}", failures.by_size[:, index, 0])
        expect(f"pixels {size}", failures.by_size[:, index, 1])
        expect(f"missed objects {size}", failures.objects[:, index, 0])
        expect(f"objects {size}", failures.objects[:, index, 1])
    for index, depth in enumerate(DEPTHS):
        expect(f"found depth {depth}", failures.by_depth[:, index, 0])
        expect(f"pixels depth {depth}", failures.by_depth[:, index, 1])
    expect("found thin", failures.thin[:, 0])
    expect("pixels thin", failures.thin[:, 1])
    expect("mistaken", failures.mistaken)
    expect("pixels of large objects", failures.large)
    expect("split", failures.split[:, 0])
    expect("large objects", failures.split[:, 1])
    assert row == wanted


def test_a_row_by_hand() -> None:
    # 100 x 100: a cat of 40 x 40 (16 %: large) whose upper 10 rows are called dog, and a cat of 10 x 10 that is
    # not found; the last row is ignored. Radii are 1, 2, 3 and 6, and the bands are 3 wide.
    truth, prediction = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    truth[20:60, 20:60] = truth[80:90, 80:90] = 1
    prediction[20:60, 20:60] = 1
    prediction[20:30, 20:60] = 2
    truth[99] = 255
    row = Tally.of("a", truth, prediction, 4).rows["a"]
    background, cat, dog = row.labels.tolist()
    assert background[:4] == [0, 8200, 8200, 8300]
    assert cat[:4] == [1, 1200, 1700, 1200]
    assert dog == [2, 0, 0, 400, 0, 400 - 34 * 4]
    # The cat's bands: 40^2 - 34^2 = 444 and 10^2 - 4^2 = 84 in truth, 30 * 40 - 24 * 34 = 384 in the prediction.
    # Both hold three sides of 3 pixels below row 30: 1200 - 27 * 34 = 282.
    assert cat[4:] == [282, 444 + 84 + 384 - 282]
    counts = named(row)
    nonzero = {name: value for name, value in counts.items() if value and "depth" not in name}
    assert nonzero == {
        "found large": 1200,
        "pixels large": 1600,
        "pixels small": 100,
        "missed objects small": 1,
        "objects large": 1,
        "objects small": 1,
        "mistaken": 400,
        "pixels of large objects": 1600,
        "split": 1,
        "large objects": 1,
    }
    # Rings 1, 2, 3, 4 to 6 and the rest: of 40 x 40 and of 10 x 10 pixels. Found are the lower 30 rows: of ring k
    # one row of 42 - 2 k and two sides of 30 - k.
    assert [counts[f"pixels depth {depth}"] for depth in DEPTHS] == [
        156 + 36,
        148 + 28,
        140 + 20,
        372 + 16,
        784,
    ]
    assert [counts[f"found depth {depth}"] for depth in DEPTHS] == [98, 94, 90, 86 + 82 + 78, 24 * 28]


def test_the_columns_are_as_many_as_the_values() -> None:
    row = Tally.of("a", *random_pair(1, (70, 90), 5), 5).rows["a"]
    assert row.labels.shape[1] == len(LABEL_COLUMNS) == 6
    assert row.failures.shape == (len(FAILURE_COLUMNS),) == (32,)
    assert len(set(FAILURE_COLUMNS)) == 32


@given(seed=st.integers(0, 10_000), images=st.integers(0, 5), labels=st.integers(2, 6))
@settings(max_examples=25)
def test_merging_adds_every_counter(seed: int, images: int, labels: int) -> None:
    seen = pairs(seed, images, labels)
    tally, alone = merged(seen, labels), [counters(Tally.of("", *pair, labels)) for pair in seen]
    for name, value in counters(tally).items():
        start = np.array(counters(Tally.empty(labels))[name])
        assert not start.any()
        assert value == sum((np.array(counts[name]) for counts in alone), start=start).tolist(), name
    assert list(tally.rows) == [f"image {index}" for index in range(images)]


@given(seed=st.integers(0, 10_000), images=st.integers(1, 4), labels=st.integers(2, 6))
@settings(max_examples=25)
def test_rows_add_up_to_the_counters(seed: int, images: int, labels: int) -> None:
    tally = merged(pairs(seed, images, labels), labels)
    totals = np.zeros((labels, 5), np.int64)
    for row in tally.rows.values():
        assert row.labels.dtype == row.failures.dtype == np.int64
        for label, *values in row.labels.tolist():
            totals[label] += values
    assert totals[:, 0].tolist() == tally.confusion.diagonal().tolist()
    assert totals[:, 1].tolist() == tally.confusion.sum(1).tolist()
    assert totals[:, 2].tolist() == tally.confusion[:, :labels].sum(0).tolist()
    assert totals[:, 3:].tolist() == tally.boundary.tolist()
    failures = {name: sum(named(row)[name] for row in tally.rows.values()) for name in FAILURE_COLUMNS}
    assert failures["mistaken"] == tally.failures.mistaken.sum()
    assert failures["pixels thin"] == tally.failures.thin[:, 1].sum()
    assert failures["found small"] == tally.failures.by_size[:, 1, 0].sum()


def test_merging_leaves_the_other_alone_and_does_not_depend_on_the_order() -> None:
    seen = pairs(5, 4, 4)
    parts = [Tally.of(str(index), *pair, 4) for index, pair in enumerate(seen)]
    before = [counters(part) for part in parts]
    there, back = Tally.empty(4), Tally.empty(4)
    for part in parts:
        there.merge(part)
    for part in reversed(parts):
        back.merge(part)
    there.merge(Tally.empty(4))
    assert [counters(part) for part in parts] == before
    assert all(len(part.rows) == 1 for part in parts)
    assert counters(there) == counters(back)
    assert there.rows == back.rows
    for value in (there.confusion, there.boundary, there.ignored, *vars(there.failures).values()):
        assert value.dtype == np.int64


@cases
@settings(max_examples=25)
def test_flips_and_turns_change_nothing(seed: int, shape: tuple[int, int], labels: int) -> None:
    truth, prediction = random_pair(seed, shape, labels)
    wanted = Tally.of("a", truth, prediction, labels)
    for name, turn in SYMMETRIES.items():
        got = Tally.of("a", turn(truth), turn(prediction), labels)
        assert counters(got) == counters(wanted), name
        assert got.rows["a"].labels.tolist() == wanted.rows["a"].labels.tolist(), name
        assert got.rows["a"].failures.tolist() == wanted.rows["a"].failures.tolist(), name


@cases
@settings(max_examples=25)
def test_an_images_ious_are_those_of_its_confusion(seed: int, shape: tuple[int, int], labels: int) -> None:
    truth, prediction = random_pair(seed, shape, labels)
    tally = Tally.of("a", truth, prediction, labels)
    rows = tally.rows["a"].labels
    ious = image_ious(rows)
    scores = mask_scores(tally.confusion, 1)
    assert ious.tolist() == pytest.approx(scores.iou[rows[:, 0]].tolist())
    assert ((ious >= 0) & (ious <= 1)).all()
    assert len(ious) == np.isfinite(scores.iou).sum()


def test_nothing_but_ignored_pixels_leaves_empty_rows() -> None:
    truth, prediction = np.full((6, 5), 255, np.uint8), np.ones((6, 5), np.uint8)
    tally = Tally.of("a", truth, prediction, 3)
    assert tally.rows["a"].labels.shape == (0, 6)
    assert not tally.rows["a"].failures.any()
    assert image_ious(tally.rows["a"].labels).shape == (0,)
    assert tally.ignored.tolist() == [30, 30]


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        Tally.of("a", np.zeros((1, 4), np.uint8), np.zeros((3, 4), np.uint8), 2)
