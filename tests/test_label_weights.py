"""Weights of labels in the segmentation loss."""

import numpy as np
import pytest

from stages.segment import root_weights


def test_weights_are_one_over_the_root_with_mean_one_over_the_pixels() -> None:
    counts = np.array([900, 0, 100], np.int64)
    weights = root_weights(counts)
    assert weights[2] / weights[0] == pytest.approx(3)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] == 0


def test_equal_labels_weigh_one_and_no_pixels_weigh_nothing() -> None:
    assert root_weights(np.array([7, 7], np.int64)) == pytest.approx([1, 1])
    assert root_weights(np.zeros(3, np.int64)) == pytest.approx([0, 0, 0])
