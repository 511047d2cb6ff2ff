"""Exported formats, read back by the reference library or by a parser of the published format."""

import io
import json
import zipfile
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

from stages.commands.export.formats import (
    LabelledImage,
    brush_rle,
    coco_counts,
    coco_json,
    label_map_text,
    labelling_config,
    labelstudio_json,
    regions,
    voc_files,
    write_cvat,
    write_voc,
)
from tests.trees import voc_palette
from wsss.errors import UserError

CLASSES = ("cat", "Bär & Wolf", "traffic light")
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


def sure(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(labels == 255, 0, labels).astype(np.uint8)


masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 40)))


@given(masks)
def test_coco_counts_are_those_of_pycocotools(mask: Mask) -> None:
    assert coco_counts(mask).encode() == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_coco_counts_of_long_runs() -> None:
    mask = np.zeros((700, 900), bool)
    mask[300:, 5:800] = True
    assert coco_counts(mask).encode() == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


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


def test_voc_keeps_every_value_and_does_not_look_black(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    write_voc(images(), CLASSES, "train", files.__setitem__)
    assert sorted(files) == sorted(voc_files([image.id for image in images()], "train"))
    assert list(files)[-1] == "ImageSets/Segmentation/train.txt"  # what is listed is there
    assert files["ImageSets/Segmentation/train.txt"].decode().splitlines() == ["trip 1/über", "x", "y.z"]
    assert files["classes.txt"].decode().splitlines() == list(CLASSES)
    for image in images():
        with Image.open(io.BytesIO(files[f"SegmentationClass/{image.id}.png"])) as opened:
            assert opened.mode == "P"
            assert opened.getpalette() == voc_palette()
            assert (np.array(opened) == image.labels).all()
            shown = np.array(opened.convert("RGB"))
        assert (shown[image.labels == 255] == (224, 224, 192)).all()
        assert (shown[(image.labels > 0) & (image.labels < 255)].max(-1) >= 128).all()


# pycocotools itself has not followed numpy 2 yet.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
@pytest.mark.parametrize("instances", [False, True])
def test_coco_is_read_by_pycocotools(tmp_path: Path, instances: bool) -> None:
    content = coco_json(images(), CLASSES, {"version": "1"}, instances=instances)
    assert content == coco_json(images(), CLASSES, {"version": "1"}, instances=instances)
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    coco = COCO(path)
    assert {item["name"]: item["id"] for item in coco.loadCats(coco.getCatIds())} == dict(
        zip(CLASSES, (1, 2, 3), strict=True)
    )
    pictures = coco.loadImgs(coco.getImgIds())
    assert [picture["file_name"] for picture in pictures] == ["trip 1/über.JPG", "x.png", "y.z.jpg"]
    for picture, image in zip(pictures, images(), strict=True):
        assert (picture["height"], picture["width"]) == image.labels.shape
        read = np.zeros_like(image.labels)
        for annotation in coco.loadAnns(coco.getAnnIds(picture["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            assert not read[mask].any()  # annotations do not overlap
            read[mask] = annotation["category_id"]
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
            assert annotation["iscrowd"] == 0
        assert (read == sure(image.labels)).all()
    count = len(coco.getAnnIds(1))
    assert count > 3 if instances else count == 3


def read_cvat(path: Path) -> tuple[list[str], dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    """The archive as CVAT's documentation describes it: colours are looked up in labelmap.txt, unknown ones fail."""
    with zipfile.ZipFile(path) as archive:
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
def test_cvat_archive_reads_back(tmp_path: Path, instances: bool) -> None:
    path = tmp_path / "masks.zip"
    write_cvat(path, images(), CLASSES, instances=instances)
    names, found = read_cvat(path)
    assert names == ["background", *CLASSES]
    for image in images():
        labels, objects = found[image.id]
        assert (labels == sure(image.labels)).all()  # unsure pixels get no shape
        for number in np.unique(objects[labels > 0]):
            assert len(np.unique(labels[objects == number])) == 1  # an object is of one class
        assert len(np.unique(objects[labels > 0])) == len(list(regions(image.labels, instances=instances)))
    before = path.read_bytes()
    write_cvat(path, images(), CLASSES, instances=instances)
    assert path.read_bytes() == before


def test_cvat_refuses_what_it_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labelmap\.txt.*a:b"):
        label_map_text(["a:b"])
    dots = np.zeros((80, 80), np.uint8)
    dots[::4, ::4] = 1
    with pytest.raises(UserError, match="dots: more than 254"):
        write_cvat(tmp_path / "x.zip", [LabelledImage("dots", "dots.jpg", dots)], CLASSES, instances=True)


def test_label_studio_tasks_read_back() -> None:
    arguments = (images(), CLASSES)
    content = labelstudio_json(*arguments, model="m", prefix="/data/?d=", instances=False)
    assert content == labelstudio_json(*arguments, model="m", prefix="/data/?d=", instances=False)
    tasks = json.loads(content)
    assert tasks[0]["data"]["image"] == "/data/?d=trip%201/%C3%BCber.JPG"
    ids = [result["id"] for task in tasks for result in task["predictions"][0]["result"]]
    assert len(set(ids)) == len(ids)
    for task, image in zip(tasks, images(), strict=True):
        read = np.zeros_like(image.labels)
        for result in task["predictions"][0]["result"]:
            assert (result["type"], result["from_name"], result["to_name"]) == ("brushlabels", "tag", "image")
            shape = (result["original_height"], result["original_width"])
            alpha = unpack_brush(result["value"]["rle"]).reshape(*shape, 4)[..., 3]
            read[alpha > 0] = CLASSES.index(result["value"]["brushlabels"][0]) + 1
        assert (read == sure(image.labels)).all()
    config = labelling_config(CLASSES)
    assert '<BrushLabels name="tag" toName="image">' in config
    assert 'value="Bär &amp; Wolf" background="#008000"' in config
