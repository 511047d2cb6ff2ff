"""Label masks as PNGs that carry the VOC colours, so that they do not look black, and a note of their making."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsss.json_files import parse_json
from wsss.overview import voc_palette

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
