"""The classifier of feature cells: an oracle, and what must hold of least squares."""

import numpy as np
import pytest
import torch
from torch import Tensor

from wsss.cells import CellStatistics, cell_labels

L = 3


def image(seed: int, *, cells: tuple[int, int] = (6, 8)) -> tuple[Tensor, Tensor]:
    """Features (4, h, w) that depend on the labels, and labels 0..2 or 255."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, L, cells, generator=random)
    features = torch.randn(4, *cells, generator=random)
    features[0] += 2 * labels
    features[1] -= (labels == 1).float()
    labels[torch.rand(cells, generator=random) < 0.2] = 255
    return features, labels


def fitted(images: list[tuple[Tensor, Tensor]], ridge: float = 0.01) -> tuple[Tensor, Tensor]:
    total = CellStatistics.of(*images[0], L)
    for each in images[1:]:
        total = total + CellStatistics.of(*each, L)
    classifier = total.classifier(ridge)
    return classifier.weight, classifier.bias


def test_without_a_penalty_it_is_least_squares() -> None:
    images = [image(0), image(1)]
    rows = np.concatenate([f[:, y != 255].T.numpy() for f, y in images]).astype(np.float64)
    targets = np.eye(L)[np.concatenate([y[y != 255].numpy() for _, y in images])]
    best = np.linalg.lstsq(np.hstack([rows, np.ones((len(rows), 1))]), targets, rcond=None)[0]
    weight, bias = fitted(images, ridge=0.0)
    np.testing.assert_allclose(weight.numpy(), best[:-1].T, atol=1e-5)
    np.testing.assert_allclose(bias.numpy(), best[-1], atol=1e-5)


def test_scores_sum_to_one_and_rank_the_labels() -> None:
    images = [image(seed) for seed in range(4)]
    classifier = CellStatistics.of(*images[0], L)
    for each in images[1:]:
        classifier = classifier + CellStatistics.of(*each, L)
    scores = classifier.classifier().scores(images[0][0])
    assert scores.shape == (L, 6, 8)
    assert torch.allclose(scores.sum(0), torch.ones(6, 8), atol=1e-5)
    known = images[0][1] != 255
    assert (scores.argmax(0) == images[0][1])[known].float().mean() > 0.7


def test_the_order_of_the_images_does_not_matter() -> None:
    images = [image(seed) for seed in range(3)]
    for one, other in zip(fitted(images), fitted(images[::-1]), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_units_and_offsets_of_features_do_not_matter() -> None:
    images = [image(seed) for seed in range(3)]
    unit, offset = (
        torch.tensor([0.1, 5.0, 1.0, 100.0])[:, None, None],
        torch.tensor([3.0, 0, -7, 50])[:, None, None],
    )
    changed = [(f * unit + offset, y) for f, y in images]
    one, other = (CellStatistics.of(f, y, L).classifier().scores(f) for f, y in (images[0], changed[0]))
    assert torch.allclose(one, other, atol=1e-4)


def test_constant_features_leave_the_shares() -> None:
    labels = torch.tensor([[0, 0, 1, 255]])
    scores = (
        CellStatistics.of(torch.full((2, 1, 4), 0.1), labels, L)
        .classifier()
        .scores(torch.full((2, 1, 4), 0.1))
    )
    assert torch.allclose(scores[:, 0, 0], torch.tensor([2 / 3, 1 / 3, 0]), atol=1e-5)


def test_nothing_to_learn_from() -> None:
    nothing = CellStatistics.of(torch.ones(2, 1, 4), torch.full((1, 4), 255), L)
    with pytest.raises(ValueError, match="labelled cell"):
        nothing.classifier()


def test_labels_of_confident_cells() -> None:
    maps = torch.tensor([[[0.7, 0.5, 0.1, 0.2]], [[0.2, 0.1, 0.65, 0.1]]])
    assert cell_labels(maps, torch.tensor([4, 1]), confident=(0.3, 0.6)).tolist() == [[5, 255, 2, 0]]
    assert cell_labels(torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.long)).tolist() == [[0] * 3] * 2
