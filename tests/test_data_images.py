"""Reading pixels: every mode and orientation against slow, obvious oracles."""

import io
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.images import heif_is_readable, read_image, read_mask
from wsss.errors import UserError

UInt8 = NDArray[np.uint8]
RNG = np.random.default_rng(0)


def picture(H: int = 5, W: int = 7) -> UInt8:
    return RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, kind: str = "PNG", **options: object) -> Path:
    image.save(path, kind, **options)
    return path


def over_white(colour: UInt8, alpha: UInt8) -> NDArray[np.float64]:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def error_of(path: Path, *, mask: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        (read_mask if mask else read_image)(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def stored_at(orientation: int, y: int, x: int, H: int, W: int) -> tuple[int, int]:
    """What EXIF says: where the pixel that is seen at (y, x) of the upright H x W image is stored."""
    bottom, right = H - 1 - y, W - 1 - x
    return {
        1: (y, x),
        2: (y, right),
        3: (bottom, right),
        4: (bottom, x),
        5: (x, y),
        6: (right, y),
        7: (right, bottom),
        8: (x, bottom),
    }[orientation]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    stored = picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    seen = read_image(saved(tmp_path / "x", Image.fromarray(stored), kind, exif=exif, **options))
    H, W = (5, 7) if orientation < 5 else (7, 5)
    assert seen.shape == (H, W, 3)
    for y in range(H):
        for x in range(W):
            assert tuple(seen[y, x]) == tuple(stored[stored_at(orientation, y, x, H, W)])


def test_exif_orientation_of_a_jpeg_and_of_a_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: the stored left column is the top row
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :8] = 255
    seen = read_image(saved(tmp_path / "x.jpg", Image.fromarray(stored), "JPEG", exif=exif))
    assert seen.shape == (32, 16, 3)
    assert seen[:6].min() > 200
    assert seen[12:].max() < 50
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    mask = read_mask(saved(tmp_path / "m.png", Image.fromarray(labels), exif=exif))
    assert mask.tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # the program ignores what Pillow warns of
@pytest.mark.parametrize(
    "block",
    [
        b"\xff\xff\xff\xff\1",  # points outside the file
        b"\0\0\0\x08\0\1" + b"\x01\x12\0\2\0\0\0\4abc\0" + b"\0\0\0\0",  # the orientation is a word
    ],
)
def test_damaged_exif_is_ignored(tmp_path: Path, block: bytes) -> None:
    path = saved(tmp_path / "x.jpg", Image.fromarray(picture()), "JPEG", exif=b"Exif\0\0MM\0*" + block)
    assert read_image(path).shape == (5, 7, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_is_exact_contiguous_and_writable(tmp_path: Path, kind: str) -> None:
    pixels = picture()
    seen = read_image(saved(tmp_path / "x", Image.fromarray(pixels), kind))
    assert seen.dtype == np.uint8
    assert seen.flags.c_contiguous
    assert seen.flags.writeable
    np.testing.assert_array_equal(seen, pixels)


def test_turned_pictures_are_contiguous_and_writable(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 7
    seen = read_image(saved(tmp_path / "x.png", Image.fromarray(picture()), exif=exif))
    assert seen.flags.c_contiguous
    assert seen.flags.writeable


def test_gray_and_one_bit(tmp_path: Path) -> None:
    gray = picture()[..., 0]
    seen = read_image(saved(tmp_path / "l.png", Image.fromarray(gray)))
    np.testing.assert_array_equal(seen, np.stack([gray] * 3, axis=2))
    bits = gray > 128
    seen = read_image(saved(tmp_path / "1.png", Image.fromarray(bits)))
    np.testing.assert_array_equal(seen, np.stack([bits * np.uint8(255)] * 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped_or_wrapped(tmp_path: Path, kind: str) -> None:
    values = np.array([[0, 1, 255, 256, 257], [30000, 32768, 40000, 65407, 65535]], np.uint16)
    seen = read_image(saved(tmp_path / "x", Image.fromarray(values), kind))
    expected = np.round(values / 65535 * 255)
    np.testing.assert_array_equal(seen, np.stack([expected] * 3, axis=2))


def test_twelve_bits_in_sixteen_are_not_black(tmp_path: Path) -> None:
    values = np.array([[0, 8, 16, 2048], [3000, 4000, 4094, 4095]], np.uint16)
    seen = read_image(saved(tmp_path / "x.png", Image.fromarray(values)))
    np.testing.assert_array_equal(seen, np.stack([np.round(values / 4095 * 255)] * 3, axis=2))


def test_heic_names_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heif_is_readable.cache_clear()
    assert "pip install pillow-heif" in error_of(tmp_path / "x.jpg")
    registered = []
    package = SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    heif_is_readable.cache_clear()
    assert "not an image" in error_of(tmp_path / "x.jpg")  # asked for, and the file is none
    assert registered
    heif_is_readable.cache_clear()


def test_gray_beyond_sixteen_bits_and_floats_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tif", Image.fromarray(np.array([[-5, 70000]], np.int32)), "TIFF")
    assert "-5..70000 are outside 0..65535" in error_of(path)
    path = saved(tmp_path / "f.tif", Image.fromarray(np.array([[0.5, 1]], np.float32)), "TIFF")
    assert "save it as an 8-bit image" in error_of(path)


def test_rgba_and_la_are_composited_over_white(tmp_path: Path) -> None:
    colour, alpha = picture(), picture()[..., 0]
    alpha[0, :3] = 0, 128, 255
    rgba = np.dstack([colour, alpha])
    np.testing.assert_allclose(
        read_image(saved(tmp_path / "rgba.png", Image.fromarray(rgba))), over_white(colour, alpha), atol=1
    )
    la = Image.merge("LA", [Image.fromarray(colour[..., 0]), Image.fromarray(alpha)])
    gray = np.stack([colour[..., 0]] * 3, axis=2)
    np.testing.assert_allclose(read_image(saved(tmp_path / "la.png", la)), over_white(gray, alpha), atol=1)


PALETTE = [10, 20, 30, 200, 100, 50, 0, 255, 0, 7, 8, 9]
INDICES = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)


def palette_image() -> Image.Image:
    image = Image.fromarray(INDICES)
    image.putpalette(PALETTE)
    return image


def test_palette(tmp_path: Path) -> None:
    colours = np.array(PALETTE, np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "p.png", palette_image())), colours[INDICES])


@pytest.mark.parametrize(
    ("transparency", "alpha"), [(b"\x00\x80\xff\xff", [0, 128, 255, 255]), (2, [255, 255, 0, 255])]
)
def test_palette_with_transparency(tmp_path: Path, transparency: bytes | int, alpha: list[int]) -> None:
    path = saved(tmp_path / "p.png", palette_image(), transparency=transparency)
    colours = np.array(PALETTE, np.uint8).reshape(-1, 3)
    expected = over_white(colours[INDICES], np.array(alpha, np.uint8)[INDICES])
    np.testing.assert_allclose(read_image(path), expected, atol=1)


def test_transparent_colour_of_rgb(tmp_path: Path) -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    seen = read_image(saved(tmp_path / "x.png", Image.fromarray(pixels), transparency=(1, 2, 3)))
    assert seen.tolist() == [[[255, 255, 255], [4, 5, 6]]]


def flat_cmyk(*ink: int) -> Image.Image:
    return Image.new("CMYK", (16, 16), ink)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", flat_cmyk(55, 155, 225, 51), "JPEG", quality=100)
    expected = [(255 - ink) * (255 - 51) / 255 for ink in (55, 155, 225)]
    np.testing.assert_allclose(read_image(path)[8, 8], expected, atol=4)


def test_ycck_jpeg(tmp_path: Path) -> None:
    """A CMYK file whose Adobe marker says YCCK: its first three planes are luma and chroma of the ink."""
    wanted = (200, 100, 30)
    luma = Image.new("RGB", (1, 1), tuple(255 - value for value in wanted)).convert("YCbCr").getpixel((0, 0))
    assert isinstance(luma, tuple)
    stream = io.BytesIO()
    flat_cmyk(*(255 - int(plane) for plane in luma), 0).save(stream, "JPEG", quality=100)
    file = stream.getvalue()
    at = file.index(b"Adobe") + 11  # the transform: 0 is CMYK, 2 is YCCK
    assert file[at] == 0
    (tmp_path / "x.jpg").write_bytes(file[:at] + b"\x02" + file[at + 1 :])
    np.testing.assert_allclose(read_image(tmp_path / "x.jpg")[8, 8], wanted, atol=4)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(tmp_path: Path, kind: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    path = saved(tmp_path / "x", red, kind, save_all=True, append_images=[blue], duration=50)
    np.testing.assert_allclose(read_image(path), np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=3)


def test_one_pixel_and_a_large_image(tmp_path: Path) -> None:
    one = np.array([[[9, 8, 7]]], np.uint8)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "1.png", Image.fromarray(one))), one)
    large = Image.new("RGB", (6000, 4000), (9, 8, 7))
    assert read_image(saved(tmp_path / "l.jpg", large, "JPEG")).shape == (4000, 6000, 3)


