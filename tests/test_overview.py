"""Pictures: the palette, painting, the grid."""

import math

import numpy as np
from msgspec.structs import replace
from PIL import Image, ImageDraw

from data import Dataset, Sample, overview_samples
from tests.trees import UInt8
from wsss.pictures import CELL, draw_grid, draw_text, paint_cams, paint_labels, text_width, voc_palette


def test_the_palette_is_vocs() -> None:
    palette = voc_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    for label, colour in known.items():
        assert tuple(palette[label].tolist()) == colour
    assert len({tuple(colour) for colour in palette.tolist()}) == 256


def test_labels_are_painted_where_they_are() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 4:] = 1
    painted = paint_labels(image, labels)
    assert (painted[:, :4] == 50).all()
    assert painted[3, 6, 0] > painted[3, 6, 1]  # red
    assert (painted[:, 4] == 255).all()  # the edge


def test_every_class_colour_stands_out_from_a_photograph_without_labels() -> None:
    image = np.full((6, 6, 3), 128, np.uint8)
    plain = paint_labels(image, np.zeros((6, 6), np.uint8))[3, 3].astype(int)
    for label in (*range(1, 21), 255):
        painted = paint_labels(image, np.full((6, 6), label, np.uint8))[3, 3].astype(int)
        assert np.abs(painted - plain).max() >= 20, label


def test_cams_tint_by_strength_and_class() -> None:
    image = np.full((2, 3, 3), 200, np.uint8)
    cams = np.zeros((2, 2, 3), np.float32)
    cams[0, :, 1], cams[1, :, 2] = 1.0, 1.0
    painted = paint_cams(image, cams, [1, 2])
    assert painted[0, 0].tolist() == [100, 100, 100]
    assert painted[0, 1].argmax() == 0
    assert painted[0, 2].argmax() == 1
    assert paint_cams(image, cams[:0], []).shape == image.shape


def test_the_grid_holds_portraits_landscapes_and_absent_cells() -> None:
    tall, wide = np.full((90, 60, 3), (200, 0, 0), np.uint8), np.full((60, 90, 3), (0, 0, 200), np.uint8)
    names = {label: f"a class with a long name {label}" for label in range(1, 8)}
    picture = draw_grid(["first", "second"], [("a", [tall, wide]), ("b", [wide, None])], names)
    pixels = np.asarray(picture).reshape(-1, 3)
    assert (pixels == (200, 0, 0)).all(1).sum() == CELL * round(CELL * 60 / 90)
    assert (pixels == (0, 0, 200)).all(1).sum() == 2 * CELL * round(CELL * 60 / 90)
    for label in names:
        assert (pixels == voc_palette()[label]).all(1).sum() > 100
    assert draw_grid(["first", "second"], [], {}).width == picture.width


def test_the_overview_shows_each_class_in_turn_and_no_image_twice() -> None:
    tags = [(0,), (0,), (0, 1), (1,), (), (2,)]
    first = Sample(
        id="", path="", tags=(), split="train", mask=None, size=(1, 1), image_digest="", mask_digest=None
    )
    samples = tuple(replace(first, id=str(index), tags=tag) for index, tag in enumerate(tags))
    dataset = Dataset(classes=("a", "b", "c"), samples=samples)
    assert [sample.id for sample in overview_samples(dataset, rows=4)] == ["0", "2", "5", "1"]
    assert [sample.id for sample in overview_samples(dataset)] == ["0", "2", "5", "1", "3"]


SCRIPTS = "кот γάτα قطة חתול बिल्ली বিড়াল பூனை แมว ແມວ 고양이 ねこ 猫 კატა կատու ድመት ကြောင် mačka"


def test_every_script_has_letters_in_pictures() -> None:
    pictures = [text_picture(name) for name in SCRIPTS.split()]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert not any(map(has_box, pictures))
    assert has_box(text_picture("\uffff"))
    assert has_box(text_picture("кот \U00012000"))  # no font has cuneiform


def has_box(picture: UInt8) -> bool:
    """Whether there is a letter that is drawn as one that no font has."""
    box = text_picture("\uffff")
    return any(np.array_equal(picture[:, x : x + box.shape[1]], box) for x in range(picture.shape[1]))


def text_picture(text: str) -> UInt8:
    """A text in black on white, as wide as it is."""
    image = Image.new("RGB", (math.ceil(text_width(text, 13)), 24), "white")
    draw_text(ImageDraw.Draw(image), (0, 0), text, 13)
    return np.asarray(image)[..., 0]
