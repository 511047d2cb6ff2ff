"""Pictures of the report: the photograph, what was made of it, and where that is wrong."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.overview import Rgb, paint_cams, paint_labels
from wsss.report.charts import data_uri
from wsss.resize import working_size

IGNORE = 255
SIDE = 280
"""Pixels of a picture's long side in the page."""

ERRORS: Mapping[str, tuple[int, int, int]] = {
    "missed": (0, 114, 178),
    "invented": (240, 228, 66),
    "wrong class": (213, 94, 0),
    "ignored": (255, 255, 255),
}
"""Colours of the error map (Okabe and Ito's blue, yellow and vermilion; `tests/test_report_pictures.py` holds
them to stay apart for every kind of colour blindness). What is right shows the photograph in grey."""


def error_kinds(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is wrong where.

    Args:
        truth: (H, W) labels, 255 ignored.
        prediction: (H, W) labels, 255 no decision.

    Returns:
        (H, W) uint8: 0 right, else 1 + the position in ERRORS. *missed*: an object's pixel called background or
        left undecided; *invented*: background given a class (or left undecided); *wrong class*: one class
        called another; *ignored*: not in the truth.
    """
    wrong = truth != prediction
    kinds = np.zeros(truth.shape, np.uint8)
    kinds[wrong & (truth > 0) & ((prediction == 0) | (prediction == IGNORE))] = 1
    kinds[wrong & (truth == 0)] = 2
    kinds[wrong & (truth > 0) & (prediction > 0) & (prediction != IGNORE)] = 3
    kinds[truth == IGNORE] = 4
    return kinds


def error_map(image: Rgb, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Rgb:
    """(H, W, 3): the grey photograph, with its errors in their colours."""
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2) * 0.45
    colours = np.array([(0, 0, 0), *ERRORS.values()], dtype=np.float64)
    kinds = error_kinds(truth, prediction)
    shown = np.where(kinds[..., None] > 0, colours[kinds], grey)
    return np.asarray(shown.round(), dtype=np.uint8)


def photograph_uri(image: Rgb) -> str:
    """The photograph, small."""
    return data_uri(_small(image), "JPEG", quality=78)


def cams_uri(image: Rgb, cams: NDArray[np.float32], labels: list[int]) -> str:
    """The photograph tinted by its CAMs (K, H, W); ``labels`` are their mask values."""
    return data_uri(_small(paint_cams(image, cams, labels)), "JPEG", quality=78)


def labels_uri(image: Rgb, labels: NDArray[np.uint8]) -> str:
    """The photograph under a mask in the VOC colours."""
    return data_uri(_small(paint_labels(image, labels)), "JPEG", quality=82)


def error_uri(image: Rgb, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> str:
    """The error map."""
    return data_uri(_small(error_map(image, truth, prediction)), "JPEG", quality=82)


def _small(picture: Rgb) -> Image.Image:
    height, width = working_size(picture.shape[0], picture.shape[1], SIDE)
    return Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
