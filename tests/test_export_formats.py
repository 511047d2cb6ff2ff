"""Exported formats, read back by the reference library or by a parser of the published format."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from skimage.draw import polygon2mask

from stages.commands.export.formats import (
    FORMATS,
    LabelledImage,
    Labelling,
    brush_rle,
    check_names,
    file_names,
    outline,
    regions,
)
from tests.trees import voc_palette
from wsss.errors import UserError

CLASSES = ("cat", "Bär & Wolf", "traffic light")
ABOUT = Labelling(
    run="r", source="masks", split="train", fingerprint="f", classes=CLASSES, prefix="/data/local-files/?d="
)
# pycocotools itself has not followed numpy 2 yet.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
Mask = NDArray[np.bool_]


def images() -> list[LabelledImage]:
    rng = np.random.default_rng(0)
    first = np.kron(rng.choice([0, 1, 2, 3, 255], (5, 7)), np.ones((6, 9))).astype(np.uint8)
    empty = np.zeros((4, 3), np.uint8)
    full = np.full((3, 5), 2, np.uint8)
    return [
        LabelledImage("trip 1/über", "trip 1/über.JPG", first),
        LabelledImage("x", "x.png", empty),
        LabelledImage("y.z", "y.z.jpg", full),
    ]


def files(
    name: str, *, instances: bool = False, of: Sequence[LabelledImage] | None = None
) -> dict[str, bytes]:
    about = replace(ABOUT, instances=instances)
    found, again = (dict(FORMATS[name](images() if of is None else of, about)) for _ in range(2))
    assert found == again
    assert sorted(found) == sorted(file_names(name, [image.id for image in images()], "train"))
    return found


def certain(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(labels == 255, 0, labels).astype(np.uint8)


masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 40)))


def unpack_brush(packed: list[int]) -> NDArray[np.uint8]:
    """A decoder of @thi.ng/rle-pack as its documentation gives the format, one bit after the other."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    assert len(values) == total
    assert len(bits) - place < 8
    return np.array(values, np.uint8)


@given(masks)
def test_brush_unpacks_to_the_same_pixels(mask: Mask) -> None:
    rgba = unpack_brush(brush_rle(mask)).reshape(*mask.shape, 4)
    assert (rgba == np.where(mask, 255, 0)[..., None]).all()


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 5, 64, 65, 16384, 16385, 40000])
def test_brush_run_lengths_of_every_size(pixels: int) -> None:
    mask = np.zeros((1, pixels + 3), bool)
    mask[0, 2 : 2 + pixels] = True
    assert (unpack_brush(brush_rle(mask)).reshape(-1, 4)[:, 3] > 0).tolist() == mask[0].tolist()


def test_regions_by_class_and_by_component() -> None:
    labels = np.array([[1, 0, 1], [0, 1, 0], [2, 255, 1]], np.uint8)
    assert [(c, int(mask.sum())) for c, mask in regions(labels, instances=False)] == [(0, 4), (1, 1)]
    assert [(c, int(mask.sum())) for c, mask in regions(labels, instances=True)] == [
        (0, 4),
        (1, 1),
    ]  # corners touch
    labels[1, 1] = 0
    assert [(c, int(mask.sum())) for c, mask in regions(labels, instances=True)] == [(0, 1)] * 3 + [(1, 1)]


def test_voc_keeps_every_value_and_does_not_look_black() -> None:
    found = files("voc")
    assert list(found)[-1] == "ImageSets/Segmentation/train.txt"  # what is listed is there
    assert found["ImageSets/Segmentation/train.txt"].decode().splitlines() == ["trip 1/über", "x", "y.z"]
    assert found["classes.txt"].decode().splitlines() == list(CLASSES)
    for image in images():
        with Image.open(io.BytesIO(found[f"SegmentationClass/{image.id}.png"])) as opened:
            assert opened.mode == "P"
            assert opened.getpalette() == voc_palette()
            assert (np.array(opened) == image.labels).all()
            shown = np.array(opened.convert("RGB"))
        assert (shown[image.labels == 255] == (224, 224, 192)).all()
        assert (shown[(image.labels > 0) & (image.labels < 255)].max(-1) >= 128).all()


