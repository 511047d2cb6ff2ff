"""Metrics against slow oracles and hand-worked cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.label_maps import SHAPES, random_pair
from wsss.metrics.boundary import boundary_counts
from wsss.metrics.confusion import (
    Labels,
    confusion_counts,
    image_miou,
    label_pixels,
    label_rows,
    mask_scores,
    mean_defined,
)
from wsss.metrics.sweep import THRESHOLDS, seed_labels, strongest_labels, sweep_counts, sweep_ious


def masks(seed: int, labels: int, ignore: bool = True) -> Labels:
    random = np.random.default_rng(seed)
    mask = random.integers(0, labels, (7, 9)).astype(np.uint8)
    if ignore:
        mask[random.random(mask.shape) < 0.2] = 255
    return mask


def slow_confusion(truth: Labels, prediction: Labels, labels: int) -> list[list[int]]:
    counts = [[0] * (labels + 1) for _ in range(labels)]
    for t, p in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if t != 255:
            counts[t][labels if p == 255 else p] += 1
    return counts


@given(seed=st.integers(0, 10_000), labels=st.integers(1, 6))
@settings(max_examples=40)
def test_confusion_equals_the_slow_loop(seed: int, labels: int) -> None:
    truth, prediction = masks(seed, labels), masks(seed + 1, labels)
    assert confusion_counts(truth, prediction, labels).tolist() == slow_confusion(truth, prediction, labels)


def test_scores_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [1, 255, 2, 2]], np.uint8)
    prediction = np.array([[0, 1, 1, 255], [1, 1, 0, 2]], np.uint8)
    scores = mask_scores(confusion_counts(truth, prediction, 4))
    # label 0: 1 right, 2 true, 2 predicted -> 1/3; 1: 2 right, 3 true, 3 predicted -> 2/4; 2: 1 / 2; 3 never occurs
    assert scores.iou[:3].tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 2])
    assert math.isnan(scores.iou[3])
    assert scores.miou == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    # Without the undecided pixel label 1 has 2 right, 2 true, 3 predicted.
    assert scores.miou_sure == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)
    assert scores.recall[:3].tolist() == pytest.approx([1 / 2, 2 / 3, 1 / 2])
    assert scores.precision[:3].tolist() == pytest.approx([1 / 2, 2 / 3, 1])
    assert scores.accuracy == pytest.approx(4 / 7)
    assert scores.undecided == pytest.approx(1 / 7)
    assert scores.fwiou == pytest.approx((2 * 1 / 3 + 3 * 1 / 2 + 2 * 1 / 2) / 7)


def test_a_class_of_false_positives_alone_counts_as_zero() -> None:
    truth, prediction = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8)
    assert mask_scores(confusion_counts(truth, prediction, 2)).miou == pytest.approx((3 / 4 + 0) / 2)


def test_a_perfect_prediction_scores_one_and_ignored_truth_never_counts() -> None:
    truth = masks(3, 4)
    prediction = truth.copy()
    prediction[truth == 255] = 2
    assert mask_scores(confusion_counts(truth, prediction, 4)).miou == 1.0


def test_nothing_scored_is_nan() -> None:
    truth = np.full((2, 2), 255, np.uint8)
    assert math.isnan(mask_scores(confusion_counts(truth, truth, 3)).miou)


def test_counters_do_not_overflow_32_bits() -> None:
    counts = confusion_counts(np.ones((2, 2), np.uint8), np.ones((2, 2), np.uint8), 2)
    assert counts.dtype == np.int64
    assert mask_scores(counts * 2**40).iou[1] == 1.0


def test_wrong_sizes_and_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        confusion_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)
    with pytest.raises(ValueError, match=r"up to 5, expected 0\.\.2"):
        confusion_counts(np.zeros((1, 1), np.uint8), np.full((1, 1), 5, np.uint8), 3)
    with pytest.raises(ValueError, match="up to 3"):
        confusion_counts(np.full((1, 1), 3, np.uint8), np.zeros((1, 1), np.uint8), 3)


@given(seed=st.integers(0, 10_000), kinds=st.integers(0, 3))
@settings(max_examples=25)
def test_seed_sweep_equals_thresholding_again_and_again(seed: int, kinds: int) -> None:
    random = np.random.default_rng(seed)
    labels, thresholds = 5, [0.1, 0.25, 0.5, 0.9]
    truth = masks(seed, labels)
    classes = random.choice(4, size=kinds, replace=False)
    cams = (random.integers(0, 21, (kinds, *truth.shape)) / 20).astype(np.float32)  # values meet thresholds
    ious = sweep_ious(sweep_counts(truth, *strongest_labels(cams, classes), labels))
    for threshold in thresholds:
        index = THRESHOLDS.index(threshold)
        seed_mask = np.zeros_like(truth)
        for y in range(truth.shape[0]):
            for x in range(truth.shape[1]):
                if kinds and cams[:, y, x].max() >= np.float32(threshold):
                    seed_mask[y, x] = classes[cams[:, y, x].argmax()] + 1
        wanted = confusion_counts(truth, seed_mask, labels)
        assert ious[index] == pytest.approx(mask_scores(wanted).iou, nan_ok=True)
        assert mean_defined(ious)[index] == pytest.approx(mask_scores(wanted).miou, nan_ok=True)
        assert (seed_labels(cams, classes, threshold) == seed_mask).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25)
def test_label_pixels_are_counted_one_by_one(seed: int) -> None:
    labels = masks(seed, 200)
    for view in (labels, labels.T, labels[::2, 1:]):
        counted = label_pixels(view)
        assert counted.shape == (256,)
        assert counted.dtype == np.int64
        for label in range(256):
            assert counted[label] == sum(value == label for value in view.ravel().tolist())


def test_the_sweep_does_not_stop_at_the_first_drop() -> None:
    # One class: pixels at 0.2 and 0.6 are background, at 0.4 and 0.8 object; mIoU falls before it rises.
    truth = np.array([[0, 1, 1, 0, 1, 1]], np.uint8)
    cams = np.array([[[0.2, 0.4, 0.4, 0.6, 0.8, 0.8]]], np.float32)
    counts = sweep_counts(truth, *strongest_labels(cams, np.array([0])), 2)
    curve = mean_defined(sweep_ious(counts))[[9, 29, 49, 69]]
    assert curve[1] > curve[0]
    assert curve[2] < curve[1]
    assert curve[3] > curve[2]


def slow_label_rows(truth: Labels, prediction: Labels, labels: int) -> list[list[int]]:
    boundary, rows = boundary_counts(truth, prediction, labels).tolist(), []
    for label in range(labels):
        true, predicted = truth == label, (prediction == label) & (truth != 255)
        if true.any() or predicted.any():
            pixels = [int(mask.sum()) for mask in (true & predicted, true, predicted)]
            rows.append([label, *pixels, *boundary[label]])
    return rows


@given(seed=st.integers(0, 10_000), shape=st.sampled_from(SHAPES), labels=st.integers(2, 6))
@settings(max_examples=40)
def test_an_images_rows_hold_what_its_scores_are_made_of(
    seed: int, shape: tuple[int, int], labels: int
) -> None:
    truth, prediction = random_pair(seed, shape, labels)
    confusion = confusion_counts(truth, prediction, labels)
    rows = label_rows(confusion, boundary_counts(truth, prediction, labels))
    assert rows.tolist() == slow_label_rows(truth, prediction, labels)
    assert rows.dtype == np.int64
    assert image_miou(rows) == pytest.approx(mask_scores(confusion).miou, nan_ok=True)


def test_a_row_by_hand() -> None:
    # 100 x 100: a cat of 40 x 40 whose upper 10 rows are called dog, and a cat of 10 x 10 that is not found; the last
    # row is ignored. The bands are 3 wide.
    truth, prediction = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    truth[20:60, 20:60] = truth[80:90, 80:90] = 1
    prediction[20:60, 20:60] = 1
    prediction[20:30, 20:60] = 2
    truth[99] = 255
    rows = label_rows(confusion_counts(truth, prediction, 4), boundary_counts(truth, prediction, 4))
    background, cat, dog = rows.tolist()
    assert background[:4] == [0, 8200, 8200, 8300]
    assert cat[:4] == [1, 1200, 1700, 1200]
    assert dog == [2, 0, 0, 400, 0, 400 - 34 * 4]
    # The cat's bands: 40^2 - 34^2 = 444 and 10^2 - 4^2 = 84 in truth, 30 * 40 - 24 * 34 = 384 in the prediction.
    # Both hold three sides of 3 pixels below row 30: 1200 - 27 * 34 = 282.
    assert cat[4:] == [282, 444 + 84 + 384 - 282]
