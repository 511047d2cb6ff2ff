"""Pictures to look at: masks and CAMs painted over an image, with a legend; masks as palette PNGs."""

import contextlib
import itertools
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
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
"""Pixels of the long side of a picture of a grid."""
GAP = 8
ROW = 24
SWATCH = 14
MAX_SIDE = 2048
"""Pixels of an overlay's long side at most."""
NOTE = "wsss"
"""Keyword of the PNG text that `encode_mask` writes."""

_MAC_FONTS = ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts")

Rgb = NDArray[np.uint8]


@cache
def voc_palette() -> NDArray[np.uint8]:
    """The VOC colours, (256, 3) uint8: bit j of a label's three bits sets bit 7-j of R, G, B; 255 is pale."""
    label, channel = np.arange(256)[:, None], np.arange(3)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette |= ((label >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    palette.flags.writeable = False
    return palette


def paint_labels(image: Rgb, labels: NDArray[np.uint8], *, opacity: float = 0.7) -> Rgb:
    """(H, W, 3) and (H, W) -> the grey image under the labels' colours, with edges drawn."""
    tints = voc_palette() * opacity
    tints[0] = 0
    dimmed = darkened(image) * np.where(labels > 0, 1 - opacity, 1.0)
    painted = (dimmed[..., None] + tints[labels]).astype(np.uint8)
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    painted[edges] = 255
    return painted


def paint_cams(image: Rgb, cams: NDArray[np.float32], labels: Sequence[int] | NDArray[np.integer]) -> Rgb:
    """The grey image, tinted with each pixel's strongest class as far as its CAM (K, H, W) in [0, 1] goes."""
    grey = darkened(image)
    if not len(cams):
        return np.repeat(grey[..., None].astype(np.uint8), 3, 2)
    strength = cams.max(0)
    colours = np.maximum(voc_palette()[np.asarray(labels)], np.uint8(40))[cams.argmax(0)]
    tinted = (grey * (1 - strength))[..., None] + colours * strength[..., None]
    return np.asarray(tinted.clip(0, 255), dtype=np.uint8)


def darkened(image: Rgb, share: float = 0.5) -> NDArray[np.float64]:
    """(H, W) a share of the image's grey: every class colour stands out from it, the palette's grey one too."""
    return np.asarray(
        (image[..., 0].astype(np.int16) + image[..., 1] + image[..., 2]) / 3 * share, np.float64
    )


def draw_grid(
    headings: Sequence[str], rows: Sequence[tuple[str, Sequence[Rgb | None]]], names: Mapping[int, str]
) -> Image.Image:
    """A legend, and rows of pictures under headings.

    Args:
        headings: N texts.
        rows: caption and N pictures each, (H, W, 3) uint8 of any size, shown at most `CELL` large; None for none.
        names: of the labels of the legend.
    """
    width, soft = GAP + len(headings) * (CELL + GAP), (100, 100, 100)
    strip = _legend(names, width)
    top = strip.height + GAP
    canvas = Image.new("RGB", (width, top + ROW + len(rows) * (CELL + ROW + GAP)), "white")
    canvas.paste(strip)
    draw = ImageDraw.Draw(canvas)
    lefts = [GAP + column * (CELL + GAP) for column in range(len(headings))]
    for left, heading in zip(lefts, headings, strict=True):
        draw_text(draw, (left, top), heading, 14)
    top += ROW
    for caption, pictures in rows:
        draw_text(draw, (GAP, top), caption, 12, soft)
        top, height = top + ROW - 4, 0
        for left, picture in zip(lefts, pictures, strict=True):
            if picture is None:
                draw_text(draw, (left, top), "none", 12, soft)
                continue
            factor = CELL / max(picture.shape)
            h, w = (max(1, round(side * factor)) for side in picture.shape[:2])
            canvas.paste(Image.fromarray(picture).resize((w, h)), (left, top))
            height = max(height, h)
        top += height + GAP
    return canvas.crop((0, 0, width, top))


def encode_overlay(image: Rgb, labels: NDArray[np.uint8], classes: Sequence[str]) -> bytes:
    """A JPEG of the image under the labels' colours, with a legend of the labels that occur below it.

    Args:
        image: (H, W, 3) uint8; reduced to `MAX_SIDE` where it is larger.
        labels: (H, W) uint8, 0 background, c + 1 class c, 255 uncertain.
        classes: C names.
    """
    size = working_size(image.shape[0], image.shape[1], MAX_SIDE)
    small = resize_labels(labels, size)
    picture = Image.fromarray(paint_labels(resize_image(image, size), small))
    strip = _legend(legend(np.unique(small).tolist(), classes, "uncertain"), picture.width)
    canvas = Image.new("RGB", (picture.width, picture.height + strip.height), "white")
    canvas.paste(picture)
    canvas.paste(strip, (0, picture.height))
    buffer = BytesIO()
    canvas.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def legend(labels: Sequence[int], classes: Sequence[str], ignored: str) -> dict[int, str]:
    """Label -> name of the labels but background; ``ignored`` is the name of 255."""
    return {label: ignored if label == IGNORE else classes[label - 1] for label in sorted(labels) if label}


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, ...] = (0, 0, 0),
) -> float:
    """Write one line of any script, its capitals' top below ``place`` by a third of ``size``; returns its width."""
    x, baseline = place[0], place[1] + 1.1 * size
    for face, piece in _pieces(" ".join(text.split()), size):
        draw.text((x, baseline), piece, fill=colour, font=face, anchor="ls")
        x += face.getlength(piece)
    return x - place[0]