@pytest.mark.parametrize("instances", [False, True])
def test_coco_is_read_by_pycocotools(tmp_path: Path, instances: bool) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(files("coco", instances=instances)["instances_train.json"])
    coco = COCO(path)
    assert {item["name"]: item["id"] for item in coco.loadCats(coco.getCatIds())} == dict(
        zip(CLASSES, (1, 2, 3), strict=True)
    )
    entries = coco.loadImgs(coco.getImgIds())
    assert [entry["file_name"] for entry in entries] == ["trip 1/über.JPG", "x.png", "y.z.jpg"]
    for entry, image in zip(entries, images(), strict=True):
        assert (entry["height"], entry["width"]) == image.labels.shape
        read = np.zeros_like(image.labels)
        for annotation in coco.loadAnns(coco.getAnnIds(entry["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            assert not read[mask].any()  # annotations do not overlap
            read[mask] = annotation["category_id"]
            assert annotation["area"] == mask.sum()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            sides = [np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == [columns[0], rows[0], *sides]
            assert annotation["iscrowd"] == 0
        assert (read == certain(image.labels)).all()
    count = len(coco.getAnnIds(1))
    assert count > 3 if instances else count == 3


def read_cvat(content: bytes) -> tuple[list[str], dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    """The archive as CVAT's documentation describes it: colours are looked up in labelmap.txt, unknown ones fail."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        lines = archive.read("labelmap.txt").decode().splitlines()
        fields = [line.split(":") for line in lines if line and not line.startswith("#")]
        assert all(len(field) == 4 for field in fields)
        colours = {tuple(map(int, field[1].split(","))): index for index, field in enumerate(fields)}
        assert len(colours) == len(fields)
        found = {}
        for image_id in archive.read("ImageSets/Segmentation/default.txt").decode().splitlines():
            planes = []
            for folder in ("SegmentationClass", "SegmentationObject"):
                with Image.open(io.BytesIO(archive.read(f"{folder}/{image_id}.png"))) as opened:
                    planes.append(np.array(opened.convert("RGB")))
            flat = [colours[tuple(colour)] for colour in planes[0].reshape(-1, 3).tolist()]
            _, objects = np.unique(planes[1].reshape(-1, 3), axis=0, return_inverse=True)
            shape = planes[0].shape[:2]
            found[image_id] = (
                np.array(flat, np.uint8).reshape(shape),
                objects.astype(np.uint8).reshape(shape),
            )
    return [field[0] for field in fields], found


@pytest.mark.parametrize("instances", [False, True])
def test_cvat_archive_reads_back(instances: bool) -> None:
    names, found = read_cvat(files("cvat", instances=instances)["segmentation_mask_train.zip"])
    assert names == ["background", *CLASSES]
    for image in images():
        labels, objects = found[image.id]
        assert (labels == certain(image.labels)).all()  # uncertain pixels get no shape
        for number in np.unique(objects[labels > 0]):
            assert len(np.unique(labels[objects == number])) == 1  # an object is of one class
        assert len(np.unique(objects[labels > 0])) == len(list(regions(image.labels, instances=instances)))


def test_cvat_refuses_what_it_cannot_say() -> None:
    dots = np.zeros((80, 80), np.uint8)
    dots[::4, ::4] = 1
    with pytest.raises(UserError, match="dots: more than 254"):
        files("cvat", instances=True, of=[LabelledImage("dots", "dots.jpg", dots)])


NAMES = ("voc", "coco", "cvat", "labelstudio", "yolo")


@pytest.mark.parametrize(
    "image_id", ["../x", "a/../../x", "/etc/x", "a//b", "a\\b", "", ".", "a\nb", "\udcff", "\x07"]
)
def test_ids_that_leave_the_folder_or_are_no_text_are_refused(image_id: str) -> None:
    for name in NAMES:
        with pytest.raises(UserError, match=f"--format {name} cannot hold\nimage names that .*: "):
            check_names(name, ["fine", "trip 1/über..x", image_id], CLASSES)


@pytest.mark.parametrize(
    ("ids", "classes", "refusing"),
    [
        (["#1 red", "ok"], ["a"], ["cvat"]),
        (["# 2"], ["a"], ["cvat"]),
        (["a b", 'x;y, "q"#', "дом/кот"], ["a b", "b#", "c,d"], []),
        (["a "], ["a"], ["voc", "cvat"]),
        (["a"], ["x: y"], ["cvat"]),
        (["a"], ["#x"], ["cvat"]),
        (["a"], ["a\tb"], list(NAMES)),
    ],
)
def test_each_format_refuses_the_names_that_it_cannot_hold(
    ids: list[str], classes: list[str], refusing: list[str]
) -> None:
    for name in NAMES:
        if name in refusing:
            with pytest.raises(UserError, match="cannot hold") as caught:
                check_names(name, ids, classes)
            assert str(caught.value).endswith("CVAT imports too." if name == "cvat" else "Rename them.")
        else:
            check_names(name, ids, classes)


@given(arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_an_outline_encloses_the_mask_with_its_holes_and_nothing_else(mask: Mask) -> None:
    labels = mask.astype(np.uint8)
    for _, part in regions(labels, instances=True):
        corners = outline(part)
        filled = polygon2mask(part.shape, corners[:, ::-1] - 0.5)  # type: ignore[no-untyped-call]
        assert (filled == part).all()


def test_yolo_is_read_back_as_its_polygons_are_filled() -> None:
    ring = np.zeros((30, 40), np.uint8)
    ring[3:25, 4:35], ring[8:12, 8:12], ring[14:20, 16:30], ring[16:18, 18:20] = 1, 0, 0, 3
    of = [*images(), LabelledImage("ring", "ring.jpg", ring)]
    found = dict(FORMATS["yolo"](of, ABOUT))
    names = found["data.yaml"].decode().splitlines()
    assert names == [
        "train: images/train",
        "val: images/train",
        "names:",
        '  0: "cat"',
        '  1: "Bär & Wolf"',
        '  2: "traffic light"',
    ]
    for image in of:
        H, W = image.labels.shape
        read = np.zeros_like(image.labels)
        lines = found[f"labels/train/{image.id}.txt"].decode().splitlines()
        for line in lines:
            label, *shares = line.split()
            corners = np.array(shares, float).reshape(-1, 2) * (W, H)
            mask = coco_mask.decode(coco_mask.frPyObjects([corners.ravel().tolist()], H, W))[..., 0].astype(
                bool
            )
            assert not read[mask].any()
            read[mask] = int(label) + 1
            assert (np.array(shares, float) >= 0).all()
            assert (np.array(shares, float) <= 1).all()
        assert (read == certain(image.labels)).all()
        assert len(lines) == len(list(regions(image.labels, instances=True)))


def test_label_studio_tasks_read_back() -> None:
    found = files("labelstudio")
    tasks = json.loads(found["tasks_train.json"])
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=trip%201/%C3%BCber.JPG"
    ids = [result["id"] for task in tasks for result in task["predictions"][0]["result"]]
    assert len(set(ids)) == len(ids)
    for task, image in zip(tasks, images(), strict=True):
        read = np.zeros_like(image.labels)
        for result in task["predictions"][0]["result"]:
            assert (result["type"], result["from_name"], result["to_name"]) == ("brushlabels", "tag", "image")
            shape = (result["original_height"], result["original_width"])
            alpha = unpack_brush(result["value"]["rle"]).reshape(*shape, 4)[..., 3]
            read[alpha > 0] = CLASSES.index(result["value"]["brushlabels"][0]) + 1
        assert (read == certain(image.labels)).all()
    config = found["labelling_config.xml"].decode()
    assert '<BrushLabels name="tag" toName="image">' in config
    assert 'value="Bär &amp; Wolf" background="#008000"' in config
