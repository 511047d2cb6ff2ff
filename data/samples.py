"""One image of a data set with all that is known about it."""

from dataclasses import dataclass
from pathlib import Path

from data.masks import Mask


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with what is known about it.

    Attributes:
        id: the image's path relative to the images folder, without its extension, ``/`` between folders.
        image: the photograph.
        tags: sorted class indices 0..C-1; empty for an image that shows background only.
        split: name of its split.
        mask: where its labels (0: background, c + 1: class c, 255: ignored) are read from, None for none.
        size: ``(H, W)`` of the upright photograph.
        image_digest: sha256 of the photograph's bytes, hexadecimal.
        mask_digest: the same of what the mask is read from.
    """

    id: str
    image: Path
    tags: tuple[int, ...]
    split: str
    mask: Mask | None
    size: tuple[int, int]
    image_digest: str
    mask_digest: str | None
