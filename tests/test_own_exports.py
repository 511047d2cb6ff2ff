"""What `init` makes of exports of labelling tools: Label Studio, CVAT, VOC annotations, one COCO file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import open_dataset
from data.own import inspect_folder
from tests.coco_trees import annotation, image_entry, write_instances
from tests.own_folders import plant, refused, splits, tags
from tests.trees import write_annotation
from wsss.config import from_tree

# ---- Label Studio


def task(number: int, image: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A task with the documented keys of the JSON export."""
    done = {
        "id": number + 100,
        "completed_by": 1,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "lead_time": 4.288,
        "task": number,
    }
    return {
        "id": number,
        "annotations": [done | more],
        "file_upload": image,
        "data": {"image": image},
        "project": 1,
    }


def choice(*names: str) -> dict[str, Any]:
    return {
        "value": {"choices": list(names)},
        "id": "CkRNBWbSiK",
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }


def region(name: str) -> dict[str, Any]:
    value = {"x": 13.3, "y": 5.7, "width": 10, "height": 11, "rotation": 0, "rectanglelabels": [name]}
    return choice() | {"type": "rectanglelabels", "value": value}


def test_label_studio(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "trip 1/b.jpg", "c.jpg", "d.jpg", "e.jpg")
    tasks = [
        task(1, "/data/upload/1/0a1b2c3d-a.jpg", choice("cat", "dog")),
        task(2, "/data/local-files/?d=photos/trip%201/b.jpg", choice("dog"), region("lead")),
        task(3, "https://example.com/x/c.jpg?sig=1", choice("cat"), was_cancelled=True),
        task(4, "/data/upload/1/d.jpg"),
        {"id": 5, "annotations": [], "data": {"image": "/data/upload/1/e.jpg"}},
    ]
    (tmp_path / "project-1-at-2024-05-01.json").write_text(json.dumps(tasks))
    found = inspect_folder(tmp_path)
    assert tags(found) == {"a.jpg": ("cat", "dog"), "trip 1/b.jpg": ("dog", "lead"), "d.jpg": ()}
    assert found.what == "the Label Studio export project-1-at-2024-05-01.json"


def test_label_studio_json_min(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "b.jpg")
    common = {
        "annotator": 1,
        "annotation_id": 7,
        "created_at": "2024-05-01T10:00:00.000000Z",
        "lead_time": 2.1,
    }
    tasks = [
        {"image": "/data/upload/1/0a1b2c3d-a.jpg", "id": 1, "choice": "cat", **common},
        {"image": "/data/upload/1/0a1b2c3d-b.jpg", "id": 2, "choice": {"choices": ["cat", "dog"]}, **common},
    ]
    (tmp_path / "min.json").write_text(json.dumps(tasks))
    assert tags(inspect_folder(tmp_path)) == {"a.jpg": ("cat",), "b.jpg": ("cat", "dog")}


