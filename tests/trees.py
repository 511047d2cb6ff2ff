"""Builders of tiny data sets on disk: coloured shapes as JPEG images, with their exact masks."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data import open_dataset
from wsss.config import DataConfig
from wsss.errors import UserError

UInt8 = NDArray[np.uint8]

SHAPES = ("disc", "square", "diamond")
_COLOURS = ((210, 60, 50), (60, 170, 70), (60, 80, 200), (220, 190, 50), (170, 70, 180), (60, 180, 190))


def refused(config: DataConfig, *parts: str, how: Callable[[DataConfig], object] = open_dataset) -> None:
    """Assert that a data set is refused with a message that holds all ``parts`` and names no more than ten files."""
    with pytest.raises(UserError) as caught:
        how(config)
    message = str(caught.value)
    assert message.count("\n") < 13
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


def make_scene(labels: Sequence[int], size: tuple[int, int], rng: np.random.Generator) -> tuple[UInt8, UInt8]:
    """Draw one shape per class label side by side on a gray, noisy ground.

    Returns:
        uint8 ``(H, W, 3)`` image and uint8 ``(H, W)`` mask with the ``labels`` and 0.
    """
    H, W = size
    mask = np.zeros(size, np.uint8)
    pixels = rng.normal(128, 12, (H, W, 3))
    y, x = np.mgrid[:H, :W]
    for slot, label in enumerate(labels):
        lane = W / len(labels)
        radius = min(H, lane) * rng.uniform(0.25, 0.4)
        dy = np.abs(y - H * rng.uniform(0.45, 0.55)) / radius
        dx = np.abs(x - lane * (slot + 0.5)) / radius
        distance = (np.hypot(dx, dy), np.maximum(dx, dy), dx + dy)[(label - 1) % 3]
        mask[distance <= 1] = label
        pixels[distance <= 1] = np.array(_COLOURS[(label - 1) % 6]) + rng.normal(0, 8)
    return pixels.clip(0, 255).astype(np.uint8), mask


def make_folder_tree(
    root: Path,
    *,
    n_train: int = 6,
    n_val: int = 3,
    classes: Sequence[str] = SHAPES,
    size: tuple[int, int] = (36, 48),
    seed: int = 0,
    masks: bool = True,
) -> DataConfig:
    """Write ``images/``, ``masks/``, ``labels.csv`` and ``classes.txt``; return the settings that open them.

    Image i shows class ``i % C``, and every other image one more, so ``n_train >= C`` covers every class.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i, split in enumerate(["train"] * n_train + ["val"] * n_val):
        labels = _labels(i, len(classes))
        pixels, mask = make_scene(labels, size, rng)
        write_jpeg(root / "images" / f"{split}_{i:03d}.jpg", pixels)
        if masks:
            write_png(root / "masks" / f"{split}_{i:03d}.png", mask)
        rows.append((f"{split}_{i:03d}.jpg", ";".join(classes[label - 1] for label in labels), split))
    write_csv(root / "labels.csv", rows)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return DataConfig(source="folder", root=str(root))


def make_voc_tree(
    root: Path,
    *,
    n_train: int = 4,
    n_val: int = 2,
    classes: Sequence[str] = ("aeroplane", "bicycle"),
    size: tuple[int, int] = (36, 48),
    seed: int = 0,
    masks: bool = True,
) -> DataConfig:
    """Write a devkit as published; return the settings that open it, with ``classes`` as its classes.

    Masks are palette PNGs with the label 255 along every border between two labels.
    """
    rng = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for i, split in enumerate(["train"] * n_train + ["val"] * n_val):
        name = f"2007_{i:06d}"
        labels = _labels(i, len(classes))
        pixels, mask = make_scene(labels, size, rng)
        write_jpeg(root / "JPEGImages" / f"{name}.jpg", pixels)
        write_annotation(root / "Annotations" / f"{name}.xml", mask, {k: classes[k - 1] for k in labels})
        if masks:
            write_png(root / "SegmentationClass" / f"{name}.png", with_borders(mask), voc_palette())
        lists[split].append(name)
    for split, names in lists.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return DataConfig(source="voc", root=str(root), classes=tuple(classes))


def _labels(i: int, C: int) -> list[int]:
    return [i % C + 1] if i % 2 or C == 1 else [i % C + 1, (i + 1) % C + 1]


def write_csv(
    path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("image", "tags", "split")
) -> None:
    """Write a UTF-8 CSV with its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_jpeg(path: Path, pixels: UInt8) -> None:
    """Write an RGB image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", quality=95, subsampling=0)


def write_png(path: Path, values: UInt8, palette: Sequence[int] = ()) -> None:
    """Write an image, or a mask as gray or, with a ``palette``, as palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(palette)
    image.save(path, "PNG")


def write_annotation(path: Path, mask: UInt8, names: dict[int, str], parts: str = "") -> None:
    """Write a VOC annotation with a box per label of ``names``; ``parts`` is XML for inside every object."""
    H, W = mask.shape
    objects = "".join(_object(mask == label, name, parts) for label, name in names.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation>\n\t<folder>VOC2012</folder>\n\t<filename>{path.stem}.jpg</filename>\n"
        "\t<source>\n\t\t<database>The VOC2007 Database</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{W}</width>\n\t\t<height>{H}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>1</segmented>\n{objects}</annotation>\n",
        encoding="utf-8",
    )


def _object(where: NDArray[np.bool_], name: str, parts: str) -> str:
    y, x = (axis + 1 for axis in np.nonzero(where))  # boxes count from 1
    box = {"xmin": x.min(), "ymin": y.min(), "xmax": x.max(), "ymax": y.max()}
    corners = "".join(f"\t\t\t<{key}>{value}</{key}>\n" for key, value in box.items())
    return (
        f"\t<object>\n\t\t<name>{escape(name)}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>0</difficult>\n{parts}\t\t<bndbox>\n{corners}\t\t</bndbox>\n\t</object>\n"
    )


def with_borders(mask: UInt8) -> UInt8:
    """Return the mask with 255 on both sides of every border between two labels."""
    border = np.zeros(mask.shape, bool)
    border[1:] |= mask[1:] != mask[:-1]
    border[:-1] |= mask[1:] != mask[:-1]
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    border[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    return np.where(border, 255, mask).astype(np.uint8)


def voc_palette() -> list[int]:
    """Return the 256 colours of the VOC masks: bit j of a label goes to bit 7 - j // 3 of channel j % 3."""
    return [
        sum((label >> j & 1) << (7 - j // 3) for j in range(channel, 8, 3))
        for label in range(256)
        for channel in range(3)
    ]
