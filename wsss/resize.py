"""Sizes and resampling on arrays, without torch: for worker processes, reports and exported networks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Float32 = NDArray[np.float32]
STRIP_VALUES = 1 << 22
"""Probabilities that are held at once: 16 MiB of float32."""


def working_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """The size (H, W) an image is worked on at: its own, or reduced so that the long side is ``max_side``."""
    factor = min(1.0, max_side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (size, 3) uint8, bilinear, antialiased when reducing."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) uint8 labels -> size, nearest neighbour: labels are never mixed."""
    if labels.shape == size:
        return labels
    return np.array(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))


def resize_maps(maps: NDArray[np.floating], size: tuple[int, int], rows: slice = slice(None)) -> Float32:
    """(K, h, w) -> (K, *size) float32, bilinear with half-pixel centres, antialiased when reducing; or rows of it."""
    top, bottom, _ = rows.indices(size[0])
    (_, h, w), H = maps.shape, size[0]
    result = np.empty((len(maps), bottom - top, size[1]), dtype=np.float32)
    for index, single in enumerate(maps):
        plane = Image.fromarray(np.ascontiguousarray(single, dtype=np.float32))
        part = (0, top * h / H, w, bottom * h / H)
        result[index] = np.asarray(plane.resize((size[1], bottom - top), Image.Resampling.BILINEAR, part))
    return result


@dataclass(frozen=True)
class View:
    """What a network says of one view of an image.

    Attributes:
        maps: (L, h, w) float32 logits.
        mirrored: whether the view was the mirror image.
    """

    maps: Float32
    mirrored: bool = False


def label_map(
    views: Sequence[View], size: tuple[int, int], *, allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """The most probable label of every pixel, computed in strips of rows: bounded memory.

    Args:
        views: of one image; their probabilities are averaged.
        size: (H, W) of the result.
        allowed: (L,) the labels to choose from; None: all.

    Returns:
        (H, W) uint8.
    """
    labels = np.empty(size, dtype=np.uint8)
    for rows, probability in _strips(views, size):
        labels[rows] = best_label(probability, allowed)
    return labels


def label_probability(
    views: Sequence[View], size: tuple[int, int], labels: NDArray[np.integer] | None = None
) -> Float32:
    """Probabilities of every pixel, averaged over the views, computed in strips of rows.

    Args:
        views: of one image.
        size: (H, W) of the result.
        labels: (K,) the labels that are wanted, among which each pixel's probability is shared; None: all L.

    Returns:
        (K, H, W) float32, sums to 1 over K.
    """
    chosen = np.arange(len(views[0].maps)) if labels is None else labels
    result = np.empty((len(chosen), *size), dtype=np.float32)
    for rows, probability in _strips(views, size):
        wanted = np.maximum(probability[chosen], np.finfo(np.float32).tiny)
        result[:, rows] = wanted / wanted.sum(0)
    return result


def best_label(probability: Float32, allowed: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """(L, H, W) -> (H, W) uint8: the most probable label among the allowed ones, (L,) bool."""
    if allowed is None:
        return np.asarray(probability.argmax(0), dtype=np.uint8)
    chosen = np.flatnonzero(allowed)
    return np.asarray(chosen[probability[chosen].argmax(0)], dtype=np.uint8)


def _strips(views: Sequence[View], size: tuple[int, int]) -> Iterator[tuple[slice, Float32]]:
    if not views:
        raise ValueError("expected at least one view")
    H, W = size
    count = max(1, STRIP_VALUES // (len(views[0].maps) * W))
    for top in range(0, H, count):
        rows = slice(top, min(top + count, H))
        upright = (view.maps[:, :, ::-1] if view.mirrored else view.maps for view in views)
        yield rows, np.mean([_softmax(resize_maps(maps, size, rows)) for maps in upright], axis=0)


def _softmax(logits: Float32) -> Float32:
    exponential = np.exp(logits - logits.max(0))
    result: Float32 = exponential / exponential.sum(0)
    return result
