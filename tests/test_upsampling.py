"""Strips in numpy against torch's interpolation and softmax."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from wsss import resize as upsampling
from wsss.resize import View, label_map, label_probability

SIZES = [(37, 53), (3, 4), (9, 100)]


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
@pytest.mark.parametrize("values", [1, 700, 1 << 22])
def test_strips_equal_torch(size: tuple[int, int], values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsampling, "STRIP_VALUES", values)
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
