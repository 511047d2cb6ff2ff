"""A segmentation network on an image of any size, in overlapping tiles: bounded memory, nearly the untiled result.

A tile is a core with a margin around it that is computed and thrown away. What lies beyond the margin is not seen, and
a light head's GroupNorm takes its statistics from each tile. Measured on the sample's network, whose light head and
backbone see further than the margin, on images of 2400 x 3200 pixels with tiles of 1536: probabilities differ from the
untiled ones by at most 0.04, 0.001 on average, and the most probable label at 0.1 % of the pixels; with tiles of 768 by
0.07, 0.002 and 0.2 %.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MARGIN = 256
"""Pixels around a core. With 128, probabilities differ by up to 0.3; with 384 hardly less than with 256."""


def tiled_maps(
    forward: Callable[[Tensor], Tensor], image: NDArray[np.generic], *, tile: int, strides: Sequence[int]
) -> NDArray[np.float32]:
    """Class maps of an image.

    Args:
        forward: the network: (1, 3, h, w) float32 RGB in [0, 1] -> (1, L, ceil(h / s), ceil(w / s)) logits.
        image: (H, W, 3), uint8 in 0..255 or float32 in [0, 1].
        tile: side of a core in pixels, at most (rounded up to the largest stride); no larger images are one tile.
        strides: of the network's blocks in pixels; the last is s.

    Returns:
        (L, ceil(H / s), ceil(W / s)) float32 logits.
    """
    stride, grid = strides[-1], max(strides)
    cells = [-(-side // stride) for side in image.shape[:2]]
    maps = np.empty((0, *cells), np.float32)
    for rows, core_rows in windows(image.shape[0], tile, grid):
        for columns, core_columns in windows(image.shape[1], tile, grid):
            window = image[rows, columns].copy()  # contiguous: torch takes no mirrored array
            pixels = torch.from_numpy(window).permute(2, 0, 1)[None].float()
            part = forward(pixels / 255 if window.dtype == np.uint8 else pixels)[0].float().cpu().numpy()
            if not len(maps):
                maps = np.empty((len(part), *cells), np.float32)
            place, own = [], []
            for span, core in ((rows, core_rows), (columns, core_columns)):
                first, last = core.start // stride, -(-core.stop // stride)
                place.append(slice(first, last))
                own.append(slice(first - span.start // stride, last - span.start // stride))
            maps[:, place[0], place[1]] = part[:, own[0], own[1]]
    return maps


def windows(length: int, tile: int, grid: int) -> list[tuple[slice, slice]]:
    """Cut one axis into about equal tiles on the network's sampling grid.

    A window starts at a multiple of ``grid``, and its length leaves the same remainder as the whole axis: padding that
    depends on the input's size ("same" of TensorFlow) then falls as in the untiled image.

    Args:
        length: of the axis in pixels.
        tile: length of a core, at most; rounded up to a multiple of ``grid``.
        grid: largest stride of the network's blocks.

    Returns:
        Per tile the window that is computed, and the core in it that is kept.
    """
    count = -(-length // max(tile, grid))
    core = -(-length // (count * grid)) * grid
    margin = MARGIN if count > 1 else 0
    return [
        (slice(max(0, start - margin), min(length, stop + margin + length % grid)), slice(start, stop))
        for start, stop in pairwise([*range(0, length, core), length])
    ]