def test_unusable_files_are_named(tmp_path: Path) -> None:
    assert "No such file" in error_of(tmp_path / "none.jpg")
    (tmp_path / "zero.jpg").touch()
    assert "the file is empty (0 bytes)" in error_of(tmp_path / "zero.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    assert "not an image" in error_of(tmp_path / "text.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_files_are_named(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "x", Image.fromarray(picture(64, 64)), kind)
    path.write_bytes(path.read_bytes()[:-200])
    message = error_of(path)
    assert "damaged or truncated (" in message
    assert "copy it again" in message


def write_raw_png(path: Path, size: tuple[int, int], depth: int, colour: int, rows: bytes) -> None:
    """Write a PNG that Pillow would not write itself."""
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(rows), b"IEND")
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_decompression_bomb(tmp_path: Path) -> None:
    write_raw_png(tmp_path / "x.png", (60000, 60000), 8, 2, b"")
    assert "Pillow's limit of 178,956,970 pixels" in error_of(tmp_path / "x.png")


# ---- masks


def test_mask_of_a_palette_gives_indices(tmp_path: Path) -> None:
    mask = read_mask(saved(tmp_path / "m.png", palette_image()))
    assert mask.dtype == np.uint8
    assert mask.flags.writeable
    np.testing.assert_array_equal(mask, INDICES)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_of_gray_gives_values(tmp_path: Path, dtype: type[np.generic]) -> None:
    values: NDArray[np.generic] = np.array([[0, 1, 20], [254, 255, 2]], dtype)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", Image.fromarray(values))), values)


