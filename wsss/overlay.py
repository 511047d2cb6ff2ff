"""A photograph under its labels, with a legend: to look at, not to compute with."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsss.overview import IGNORE, paint_labels, voc_palette
from wsss.resize import resize_image, resize_labels, working_size

MAX_SIDE = 2048
"""Pixels of an overlay's long side at most."""
ROW = 24
SWATCH = 14


def encode_overlay(image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[str]) -> bytes:
    """A JPEG of the photograph under the labels' colours, with a legend of the labels that occur below it.

    Args:
        image: (H, W, 3) uint8; reduced to `MAX_SIDE` where it is larger.
        labels: (H, W) uint8, 0 background, c + 1 class c, 255 unsure.
        classes: C names.
    """
    size = working_size(image.shape[0], image.shape[1], MAX_SIDE)
    small = resize_labels(labels, size)
    picture = Image.fromarray(paint_labels(resize_image(image, size), small))
    names = {label: _name(label, classes) for label in np.unique(small).tolist() if label}
    places, height = _layout(names, picture.width)
    canvas = Image.new("RGB", (picture.width, picture.height + height), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    palette = voc_palette()
    for label, (left, top) in places.items():
        corner = (left, picture.height + top + 5)
        box = (*corner, corner[0] + SWATCH, corner[1] + SWATCH)
        draw.rectangle(box, fill=tuple(palette[label].tolist()), outline="black")
        draw.text((left + SWATCH + 5, corner[1] - 1), names[label], fill="black", font=_font())
    buffer = BytesIO()
    canvas.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _layout(names: dict[int, str], width: int) -> tuple[dict[int, tuple[int, int]], int]:
    """Where each entry of the legend begins, and the legend's height: entries flow into lines."""
    places, left, top = {}, 4, 0
    for label, name in names.items():
        needed = round(_font().getlength(name)) + SWATCH + 17
        if left > 4 and left + needed > width:
            left, top = 4, top + ROW
        places[label] = (left, top)
        left += needed
    return places, top + ROW if names else 0


def _name(label: int, classes: Sequence[str]) -> str:
    return "unsure" if label == IGNORE else classes[label - 1]


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(13)
