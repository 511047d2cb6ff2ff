"""A segmentation network on an image of any size, in overlapping tiles: bounded memory, the untiled result.

A tile is a core with a margin around it that is computed and thrown away. Where the margin covers the
receptive field and tiles lie on the network's sampling grid, what is kept equals the untiled result within
rounding. The field is measured, not assumed: see `receptive_margin`. What of the head sees the whole map (GroupNorm)
runs once on the maps put together, at the network's stride.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.model.heads import AsppHead, LightHead, PixelHead
from wsss.model.multi_exit import PlainNetwork
from wsss.runtime.device import autocast
from wsss.runtime.interrupt import check

PROBE_SIDES = (1024, 4096)
"""Lengths of the strips on which the receptive field is measured."""
BLIND_MARGIN = 256
"""Pixels around a core where the receptive field is the whole image: then a tile is an approximation."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels.

    Attributes:
        start, stop: the window that is computed.
        core: where the part that is kept begins.
        core_stop: where it ends.
    """

    start: int
    stop: int
    core: int
    core_stop: int


class TiledNetwork:
    """A segmentation network that is run in tiles.

    Args:
        network: in evaluation mode.
        device: where it is.
        precision: float32 or bfloat16.
        tile: side of a tile's core in pixels; the margin comes on top. What is no larger is one tile.
    """

    def __init__(
        self, network: PlainNetwork, *, device: torch.device, precision: torch.dtype, tile: int
    ) -> None:
        if not isinstance(network.head, AsppHead | LightHead | PixelHead):
            raise ValueError("expected a segmentation network")
        self.network = network
        self.head = network.head
        self.device = device
        self.precision = precision
        self.stride = network.stride
        self.grid = max(network.strides)
        self.tile = _raised(max(tile, 1), self.grid)

    @cached_property
    def exact(self) -> bool:
        """Whether the margin covers all that a pixel's result depends on."""
        return self._reach is not None

    @cached_property
    def margin(self) -> int:
        """Pixels around a core."""
        return _raised(BLIND_MARGIN if self._reach is None else self._reach, self.grid)

    @cached_property
    def _reach(self) -> int | None:
        return receptive_margin(self.network, self.device)

    @torch.inference_mode()
    def maps(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """Class maps of an image.

        Args:
            image: (H, W, 3), uint8 in 0..255 or float32 in [0, 1].

        Returns:
            (L, h, w) float32 logits at the network's stride.
        """
        height, width = image.shape[:2]
        margin = self.margin if max(height, width) > self.tile else 0
        rows = list(spans(height, self.tile, margin, self.grid))
        columns = list(spans(width, self.tile, margin, self.grid))
        whole: Tensor | None = None
        for row in rows:
            for column in columns:
                check()
                part = self._local(image[row.start : row.stop, column.start : column.stop])
                if whole is None:
                    cells = [_cells(part.shape[2], height, row, self.stride)]
                    cells.append(_cells(part.shape[3], width, column, self.stride))
                    whole = part.new_empty((1, part.shape[1], *cells))
                self._put(whole, part, row, column)
        if whole is None:
            raise ValueError("expected an image with pixels")
        with autocast(self.device, self.precision):
            logits = self.head.rest(whole)[0].float()
        return logits.cpu().numpy()

    def _local(self, window: NDArray[np.generic]) -> Tensor:
        """(H, W, 3) -> (1, D, h, w): the network as far as it is local."""
        pixels = torch.from_numpy(np.ascontiguousarray(window)).to(self.device).permute(2, 0, 1)[None].float()
        batch = pixels / 255 if window.dtype == np.uint8 else pixels
        with autocast(self.device, self.precision):
            return local_maps(self.network, batch)

    def _put(self, whole: Tensor, part: Tensor, row: Span, column: Span) -> None:
        """Copy the core of a tile's map to its place."""
        window, place = [], []
        for span, cells in ((row, whole.shape[2]), (column, whole.shape[3])):
            first, last = span.core // self.stride, min(-(-span.core_stop // self.stride), cells)
            place.append(slice(first, last))
            window.append(slice(first - span.start // self.stride, last - span.start // self.stride))
        whole[:, :, place[0], place[1]] = part[:, :, window[0], window[1]]


def local_maps(network: PlainNetwork, images: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] -> (B, D, h, w): backbone and the local part of the head."""
    if not isinstance(network.head, AsppHead | LightHead | PixelHead):
        raise ValueError("expected a segmentation network")
    batch = images.contiguous(memory_format=torch.channels_last)
    return network.head.local(network.blocks(batch)[-1])


def spans(length: int, tile: int, margin: int, stride: int) -> Iterator[Span]:
    """Cut one axis into tiles on the network's sampling grid.

    A window starts at a multiple of the stride, and its length leaves the same remainder as the whole axis:
    padding that depends on the input's size ("same" of TensorFlow) then falls as in the untiled image.

    Args:
        length: of the axis, in pixels.
        tile: length of a core, a multiple of the stride.
        margin: on both sides of a core, a multiple of the stride.
        stride: of the network.
    """
    if length <= tile + 2 * margin:
        yield Span(0, length, 0, length)
        return
    for core in range(0, length, tile):
        start = max(0, core - margin)
        stop = min(length, core + tile + margin + length % stride)
        yield Span(start, stop, core, min(core + tile, length))


@torch.inference_mode()
def receptive_margin(network: PlainNetwork, device: torch.device) -> int | None:
    """How far a pixel's influence reaches, in pixels; None where it reaches everywhere.

    Not-a-numbers at one end of a long strip spread through convolutions, poolings, activations and sums to
    exactly what depends on them: the cells beyond the farthest that they reach do not depend on that end.
    (The farthest, not their number: dilated convolutions leave gaps.)
    """
    grid, stride = max(network.strides), network.stride
    for side in PROBE_SIDES:
        strip = torch.zeros(1, 3, 2 * grid, side, device=device)
        left, right = strip.clone(), strip
        left[:, :, :, :grid] = torch.nan
        right[:, :, :, -grid:] = torch.nan
        from_left, from_right = (
            local_maps(network, probe).isnan().flatten(0, 2).any(0).nonzero() for probe in (left, right)
        )
        if not len(from_left) or not len(from_right):
            return None  # something swallows them: nothing is known
        last = side // stride - 1
        reach = max(int(from_left.max()), last - int(from_right.min()))
        if reach < last:
            return reach * stride
    return None


def _cells(part: int, length: int, span: Span, stride: int) -> int:
    """Cells of the whole axis, from those of one window: both lengths leave the same remainder."""
    return part + (length - (span.stop - span.start)) // stride


def _raised(value: int, stride: int) -> int:
    return -(-value // stride) * stride