def test_mask_of_one_bit(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    assert read_mask(saved(tmp_path / "m.png", Image.fromarray(bits))).tolist() == [[1, 0], [0, 1]]


def test_masks_that_are_no_index_png_are_refused(tmp_path: Path) -> None:
    message = error_of(saved(tmp_path / "rgb.png", Image.fromarray(picture())), mask=True)
    assert "convert it to a palette PNG or an 8-bit index PNG" in message
    assert "(mode RGB)" in message
    rgba = Image.fromarray(np.dstack([picture(), picture()[..., 0]]))
    assert "(mode RGBA)" in error_of(saved(tmp_path / "rgba.png", rgba), mask=True)
    gray = Image.fromarray(picture()[..., 0])
    assert "must be a PNG, this is JPEG" in error_of(saved(tmp_path / "j.png", gray, "JPEG"), mask=True)
    deep = Image.fromarray(np.array([[256, 1]], np.uint16))
    assert "label 256 is above 255" in error_of(saved(tmp_path / "d.png", deep), mask=True)


def test_mask_of_four_bit_gray_is_refused(tmp_path: Path) -> None:
    """Pillow reads the stored 3 as 3 * 17 = 51, which is no label of anyone's."""
    path = tmp_path / "m.png"
    write_raw_png(path, (1, 1), 4, 0, b"\x00\x30")  # one row, no filter, one pixel of value 3
    with Image.open(path) as image:
        assert image.getpixel((0, 0)) == 51
    assert "2 or 4 bits is ambiguous" in error_of(path, mask=True)
