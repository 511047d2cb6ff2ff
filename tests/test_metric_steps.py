"""Counting the limits that values reach, against a search for each value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsss.metrics import THRESHOLDS
from wsss.metrics.steps import Steps

LIMITS = (THRESHOLDS, (0.5,), (), (0.25, 0.5, 1.0), (0.5, 0.5001, 0.5002), (1e-30, 1.0, 1e30), (0.5, 0.5))


def searched(
    limits: tuple[float, ...], values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> list[int]:
    expected: list[int] = np.searchsorted(np.asarray(limits, np.float32), values, side="right").tolist()
    return expected


@pytest.mark.parametrize("limits", LIMITS)
def test_every_limit_and_its_neighbours(limits: tuple[float, ...]) -> None:
    exact = np.array([0, 1, *THRESHOLDS, *limits], np.float32)
    values = np.concatenate([exact, np.nextafter(exact, np.float32(-1)), np.nextafter(exact, np.float32(2))])
    assert Steps(limits).reached(values).tolist() == searched(limits, values)


@given(
    values=arrays(np.float32, st.integers(0, 50), elements=st.floats(allow_nan=False, width=32)),
    limits=st.sampled_from(LIMITS),
)
def test_any_values(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], limits: tuple[float, ...]
) -> None:
    assert Steps(limits).reached(values).tolist() == searched(limits, values)


def test_shape_stays() -> None:
    values = np.random.default_rng(0).random((5, 7, 2), dtype=np.float32).transpose(2, 0, 1)
    steps = Steps(THRESHOLDS)
    assert np.array_equal(steps.reached(values), np.searchsorted(steps.limits, values, side="right"))
