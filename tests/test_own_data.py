"""What `init` makes of folders that people have: class folders, CSVs, exports of labelling tools."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.own import Found, inspect_folder
from data.own.tree import Matcher
from tests.coco_trees import annotation, image_entry, make_coco_tree, write_instances
from tests.trees import make_folder_tree, make_voc_tree, write_annotation, write_jpeg
from wsss.errors import UserError

PIXELS = np.zeros((8, 9, 3), np.uint8)


def plant(root: Path, *images: str) -> Path:
    for name in images:
        write_jpeg(root / name, PIXELS)
    return root


def tags(found: Found) -> Mapping[str, tuple[str, ...]]:
    return {row.image: row.tags for row in found.rows}


def splits(found: Found) -> Mapping[str, str]:
    return {row.image: row.split for row in found.rows}


def refused(root: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        inspect_folder(root)
    message = str(caught.value)
    assert message.count("\n") < 3
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


# ---- folders


def test_folders_named_by_class(tmp_path: Path) -> None:
    found = inspect_folder(
        plant(tmp_path, "cat/a.jpg", "cat/b.JPG", "dog/x/c.png", "background/d.jpg", "loose.jpg")
    )
    assert tags(found) == {
        "background/d.jpg": (),
        "cat/a.jpg": ("cat",),
        "cat/b.JPG": ("cat",),
        "dog/x/c.png": ("dog",),
    }
    assert found.what == "photographs in folders named by class"
    assert found.problems == (
        "each photograph has the one tag of its folder: what else it shows counts as background",
        "1 photographs outside of the class folders: left out",
    )


def test_folders_of_splits_and_classes(tmp_path: Path) -> None:
    found = inspect_folder(plant(tmp_path, "train/cat/a.jpg", "Valid/dog/b.jpg", "test/dog/c.jpg"))
    assert tags(found) == {
        "Valid/dog/b.jpg": ("dog",),
        "test/dog/c.jpg": ("dog",),
        "train/cat/a.jpg": ("cat",),
    }
    assert splits(found) == {"Valid/dog/b.jpg": "val", "test/dog/c.jpg": "test", "train/cat/a.jpg": "train"}


def test_published_layouts_are_read_as_they_are(tmp_path: Path) -> None:
    make_voc_tree(tmp_path / "voc")
    shutil.copy(
        tmp_path / "voc/ImageSets/Segmentation/train.txt",
        tmp_path / "voc/ImageSets/Segmentation/train_aug.txt",
    )
    make_coco_tree(tmp_path / "coco")
    make_folder_tree(tmp_path / "folder")
    plant(tmp_path / "city", "leftImg8bit/train/ulm/ulm_0_leftImg8bit.png")
    found = {name: inspect_folder(tmp_path / name) for name in ("voc", "coco", "folder", "city")}
    assert found["voc"].data == {"source": "voc", "train_split": "train_aug", "val_split": "val"}
    assert found["coco"].data == {"source": "coco", "train_split": "train2017", "val_split": "val2017"}
    assert found["city"].data["source"] == "cityscapes"
    assert found["folder"].data == {}
    assert found["folder"].listed
    assert not any(found[name].rows for name in ("voc", "coco", "city"))


def test_a_coco_export_with_a_folder_per_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        plant(tmp_path, f"{split}/a.jpg")
        write_instances(tmp_path / split / "_annotations.coco.json", [image_entry(1, "a.jpg", (8, 9))], [])
    assert inspect_folder(tmp_path).data == {
        "source": "coco",
        "labels": "{split}/_annotations.coco.json",
        "images": "{split}",
        "train_split": "train",
        "val_split": "valid",
    }


def test_folders_without_anything(tmp_path: Path) -> None:
    refused(tmp_path, "no images in it")
    refused(tmp_path / "x", "no such folder")
    (tmp_path / "notes.json").write_text('{"a": 1}')
    plant(tmp_path, "images/a.jpg", "b.jpg")
    refused(tmp_path, "2 photographs and no tags", "Lists there: notes.json", "a folder per class")


def test_links_and_hidden_folders_are_not_followed(tmp_path: Path) -> None:
    plant(tmp_path / "elsewhere", "cat/a.jpg")
    root = plant(tmp_path / "d", "cat/b.jpg", ".thumbs/cat/c.jpg")
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "cat")
    assert list(tags(inspect_folder(root))) == ["cat/b.jpg"]


# ---- CSV


@pytest.mark.parametrize(
    "text",
    [
        "image,tags\na.jpg,cat\nb.jpg,cat;dog\n",
        "filename;labels\na.jpg;cat\nb.jpg;cat,dog\n",
        "Path\tClass\nphotos/a.jpg\tcat\nphotos/b.jpg\tcat|dog\n",
        "id,score,label\na,1,cat\nb,2,cat\nb,3,dog\n",
        "filename, cat, dog\na.jpg, 1, 0\nb.jpg, 1, 1\n",
        "C:\\x\\y,tags\n",
    ],
)
def test_tables_of_many_forms(tmp_path: Path, text: str) -> None:
    plant(tmp_path, "photos/a.jpg", "photos/b.jpg")
    (tmp_path / "list.csv").write_text(text)
    if text.startswith("C:"):
        refused(tmp_path, "no tags")
        return
    found = inspect_folder(tmp_path)
    assert tags(found) == {"photos/a.jpg": ("cat",), "photos/b.jpg": ("cat", "dog")}
    assert found.problems == ()
    assert "list.csv" in found.what


def test_splits_of_a_table(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "list.csv").write_text(
        "file,tag,set\na.jpg,cat,Training\nb.jpg,dog,VALIDATION\nc.jpg,none,fold2\n"
    )
    found = inspect_folder(tmp_path)
    assert splits(found) == {"a.jpg": "train", "b.jpg": "val", "c.jpg": "fold2"}
    assert tags(found)["c.jpg"] == ()


def test_entries_without_photograph_are_said(tmp_path: Path) -> None:
    plant(tmp_path, "a/x.jpg", "b/x.jpg", "b/y.jpg")
    (tmp_path / "list.csv").write_text(
        "image,tags\ny.jpg,cat\nx.jpg,cat\ngone.jpg,dog\n../../etc/passwd,dog\n"
    )
    found = inspect_folder(tmp_path)
    assert tags(found) == {"b/y.jpg": ("cat",)}
    place = tmp_path / "list.csv"
    assert found.problems == (
        f"{place}: 2 of its entries name no photograph in the folder (../../etc/passwd, gone.jpg); left out",
        f"{place}: 1 of its entries fit several photographs: write their folders too (x.jpg); left out",
    )
    (tmp_path / "list.csv").write_text("image,tags\nq.jpg,cat\n")
    refused(tmp_path, f"{place}: none of its 1 entries names a photograph", "'q.jpg'", "the column 'image'")


def test_other_tables_are_passed_over(tmp_path: Path) -> None:
    plant(tmp_path, "cat/a.jpg")
    (tmp_path / "prices.csv").write_text("item,price\nbread,3\n")
    (tmp_path / "empty.csv").write_text("")
    assert inspect_folder(tmp_path).what == "photographs in folders named by class"


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
    refused(tmp_path, "1 entries, none of a photograph", "'gone.jpg'", "copy them there")
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
    plant(tmp_path, "a.jpg", "sub/b.jpg", "c.jpg")
    (tmp_path / "annotations.xml").write_text(CVAT.replace(old, new, 1))
    refused(tmp_path, str(tmp_path / "annotations.xml"), part)


def test_voc_annotations_beside_the_photographs(tmp_path: Path) -> None:
    plant(tmp_path, "a.jpg", "val/b.jpg")
    write_annotation(tmp_path / "a.xml", np.ones((8, 9), np.uint8), {1: "cat"})
    write_annotation(tmp_path / "val" / "b.xml", np.ones((8, 9), np.uint8), {1: "dog"})
    found = inspect_folder(tmp_path)
    assert tags(found) == {"a.jpg": ("cat",), "val/b.jpg": ("dog",)}
    assert splits(found) == {"a.jpg": "train", "val/b.jpg": "val"}
    (tmp_path / "a.xml").write_text("<annotation><object></object></annotation>")
    refused(tmp_path, f"{tmp_path / 'a.xml'} is not a VOC annotation")


def test_voc_annotations_in_a_folder_of_their_own(tmp_path: Path) -> None:
    plant(tmp_path, "images/a.jpg")
    write_annotation(tmp_path / "Annotations" / "a.xml", np.ones((8, 9), np.uint8), {1: "cat"})
    assert tags(inspect_folder(tmp_path)) == {"images/a.jpg": ("cat",)}


def test_one_coco_file(tmp_path: Path) -> None:
    plant(tmp_path, "images/a.jpg", "images/b.jpg")
    images = [image_entry(1, "a.jpg", (8, 9)), image_entry(2, "b.jpg", (8, 9))]
    write_instances(tmp_path / "result.json", images, [annotation(1, 1, 18, []), annotation(2, 1, 3, [])])
    assert tags(inspect_folder(tmp_path)) == {"images/a.jpg": ("car", "dog"), "images/b.jpg": ()}


# ---- names


def test_names_are_matched_with_the_files_that_are_there() -> None:
    matcher = Matcher(["x/a.jpg", "y/a.jpg", "y/b.jpg", "0a1b2c3d-c.jpg"])
    assert matcher.find("x/a.jpg") == "x/a.jpg"
    assert matcher.find("photos/y/a.jpg") == "y/a.jpg"
    assert matcher.find("photos\\y\\b.jpg") == "y/b.jpg"
    assert matcher.find("b") == "y/b.jpg"
    assert matcher.find("0a1b2c3d-c.jpg") == "0a1b2c3d-c.jpg"
    assert matcher.find("ffffffff-b.jpg") == "y/b.jpg"
    assert matcher.find("a.jpg") is None
    assert matcher.find("/etc/passwd") is None
    assert (matcher.ambiguous, matcher.missing) == (["a.jpg"], ["/etc/passwd"])
