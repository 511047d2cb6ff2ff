"""Resampling against torch, sizes, and labels in strips of rows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsss.resize import (
    View,
    label_map,
    label_probability,
    resize_image,
    resize_labels,
    resize_maps,
    working_size,
)


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


SIZES = [(37, 53), (9, 100), (600, 2000)]  # the last takes two strips


def views() -> list[View]:
    rng = np.random.default_rng(0)
    shapes = [((5, 6, 7), False), ((5, 6, 7), True), ((5, 3, 4), False)]
    return [View(rng.normal(0, 3, shape).astype(np.float32), mirrored) for shape, mirrored in shapes]


def oracle(size: tuple[int, int]) -> NDArray[np.float32]:
    total = torch.zeros(5, *size)
    for view in views():
        logits = torch.from_numpy(view.maps)
        logits = logits.flip(2) if view.mirrored else logits
        total += F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False).softmax(1)[0]
    result: NDArray[np.float32] = (total / 3).numpy()
    return result


@pytest.mark.parametrize("size", SIZES)
def test_strips_equal_torch(size: tuple[int, int]) -> None:
    expected = oracle(size)
    np.testing.assert_allclose(label_probability(views(), size), expected, atol=1e-5)
    assert (label_map(views(), size) == expected.argmax(0)).all()


def test_chosen_labels_share_all_probability() -> None:
    labels = np.array([0, 3])
    expected = oracle((20, 30))[labels]
    found = label_probability(views(), (20, 30), labels)
    np.testing.assert_allclose(found, expected / expected.sum(0), atol=1e-5)


def test_only_allowed_labels_are_given() -> None:
    allowed = np.array([True, False, True, False, True])
    found = label_map(views(), (20, 30), allowed=allowed)
    assert (found == np.where(allowed[:, None, None], oracle((20, 30)), -1).argmax(0)).all()
    assert len(np.unique(label_map(views(), (20, 30)))) > len(np.unique(found)) > 1


def test_no_view_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one view"):
        label_map([], (2, 2))
