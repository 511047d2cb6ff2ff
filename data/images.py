"""From an image file to an array, whatever the file's mode, depth or orientation. Pillow only."""

import contextlib
import importlib
import warnings
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from wsss.errors import UserError

UInt8 = NDArray[np.uint8]

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
_HEIF = (b"ftypheic", b"ftypheix", b"ftyphevc")  # from the fourth byte on

_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes for gray with more than 8 bits

# What Pillow warns of (large images, damaged EXIF) is either an error here or nobody's business.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(path: Path) -> UInt8:
    """Read an image as it is meant to be seen.

    EXIF orientation is applied, transparency is composited over white, the first frame of an animation is
    taken, gray of 16 bits is scaled from 0..65535 to 0..255 (rounded), from 0..4095 where no value is larger. Colour
    profiles are not applied.

    Args:
        path: a file of any format that Pillow reads.

    Returns:
        uint8 ``(H, W, 3)`` RGB, C-contiguous and writable.

    Raises:
        UserError: the file cannot be read, is empty, truncated, not an image, or too large to be safe.
    """
    return decode_image(read_bytes(path), path)


def read_mask(path: Path) -> UInt8:
    """Read a label mask: the stored numbers themselves, never their colours.

    Palette and 8-bit gray PNGs give their values as they are, 1-bit gives 0 and 1, 16-bit gray gives its
    values if none is above 255. An EXIF orientation, should the mask carry one, is applied.

    Returns:
        uint8 ``(H, W)``, C-contiguous and writable.

    Raises:
        UserError: as for `read_image`, and for whatever is not a palette or gray PNG.
    """
    return decode_mask(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Return the file's bytes; a file that cannot be opened is a `UserError` that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check the file.") from error


@cache
def heif_is_readable() -> bool:
    """Whether the package pillow-heif is there; Pillow reads HEIC from then on."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def decode_image(data: bytes, path: Path) -> UInt8:
    """`read_image` on the bytes of a file; ``path`` is only named in errors."""
    return _decode(data, path, _to_rgb)


def decode_mask(data: bytes, path: Path) -> UInt8:
    """`read_mask` on the bytes of a file; ``path`` is only named in errors."""
    return _decode(data, path, _to_labels)


def _decode(data: bytes, path: Path, convert: Callable[[ImageFile.ImageFile, Path], UInt8]) -> UInt8:
    if not data:
        raise UserError(f"{path}: the file is empty (0 bytes): replace it or remove it from the list.")
    try:
        if data[4:12] in _HEIF and not heif_is_readable():
            raise UserError(
                f"{path}: a HEIC image, which needs a package: pip install pillow-heif, or save it as JPEG."
            )
        with Image.open(BytesIO(data)) as image:
            if image.format == "EPS":  # Pillow would have Ghostscript run it
                raise UserError(f"{path}: PostScript is a program and is not run: save it as PNG or JPEG.")
            return convert(image, path)
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path}: not an image in a format that Pillow reads, or cut off at its start: "
            "replace it or remove it from the list."
        ) from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(
            f"{path}: above Pillow's limit of {limit:,} pixels against decompression bombs: "
            "save it smaller or cut it into tiles."
        ) from error
    except Exception as error:  # on damaged files Pillow's decoders raise almost anything, not only OSError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: damaged or truncated ({reason}): copy it again or remove it from the list."
        ) from error


def _to_rgb(opened: ImageFile.ImageFile, path: Path) -> UInt8:
    image = _upright(opened)
    if image.mode in _DEEP:
        return _deep_to_rgb(image, path)
    if image.mode == "F":
        raise UserError(f"{path}: floating-point pixels have no agreed range: save it as an 8-bit image.")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.array(image.convert("RGB"))


def _deep_to_rgb(image: Image.Image, path: Path) -> UInt8:
    """Scale 0..65535 to 0..255, or 0..4095 where there is no more; mode I has 32 bits but is used for 16-bit data."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{path}: gray values {values.min()}..{values.max()} are outside 0..65535: "
            "save it with 8 or 16 bits."
        )
    top = 4095 if values.max() <= 4095 else 65535  # cameras and scanners keep 12 bits in 16
    gray = ((values * 255 + top // 2) // top).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _to_labels(opened: ImageFile.ImageFile, path: Path) -> UInt8:
    if opened.format != "PNG":
        raise UserError(
            f"{path}: a mask must be a PNG, this is {opened.format}: save the labels as an index PNG."
        )
    if opened.mode == "L" and opened.tile[0].args in ("L;2", "L;4"):  # Pillow multiplies by 85 or 17
        raise UserError(
            f"{path}: a gray mask of 2 or 4 bits is ambiguous: save it as a palette or 8-bit PNG."
        )
    image = _upright(opened)
    if image.mode not in ("P", "L", "1", *_DEEP):
        raise UserError(
            f"{path}: a mask holds one label per pixel, this one has colours (mode {image.mode}): "
            "convert it to a palette PNG or an 8-bit index PNG, or work without masks (data.masks = '')."
        )
    values = np.array(image)
    if values.max() > 255:
        raise UserError(
            f"{path}: label {values.max()} is above 255: save the mask with labels 0..254 (255: ignored)."
        )
    return values.astype(np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    """The image, loaded and turned as its EXIF orientation says."""
    image.load()  # before anything else: a PNG may carry EXIF and transparency after its pixels
    with contextlib.suppress(Exception):  # of a damaged EXIF block: viewers ignore it too
        ImageOps.exif_transpose(image, in_place=True)
    return image