def test_damaged_label_studio_exports(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg")
    path = tmp_path / "x.json"
    path.write_text(json.dumps([task(1, "a.jpg", choice("cat"))])[:-9])
    refused(tmp_path, f"{path}: not JSON, damaged or cut off", "export it again")
    path.write_text(json.dumps([{"id": 6, "data": {"image": "a.jpg"}, "annotations": [5]}]))
    refused(tmp_path, f"{path}: task 6 is not of Label Studio's form", "choices")
    path.write_text(json.dumps([task(1, "gone.jpg", choice("cat"))]))
    refused(tmp_path, "none of its 1 entries names an image", "'gone.jpg'", "copy the images there")
    path.write_text("[1, 2]")
    refused(tmp_path, "no tags")


# ---- CVAT, VOC, COCO

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task><id>3</id><name>pets</name><size>3</size><mode>annotation</mode>
      <labels><label><name>cat</name><color>#fa3253</color><type>any</type><attributes></attributes></label></labels>
    </task>
    <dumped>2024-05-01 10:00:00.000000+00:00</dumped>
  </meta>
  <image id="0" name="a.jpg" subset="Train" task_id="3" width="9" height="8">
    <tag label="cat" source="manual"></tag>
    <tag label="dog" source="manual"><attribute name="old">false</attribute></tag>
  </image>
  <image id="1" name="sub/b.jpg" subset="Validation" task_id="3" width="9" height="8">
    <box label="cat" source="manual" occluded="0" xtl="1.0" ytl="1.0" xbr="4.0" ybr="4.0" z_order="0"></box>
  </image>
  <image id="2" name="c.jpg" width="9" height="8"></image>
</annotations>
"""


def test_cvat(tmp_path: Path) -> None:
    plant(tmp_path, "images/a.jpg", "images/sub/b.jpg", "images/c.jpg")
    (tmp_path / "annotations.xml").write_text(CVAT)
    found = inspect_folder(tmp_path)
    assert tags(found) == {"images/a.jpg": ("cat", "dog"), "images/sub/b.jpg": ("cat",), "images/c.jpg": ()}
    assert splits(found) == {"images/a.jpg": "train", "images/sub/b.jpg": "val", "images/c.jpg": "train"}


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('name="a.jpg" ', "", "image 0 lacks a name"),
        ('<tag label="cat"', "<tag", "one of its tags a label"),
        ("</annotations>", "", "not a readable CVAT export"),
        ("<annotations>", '<!DOCTYPE a [<!ENTITY b "x">]><annotations>', "it has a DOCTYPE"),
        ('<image id="2"', '<track id="0"></track><image id="2"', "a CVAT for video export"),
    ],
)
def test_damaged_cvat_exports(tmp_path: Path, old: str, new: str, part: str) -> None:
    plant(tmp_path, "a.jpg", "c.jpg")
    (tmp_path / "annotations.xml").write_text(CVAT.replace(old, new, 1))
    refused(tmp_path, str(tmp_path / "annotations.xml"), part)


def test_voc_annotations_beside_the_images(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "val/b.jpg")
    write_annotation(tmp_path / "a.xml", np.ones((8, 9), np.uint8), {1: "cat"})
    write_annotation(tmp_path / "val" / "b.xml", np.ones((8, 9), np.uint8), {1: "dog"})
    found = inspect_folder(tmp_path)
    assert tags(found) == {"a.jpg": ("cat",), "val/b.jpg": ("dog",)}
    assert splits(found) == {"a.jpg": "train", "val/b.jpg": "val"}
    (tmp_path / "a.xml").write_text("<annotation><object></object></annotation>")
    found = inspect_folder(tmp_path)
    assert tags(found) == {"val/b.jpg": ("dog",)}
    assert f"1 annotation left out: {tmp_path / 'a.xml'} is not a VOC annotation" in found.problems[-2]


def test_fiftyone(tmp_path: Path) -> None:
    plant(tmp_path, "data/a.jpg", "data/x/b.jpg", "data/c.jpg")
    content = {"classes": ["cat", "dog"], "labels": {"a": {"label": 1}, "x/b": [0, 1], "c": None}}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    found = inspect_folder(tmp_path)
    assert tags(found) == {"data/a.jpg": ("dog",), "data/x/b.jpg": ("cat", "dog"), "data/c.jpg": ()}
    assert found.what == "the FiftyOne export labels.json"
    content["labels"] = {"a": 2}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    refused(tmp_path, "a label is beyond its 2 classes")


def test_labelme(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "b.jpg")
    shape = {"label": "cat", "points": [[1, 1], [4, 1], [4, 4]], "shape_type": "polygon"}
    for name, shapes, flags in (("a", [shape, shape], {}), ("b", [], {"dog": True, "old": False})):
        content = {
            "version": "5.4",
            "flags": flags,
            "shapes": shapes,
            "imagePath": f"{name}.jpg",
            "imageData": None,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "package.json").write_text("{}")
    found = inspect_folder(tmp_path)
    assert tags(found) == {"a.jpg": ("cat",), "b.jpg": ("dog",)}
    assert "package.json" in found.problems[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,label\na.jpg,cat\nx/b.jpg,dog\n"),
        (
            "metadata.jsonl",
            '{"file_name": "a.jpg", "label": "cat"}\n{"file_name": "x/b.jpg", "label": ["dog"]}\n',
        ),
        ("list.json", '[{"image": "a.jpg", "tags": ["cat"]}, {"image": "b.jpg", "tags": "dog"}]'),
        ("list.json", '{"a.jpg": "cat", "b.jpg": ["dog"]}'),
        (
            "p.csv",
            'image,id,choice,annotator\n/u/1/00000000-a.jpg,1,cat,1\nb.jpg,2,"{""choices"":[""dog""]}",1\n',
        ),
    ],
)
def test_records(tmp_path: Path, name: str, text: str) -> None:
    plant(tmp_path, "a.jpg", "x/b.jpg")
    (tmp_path / name).write_text(text)
    assert tags(inspect_folder(tmp_path)) == {"a.jpg": ("cat",), "x/b.jpg": ("dog",)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dataset-metadata.json", '{"id_no": 1, "info": {"title": "pets"}}'),
        ("results.json", '[{"epoch": 1, "file": "best.pt"}]'),
        ("sitemap.xml", "<annotations><version>x</version></annotations>"),
        ("notes.xml", "<annotation><note/></annotation>"),
        ("broken.json", '{"images": ['),
        ("index.csv", "image,width\na.jpg,640\n"),
    ],
)
def test_a_stray_file_stops_nothing(tmp_path: Path, name: str, text: str) -> None:
    plant(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (tmp_path / name).write_text(text)
    assert tags(inspect_folder(tmp_path)) == {"cat/a.jpg": ("cat",), "dog/b.jpg": ("dog",)}


def test_voc_annotations_in_a_folder_of_their_own(tmp_path: Path) -> None:
    plant(tmp_path, "images/a.jpg")
    write_annotation(tmp_path / "Annotations" / "a.xml", np.ones((8, 9), np.uint8), {1: "cat"})
    assert tags(inspect_folder(tmp_path)) == {"images/a.jpg": ("cat",)}


def coco_file(root: Path, name: str, *files: str) -> None:
    """Two images: a dog and a car; the category person is listed and never used."""
    images = [image_entry(number, file, (8, 9)) for number, file in enumerate(files)]
    shapes = [annotation(1, 0, 18, [[1, 1, 4, 1, 4, 4]]), annotation(2, 1, 3, [[1, 1, 4, 1, 4, 4]])]
    write_instances(root / name, images, shapes)


def test_one_coco_file_is_read_with_its_regions(tmp_path: Path) -> None:
    plant(tmp_path, "images/a.jpg", "images/b.jpg")
    coco_file(tmp_path, "result.json", "a.jpg", "b.jpg")
    found = inspect_folder(tmp_path)
    assert tags(found) == {"images/a.jpg": ("dog",), "images/b.jpg": ("car",)}
    assert found.listed
    assert found.data == {
        "source": "coco",
        "labels": "result.json",
        "images": "images",
        "classes": ["car", "dog"],
    }
    config = from_tree({"data": {**found.data, "root": str(tmp_path)}}, origin="test").data
    first = open_dataset(config).samples[0]
    assert (first.id, first.tags) == ("images/a", (1,))
    assert first.mask is not None
    assert set(np.unique(first.mask.read()).tolist()) == {0, 2}


def test_a_coco_file_of_other_paths_gives_tags(tmp_path: Path) -> None:
    plant(tmp_path, "x/a.jpg", "y/b.jpg")
    coco_file(tmp_path, "result.json", "a.jpg", "b.jpg")
    found = inspect_folder(tmp_path)
    assert not found.listed
    assert tags(found) == {"x/a.jpg": ("dog",), "y/b.jpg": ("car",)}
    assert "its regions are not used" in found.problems[0]


def test_categories_that_an_export_never_uses_are_no_classes(tmp_path: Path) -> None:
    plant(tmp_path, "train/a.jpg", "train/b.jpg")
    coco_file(tmp_path, "train/_annotations.coco.json", "a.jpg", "b.jpg")
    assert inspect_folder(tmp_path).data["classes"] == ["car", "dog"]
