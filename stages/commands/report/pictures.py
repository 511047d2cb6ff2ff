"""Pictures of the report: the photograph, what was made of it, and where that is wrong."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.commands.report.charts import data_uri
from wsss import IGNORE
from wsss.pictures import Rgb, darkened, paint_cams, paint_labels
from wsss.resize import resize_image, resize_labels, resize_maps, working_size

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
    return _painted_errors(image, error_kinds(truth, prediction))


def small(image: Rgb) -> Rgb:
    """An image at the size at which it is painted; the functions below take it at any size."""
    return resize_image(image, _small(image))


def photograph_uri(image: Rgb) -> str:
    """The photograph, small."""
    return _uri(small(image))


def cams_uri(image: Rgb, cams: NDArray[np.float32], labels: list[int]) -> str:
    """The photograph tinted by its CAMs (K, h, w) of any size; ``labels`` are their mask values."""
    size = _small(image)
    return _uri(paint_cams(resize_image(image, size), resize_maps(cams, size), labels))


def labels_uri(image: Rgb, labels: NDArray[np.uint8]) -> str:
    """The photograph under a mask in the VOC colours."""
    size = _small(image)
    return _uri(paint_labels(resize_image(image, size), resize_labels(labels, size)))


def error_uri(image: Rgb, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> str:
    """The error map."""
    size = _small(image)
    kinds = resize_labels(error_kinds(truth, prediction), size)
    return _uri(_painted_errors(resize_image(image, size), kinds))


def _painted_errors(image: Rgb, kinds: NDArray[np.uint8]) -> Rgb:
    grey = darkened(image, 0.45).round().astype(np.uint8)
    colours = np.array([(0, 0, 0), *ERRORS.values()], np.uint8)
    return np.where(kinds[..., None] > 0, colours[kinds], grey[..., None])


def _small(image: Rgb) -> tuple[int, int]:
    """The size (h, w) at which an image is painted: painting it whole and reducing it then takes four times as long."""
    return working_size(image.shape[0], image.shape[1], SIDE)


def _uri(picture: Rgb) -> str:
    return data_uri(Image.fromarray(picture), "JPEG", quality=80)
