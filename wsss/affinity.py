"""Seeds spread along an image's own affinities: cells that look alike share their class's evidence.

A class activation map is high where the object is most typical, and low on the rest of it. The backbone's middle
blocks, shallow enough to follow contours and deep enough to know parts, say which cells belong together: each cell's
CAM becomes the mean over all cells, weighted by how alike their features are. This is the pixel correlation module of
SEAM (Wang et al., CVPR 2020, arXiv 2004.04581) on frozen features, without its training.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_CELLS = 8192
"""Cells of the affinity's grid at most: the cost grows with their square. A larger grid is made coarser."""
ROUNDING = 1e-5
"""Differences from the mean below this share of a cell's own length say nothing."""
HELD = 1 << 22
"""Numbers of the affinity that are held at once: 16 MiB of float32."""


def propagate(
    maps: Tensor,
    features: Sequence[Tensor],
    *,
    power: float = 2.0,
    steps: int = 1,
    max_cells: int = MAX_CELLS,
    held: int = HELD,
) -> Tensor:
    """Spread CAMs over all cells with like features.

    ``A_ij = max(0, cos(f_i, f_j)) ** power``, each row divided by its sum; CAM' = A CAM, ``steps`` times; each class
    divided by its maximum. f are the blocks' features, see `affinity_features`, on the grid of the last (deepest) one.

    Args:
        maps: (K, h, w) >= 0, on any grid.
        features: of one image, per block (D_b, h_b, w_b) on one device with ``maps``, shallowest first.
        power: sharpness of the affinity; larger: fewer, more alike cells count.
        steps: how often; 0 changes nothing but the grid and the maximum.
        max_cells: the affinity's grid is made coarser (area means) until it has at most so many cells.
        held: numbers of the affinity that are in memory at once, at least one row.

    Returns:
        (K, h', w') float32 in [0, 1] on the affinity's grid. A class without activation is all zero.

    Raises:
        ValueError: no features.
    """
    described = affinity_features(features, max_cells=max_cells)  # (D, h', w')
    grid = described.shape[1:]
    cells = described.flatten(1).T.contiguous()  # (M, D), unit length
    spread = on_grid(maps.float(), grid).flatten(1).T.contiguous()  # (M, K)
    for _ in range(steps):
        spread = _averaged(cells, spread, power, held)
    return divided(spread.T.reshape(len(maps), *grid))


def affinity_features(features: Sequence[Tensor], *, max_cells: int = MAX_CELLS) -> Tensor:
    """What cells are compared by: how each block differs from its mean over the image, every block with equal weight.

    Args:
        features: of one image, per block (D_b, h_b, w_b), shallowest first.
        max_cells: of the grid, which is the deepest block's or a coarser one.

    Returns:
        (sum of D_b, h, w) float32, of unit length in every cell; zero where all blocks are at their mean.

    Raises:
        ValueError: no features.
    """
    if not features:
        raise ValueError("expected the features of at least one block")
    grid = coarser_grid(features[-1].shape[1], features[-1].shape[2], max_cells)
    return F.normalize(torch.cat([_direction(on_grid(block.float(), grid)) for block in features]), dim=0)


def coarser_grid(height: int, width: int, max_cells: int) -> tuple[int, int]:
    """The grid (h, w) itself, or with both sides reduced alike until it has at most ``max_cells`` cells."""
    if height * width <= max_cells:
        return height, width
    factor = (max_cells / (height * width)) ** 0.5
    return max(1, int(height * factor)), max(1, int(width * factor))


def on_grid(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """(K, h, w) -> (K, *grid): area means where a side shrinks, bilinear where it grows. K may be 0."""
    if tuple(maps.shape[1:]) == tuple(grid):
        return maps
    if not len(maps):
        return maps.new_zeros((0, *grid))
    smaller = min(maps.shape[1], grid[0]), min(maps.shape[2], grid[1])
    shrunk = F.adaptive_avg_pool2d(maps[None], smaller)
    return F.interpolate(shrunk, size=tuple(grid), mode="bilinear", align_corners=False)[0]


def divided(maps: Tensor) -> Tensor:
    """(K, h, w) >= 0, each divided by its maximum, if it has one."""
    if not len(maps):
        return maps
    return maps / maps.flatten(1).amax(1)[:, None, None].clamp(min=torch.finfo(maps.dtype).tiny)


def _direction(block: Tensor) -> Tensor:
    """(D, h, w) -> each cell's difference from the image's mean, of unit length; zero where it is but rounding."""
    difference = block - block.mean((1, 2), keepdim=True)
    length = torch.linalg.vector_norm(difference, dim=0, keepdim=True)
    counts = length > ROUNDING * torch.linalg.vector_norm(block, dim=0, keepdim=True)
    direction: Tensor = difference / length.clamp(min=torch.finfo(length.dtype).tiny) * counts
    return direction


def _averaged(cells: Tensor, values: Tensor, power: float, held: int) -> Tensor:
    """(M, D) unit vectors, (M, K) values -> (M, K): their means weighted by affinity, a block of rows at a time."""
    result = torch.empty_like(values)
    rows = max(1, held // len(cells))
    for start in range(0, len(cells), rows):
        affinity = (cells[start : start + rows] @ cells.T).clamp_(min=0)
        affinity = affinity.square_() if power == 2 else affinity.pow_(power)
        total = affinity.sum(1, keepdim=True)
        # A cell like the mean is like no other one: it keeps its value.
        own = values[start : start + rows]
        result[start : start + rows] = torch.where(total > 0, affinity @ values / total.clamp(min=1e-12), own)
    return result
