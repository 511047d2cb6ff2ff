"""Pictures to look at: photograph, CAM, pseudo-mask, prediction and truth side by side.

A photograph under its labels, with a legend: to look at, not to compute with.

Label masks as PNGs that carry the VOC colours, so that they do not look black, and a note of their making.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from wsss import IGNORE
from wsss.resize import resize_image, resize_labels, working_size
from wsss.store.files import parse_json

CELL = 220
"""Pixels of the long side of a picture in its cell."""
GAP = 8
LEGEND_ROW = 22
HEADINGS = ("photograph", "CAM", "pseudo-mask", "prediction", "truth")

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class OverviewRow:
    """One image of the overview; what is None is shown as absent.

    Attributes:
        caption: of the row.
        image: (H, W, 3) uint8.
        cams: (K, H, W) in [0, 1], with ``cam_labels`` (K,) the mask values 1..C.
        pseudo: (H, W) uint8 labels, 255 unsure.
        prediction: (H, W) uint8 labels.
        truth: (H, W) uint8 labels, 255 ignored.
    """

    caption: str
    image: Rgb
    cams: NDArray[np.float32] | None
    cam_labels: Sequence[int]
    pseudo: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8] | None
    truth: NDArray[np.uint8] | None


@cache
def voc_palette() -> NDArray[np.uint8]:
    """The VOC colours, (256, 3) uint8: bit j of a label's three bits sets bit 7-j of R, G, B; 255 is pale."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for label in range(256):
        for bit in range(8):
            digit = label >> (3 * bit)
            for channel in range(3):
                palette[label, channel] |= ((digit >> channel) & 1) << (7 - bit)
    palette.flags.writeable = False
    return palette


def paint_labels(image: Rgb, labels: NDArray[np.uint8], *, opacity: float = 0.7) -> Rgb:
    """(H, W, 3) and (H, W) -> the grey photograph under the labels' colours, with edges drawn."""
    dimmed = darkened(image) * np.where(labels > 0, 1 - opacity, 1.0)
    tints = voc_palette() * opacity
    tints[0] = 0
    painted = (dimmed[..., None] + tints[labels]).astype(np.uint8)
    painted[_edges(labels)] = 255
    return painted


def paint_cams(image: Rgb, cams: NDArray[np.float32], labels: Sequence[int]) -> Rgb:
    """The grey photograph, tinted with each pixel's strongest class as far as its CAM goes."""
    grey = darkened(image)
    if not len(cams):
        return np.repeat(grey[..., None].astype(np.uint8), 3, 2)
    strength = cams.max(0)
    colours = np.maximum(voc_palette()[np.asarray(labels)], np.uint8(40))[cams.argmax(0)]
    tinted = (grey * (1 - strength))[..., None] + colours * strength[..., None]
    return np.asarray(tinted.clip(0, 255), dtype=np.uint8)


def darkened(image: Rgb, share: float = 0.5) -> NDArray[np.float64]:
    """(H, W) a share of the photograph's grey: every class colour stands out from it, the palette's grey one too."""
    red, green, blue = (image[..., channel].astype(np.int16) for channel in range(3))
    return np.asarray((red + green + blue) / 3 * share, np.float64)


