"""Resampling against torch, and sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from wsss.resize import resize_image, resize_labels, resize_maps, working_size


def test_maps_are_resized_as_torch_does() -> None:
    maps = np.random.default_rng(0).random((3, 5, 7)).astype(np.float16)
    wanted = F.interpolate(torch.from_numpy(maps.astype(np.float32))[None], (20, 27), mode="bilinear")[0]
    assert resize_maps(maps, (20, 27)) == pytest.approx(wanted.numpy(), abs=1e-5)
    assert resize_maps(maps[:0], (20, 27)).shape == (0, 20, 27)


def test_labels_are_never_mixed() -> None:
    labels = np.array([[0, 200], [255, 7]], np.uint8)
    assert resize_labels(labels, (4, 4)).tolist() == [
        [0, 0, 200, 200],
        [0, 0, 200, 200],
        [255, 255, 7, 7],
        [255, 255, 7, 7],
    ]
    assert resize_labels(labels, (2, 2)) is labels


def test_images_keep_a_flat_colour_and_their_range() -> None:
    image = np.full((9, 6, 3), 255, np.uint8)
    assert (resize_image(image, (4, 17)) == 255).all()
    assert resize_image(image, (4, 17)).shape == (4, 17, 3)


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(32, 2048))
def test_working_size_keeps_the_long_side_and_never_enlarges(height: int, width: int, limit: int) -> None:
    h, w = working_size(height, width, limit)
    assert 1 <= h <= height
    assert 1 <= w <= width
    assert max(h, w) == min(limit, max(height, width))
    if max(height, width) <= limit:
        assert (h, w) == (height, width)
