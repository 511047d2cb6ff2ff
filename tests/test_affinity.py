"""Seeds spread by affinity: an oracle written out cell by cell, and what must hold of any such mean."""

import numpy as np
import pytest
import torch
from torch import Tensor

from wsss.affinity import affinity_features, coarser_grid, propagate


def features(seed: int, *, grid: tuple[int, int] = (5, 7)) -> list[Tensor]:
    """Two blocks, the shallow one on a grid of twice the cells per side."""
    random = torch.Generator().manual_seed(seed)
    deep = torch.randn(6, *grid, generator=random) * 3 + 2
    return [torch.randn(4, 2 * grid[0], 2 * grid[1], generator=random), deep]


def cams(seed: int, *, classes: int = 2, grid: tuple[int, int] = (5, 7)) -> Tensor:
    return torch.rand(classes, *grid, generator=torch.Generator().manual_seed(seed + 100))


def written_out(maps: Tensor, blocks: list[Tensor], power: float) -> np.ndarray:
    """CAM'_ki = sum_j A_ij CAM_kj, maximum 1; blocks already on one grid."""
    described = []
    for block in blocks:
        flat = block.double().numpy().reshape(len(block), -1)
        flat = flat - flat.mean(1, keepdims=True)
        described.append(flat / np.linalg.norm(flat, axis=0))
    both = np.concatenate(described)
    values = maps.double().numpy().reshape(len(maps), -1)
    result = np.empty_like(values)
    for i in range(values.shape[1]):
        row = []
        for j in range(values.shape[1]):
            cosine = both[:, i] @ both[:, j] / np.linalg.norm(both[:, i]) / np.linalg.norm(both[:, j])
            row.append(max(0.0, cosine) ** power)
        result[:, i] = values @ np.array(row) / sum(row)
    return np.asarray(result / result.max(1, keepdims=True)).reshape(maps.shape)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_as_written_out(power: float) -> None:
    shallow, deep = features(0)
    shallow = torch.nn.functional.avg_pool2d(shallow, 2)
    maps = cams(0)
    spread = propagate(maps, [shallow, deep], power=power)
    np.testing.assert_allclose(spread.numpy(), written_out(maps, [shallow, deep], power), atol=1e-5)


def test_shallow_blocks_are_averaged_over_the_deepest_grid() -> None:
    shallow, deep = features(1)
    pooled = torch.nn.functional.avg_pool2d(shallow, 2)
    assert torch.allclose(affinity_features([shallow, deep]), affinity_features([pooled, deep]))


def test_constant_features_change_nothing() -> None:
    maps = cams(2)
    maps = maps / maps.flatten(1).amax(1)[:, None, None]
    spread = propagate(maps, [torch.full((4, 10, 14), 3.0), torch.full((6, 5, 7), -1.0)])
    assert torch.allclose(spread, maps)


def test_a_permutation_of_positions_commutes() -> None:
    blocks = [features(3)[1], features(4)[1]]
    maps = cams(3)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(0))

    def permuted(each: Tensor) -> Tensor:
        return each.flatten(1)[:, order].reshape(each.shape)

    straight = permuted(propagate(maps, blocks))
    assert torch.allclose(
        propagate(permuted(maps), [permuted(block) for block in blocks]), straight, atol=1e-6
    )


def test_a_constant_map_stays_and_an_empty_class_too() -> None:
    maps = torch.stack([torch.full((5, 7), 0.3), torch.zeros(5, 7)])
    spread = propagate(maps, features(5), steps=3)
    assert torch.allclose(spread[0], torch.ones(5, 7))
    assert not spread[1].any()


def test_two_steps_are_one_after_the_other() -> None:
    blocks, maps = features(6), cams(6)
    assert torch.allclose(
        propagate(maps, blocks, steps=2), propagate(propagate(maps, blocks), blocks), atol=1e-6
    )


def test_like_cells_share_their_evidence() -> None:
    deep = torch.zeros(3, 4, 6)
    deep[0, :, :3] = 1  # the left half is one thing, the right half another
    deep[1, :, 3:] = 1
    maps = torch.zeros(1, 4, 6)
    maps[0, 1, 1] = 1
    spread = propagate(maps, [deep])
    assert torch.allclose(spread[0, :, :3], torch.ones(4, 3))
    assert not spread[0, :, 3:].any()


@pytest.mark.parametrize("held", [1, 100])
def test_blocks_of_rows_equal_the_whole(held: int) -> None:
    blocks, maps = features(7), cams(7)
    assert torch.allclose(propagate(maps, blocks, held=held), propagate(maps, blocks), atol=1e-6)


def test_a_large_grid_is_made_coarser() -> None:
    assert coarser_grid(20, 30, 600) == (20, 30)
    height, width = coarser_grid(200, 300, 600)
    assert height * width <= 600
    assert abs(height / width - 2 / 3) < 0.1
    assert (
        propagate(cams(8), features(8), max_cells=12).shape[1]
        * propagate(cams(8), features(8), max_cells=12).shape[2]
        <= 12
    )


def test_no_class_and_no_features() -> None:
    assert propagate(torch.zeros(0, 5, 7), features(9)).shape == (0, 5, 7)
    with pytest.raises(ValueError, match="at least one block"):
        propagate(cams(0), [])