def text_width(text: str, size: int) -> float:
    """Pixels that `draw_text` needs."""
    return sum(face.getlength(piece) for face, piece in _pieces(" ".join(text.split()), size))


@cache
def _font_files() -> list[Path]:
    """Noto fonts of the packages: the one with Latin, Greek and Cyrillic first, the one with Chinese last."""
    noto = sorted(Path(str(file)) for file in files("manimgx_fonts").iterdir() if file.name.endswith(".ttf"))
    upright = [path for path in noto if "Italic" not in path.name]
    upright.sort(key=lambda path: not path.name.startswith("NotoSans["))
    return [*upright, Path(str(files("manimgx_fonts_cjk"))) / "NotoSansCJK-VF.otf.ttc"]


def _installed_files() -> Iterator[Path]:
    """Fonts of the machine, for scripts that the packages lack."""
    for folder in (
        "/usr/share/fonts",
        "/usr/local/share/fonts",
        "~/.local/share/fonts",
        "~/.fonts",
        *_MAC_FONTS,
    ):
        yield from sorted(Path(folder).expanduser().rglob("*.[to]t[fc]"))


@cache
def _face(path: Path, size: int) -> ImageFont.FreeTypeFont:
    face = ImageFont.truetype(path, size)
    with contextlib.suppress(OSError):  # of a font with one weight; else the one with Chinese would be thin
        face.set_variation_by_axes([400])
    return face


@cache
def _font_of(letter: str) -> Path:
    """The first font that has a letter: the others draw what they draw for no character. The first where none has."""
    for path in itertools.chain(_font_files(), _installed_files()):
        with contextlib.suppress(OSError):  # a font of pictures, or a damaged one
            # Not kept open: there may be thousands. The other layout may put two letters for one.
            face = ImageFont.truetype(path, 12, layout_engine=ImageFont.Layout.BASIC)
            own, none = (face.getmask(character) for character in (letter, "\uffff"))
            if own.size != none.size or bytes(own) != bytes(none):
                return path
    return _font_files()[0]


def _pieces(text: str, size: int) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    """A text cut where another font begins; spaces and marks belong to the letter before them."""
    pieces: list[tuple[ImageFont.FreeTypeFont, str]] = []
    for letter in text:
        joins = bool(pieces) and unicodedata.category(letter)[0] in "MCZ"
        face = pieces[-1][0] if joins else _face(_font_of(letter), size)
        if pieces and face is pieces[-1][0]:
            pieces[-1] = (face, pieces[-1][1] + letter)
        else:
            pieces.append((face, letter))
    return pieces


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


def _legend(names: Mapping[int, str], width: int) -> Image.Image:
    """Each name beside its colour, as wide as wanted: entries flow into lines."""
    places, left, top = {}, 4, 0
    for label, name in names.items():
        needed = round(text_width(name, 13)) + SWATCH + 17
        if left > 4 and left + needed > width:
            left, top = 4, top + ROW
        places[label] = (left, top + 5)
        left += needed
    strip = Image.new("RGB", (width, top + ROW if names else 0), "white")
    draw = ImageDraw.Draw(strip)
    for label, (x, y) in places.items():
        colour = tuple(voc_palette()[label].tolist())
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), fill=colour, outline="black")
        draw_text(draw, (x + SWATCH + 5, y - 2), names[label], 13)
    return strip
