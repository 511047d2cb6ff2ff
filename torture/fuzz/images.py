"""Photographs and masks in the forms that Pillow reads differently."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.images import read_image, read_mask
from data.sbd import SbdMask
from torture.fuzz.mutations import png_mended

__all__ = ["jpegs", "masks", "png_mended", "pngs", "read", "read_labels", "read_sbd", "sbd_mask"]

_PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def pngs() -> list[bytes]:
    """Colour, transparent, palette, 1-bit and 16-bit PNGs."""
    colour = Image.fromarray(_PIXELS)
    deep = Image.fromarray(_PIXELS[:, :, 0].astype(np.uint16) * 200)
    kinds = [
        colour,
        colour.convert("RGBA"),
        colour.convert("P"),
        colour.convert("L"),
        colour.convert("1"),
        deep,
    ]
    return [_encoded(image, "PNG") for image in kinds]


def masks() -> list[bytes]:
    """Gray and palette PNGs."""
    labels = (_PIXELS[:, :, 0] % 4).astype(np.uint8)
    gray = Image.fromarray(labels)
    palette = Image.fromarray(labels)
    palette.putpalette(list(range(256)) * 3)
    return [_encoded(gray, "PNG"), _encoded(palette, "PNG")]


def jpegs() -> list[bytes]:
    """Plain, progressive, gray, CMYK, rotated by EXIF; and other formats under a photograph's name."""
    colour = Image.fromarray(_PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = [_encoded(image, "JPEG") for image in (colour, colour.convert("L"), colour.convert("CMYK"))]
    special = [_encoded(colour, "JPEG", progressive=True), _encoded(colour, "JPEG", exif=exif)]
    return plain + special + [_encoded(colour, name) for name in ("GIF", "BMP", "TIFF", "WEBP")]


def read(file: Path) -> object:
    """As every stage reads a photograph."""
    return read_image(file)


def read_labels(file: Path) -> object:
    """As a mask is read."""
    return read_mask(file)


def sbd_mask() -> bytes:
    """A mask of SBD."""
    from scipy.io import savemat

    buffer = BytesIO()
    savemat(buffer, {"GTcls": {"Segmentation": (_PIXELS[:, :, 0] % 4).astype(np.uint8)}})
    return buffer.getvalue()


def read_sbd(file: Path) -> object:
    """As a mask of SBD is examined."""
    return SbdMask(file).examine()


def _encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()
