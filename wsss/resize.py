"""Sizes and resampling on arrays, without torch: for worker processes and reports."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
    """(H, W) uint8 labels -> size, nearest neighbour: no label is invented."""
    if labels.shape == size:
        return labels
    return np.array(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))


def resize_maps(maps: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """(K, h, w) -> (K, *size) float32, bilinear with half-pixel centres (torch's align_corners=False)."""
    result = np.empty((len(maps), *size), dtype=np.float32)
    for index, single in enumerate(maps):
        picture = Image.fromarray(np.ascontiguousarray(single, dtype=np.float32))
        result[index] = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return result
