"""Metrics against slow oracles and hand-worked cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsss.metrics import (
    SeedCounts,
    confusion_counts,
    label_pixels,
    mask_scores,
    seed_labels,
    strongest_labels,
)


def masks(seed: int, labels: int, ignore: bool = True) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    mask = random.integers(0, labels, (7, 9)).astype(np.uint8)
    if ignore:
        mask[random.random(mask.shape) < 0.2] = 255
    return mask


def slow_confusion(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], labels: int) -> list[list[int]]:
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
    scores = mask_scores(confusion_counts(truth, prediction, 4), 1)
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


def test_a_class_that_is_only_invented_counts_as_zero() -> None:
    truth, prediction = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8)
    assert mask_scores(confusion_counts(truth, prediction, 2), 1).miou == pytest.approx((3 / 4 + 0) / 2)


def test_a_perfect_prediction_scores_one_and_ignored_truth_never_counts() -> None:
    truth = masks(3, 4)
    prediction = truth.copy()
    prediction[truth == 255] = 2
    assert mask_scores(confusion_counts(truth, prediction, 4), 1).miou == 1.0


def test_nothing_scored_is_nan() -> None:
    truth = np.full((2, 2), 255, np.uint8)
    assert math.isnan(mask_scores(confusion_counts(truth, truth, 3), 1).miou)


def test_counters_do_not_overflow_32_bits() -> None:
    counts = confusion_counts(np.ones((2, 2), np.uint8), np.ones((2, 2), np.uint8), 2)
    assert counts.dtype == np.int64
    assert mask_scores(counts * 2**40, 1).iou[1] == 1.0


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
    sweep = SeedCounts(labels, thresholds)
    sweep.add(truth, *strongest_labels(cams, classes))
    for index, threshold in enumerate(thresholds):
        seed_mask = np.zeros_like(truth)
        for y in range(truth.shape[0]):
            for x in range(truth.shape[1]):
                if kinds and cams[:, y, x].max() >= np.float32(threshold):
                    seed_mask[y, x] = classes[cams[:, y, x].argmax()] + 1
        wanted = confusion_counts(truth, seed_mask, labels)
        assert sweep.ious()[index] == pytest.approx(mask_scores(wanted, 1).iou, nan_ok=True)
        assert sweep.curve()[index] == pytest.approx(mask_scores(wanted, 1).miou, nan_ok=True)
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
    sweep = SeedCounts(2, [0.1, 0.3, 0.5, 0.7])
    sweep.add(truth, *strongest_labels(cams, np.array([0])))
    curve = sweep.curve()
    assert curve[1] > curve[0]
    assert curve[2] < curve[1]
    assert curve[3] > curve[2]