def draw_overview(rows: Sequence[OverviewRow], classes: Sequence[str]) -> Image.Image:
    """Rows of pictures under headings, with a legend of the classes that occur."""
    heights = [_fit(row.image.shape[0], row.image.shape[1])[0] + LEGEND_ROW for row in rows]
    present = _labels_shown(rows)
    per_line = 6
    legend = LEGEND_ROW * (1 + (len(present) - 1) // per_line) if present else 0
    width = GAP + len(HEADINGS) * (CELL + GAP)
    canvas = Image.new("RGB", (width, legend + LEGEND_ROW + sum(heights) + GAP * (len(rows) + 2)), "white")
    draw = ImageDraw.Draw(canvas)
    _draw_legend(draw, present, classes, per_line, width)
    top = GAP + legend
    for column, heading in enumerate(HEADINGS):
        draw.text((GAP + column * (CELL + GAP), top), heading, fill="black", font=_font(14))
    top += LEGEND_ROW
    for row, height in zip(rows, heights, strict=True):
        draw.text((GAP, top), row.caption, fill=(70, 70, 70), font=_font(12))
        for column, picture in enumerate(_pictures(row)):
            left = GAP + column * (CELL + GAP)
            if picture is None:
                draw.text((left, top + LEGEND_ROW), "none", fill=(120, 120, 120), font=_font(12))
            else:
                h, w = _fit(picture.shape[0], picture.shape[1])
                canvas.paste(Image.fromarray(picture).resize((w, h)), (left, top + LEGEND_ROW - 4))
        top += height + GAP
    return canvas


def _pictures(row: OverviewRow) -> list[Rgb | None]:
    cams = None if row.cams is None else paint_cams(row.image, row.cams, row.cam_labels)
    masks = [
        None if labels is None else paint_labels(row.image, labels)
        for labels in (row.pseudo, row.prediction, row.truth)
    ]
    return [row.image, cams, *masks]


def _labels_shown(rows: Sequence[OverviewRow]) -> list[int]:
    shown: set[int] = set()
    for row in rows:
        shown |= set(map(int, row.cam_labels))
        for labels in (row.pseudo, row.prediction, row.truth):
            shown |= set() if labels is None else set(np.unique(labels).tolist())
    return sorted(shown - {0})


def _draw_legend(
    draw: ImageDraw.ImageDraw, present: Sequence[int], classes: Sequence[str], per_line: int, width: int
) -> None:
    palette = voc_palette()
    for index, label in enumerate(present):
        left = GAP + (index % per_line) * ((width - GAP) // per_line)
        top = GAP + (index // per_line) * LEGEND_ROW
        draw.rectangle((left, top, left + 14, top + 14), fill=tuple(palette[label].tolist()), outline="black")
        name = "unsure / ignored" if label == IGNORE else classes[label - 1]
        draw.text((left + 20, top - 1), name[:24], fill="black", font=_font(13))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _fit(height: int, width: int) -> tuple[int, int]:
    factor = CELL / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    return edges


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
        draw.text((left + SWATCH + 5, corner[1] - 1), names[label], fill="black", font=_overlay_font())
    buffer = BytesIO()
    canvas.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _layout(names: dict[int, str], width: int) -> tuple[dict[int, tuple[int, int]], int]:
    """Where each entry of the legend begins, and the legend's height: entries flow into lines."""
    places, left, top = {}, 4, 0
    for label, name in names.items():
        needed = round(_overlay_font().getlength(name)) + SWATCH + 17
        if left > 4 and left + needed > width:
            left, top = 4, top + ROW
        places[label] = (left, top)
        left += needed
    return places, top + ROW if names else 0


def _name(label: int, classes: Sequence[str]) -> str:
    return "unsure" if label == IGNORE else classes[label - 1]


def _overlay_font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(13)


NOTE = "wsss"
"""Keyword of the PNG text that `encode_mask` writes."""


def encode_mask(labels: NDArray[np.uint8], note: Mapping[str, Any] | None = None) -> bytes:
    """A palette PNG whose stored numbers are the labels; 255 is pale.

    Args:
        labels: (H, W) uint8.
        note: JSON values to be kept in the file's text, read by `mask_note`.
    """
    image = Image.fromarray(labels)
    image.putpalette(voc_palette().tobytes())  # turns the mode into P; the numbers stay
    info = PngInfo()
    if note is not None:
        info.add_text(NOTE, json.dumps(note, sort_keys=True))
    buffer = BytesIO()
    image.save(buffer, "PNG", pnginfo=info, optimize=True)
    return buffer.getvalue()


def mask_note(path: Path) -> dict[str, Any] | None:
    """The note in a mask's file; None where there is none, or no readable PNG."""
    try:
        with Image.open(path) as image:
            note = parse_json(image.info[NOTE])
    except (OSError, KeyError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return note if isinstance(note, dict) else None
