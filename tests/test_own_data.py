"""What `init` makes of folders that people have: class folders, CSVs, exports of labelling tools."""

import shutil
from pathlib import Path

import pytest

from data.own import inspect_folder
from data.own.tree import Matcher
from tests.coco_trees import image_entry, make_coco_tree, write_instances
from tests.own_folders import plant, refused, splits, tags
from tests.trees import make_folder_tree, make_voc_tree

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
    assert found.what == "images in folders named by class"
    assert found.problems == (
        "each image has the one tag of its folder: what else it shows counts as background",
        "1 image outside of the class folders: left out",
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
    assert not any(found[name].entries for name in ("voc", "coco", "city"))


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
    refused(
        tmp_path, "2 images and no tags: no JPEGImages", "no export", "(notes.json)", "a folder per class"
    )


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


def test_entries_without_image_are_said(tmp_path: Path) -> None:
    plant(tmp_path, "a/x.jpg", "b/x.jpg", "b/y.jpg")
    (tmp_path / "list.csv").write_text(
        "image,tags\ny.jpg,cat\nx.jpg,cat\ngone.jpg,dog\n../../etc/passwd,dog\n"
    )
    found = inspect_folder(tmp_path)
    assert tags(found) == {"b/y.jpg": ("cat",)}
    place = tmp_path / "list.csv"
    assert found.problems == (
        f"{place}: 2 of its entries name no image in the folder (../../etc/passwd, gone.jpg); left out",
        f"{place}: 1 of its entries fit several images: write their folders too (x.jpg); left out",
        f"{place}: no entry for 2 images (a/x.jpg, b/x.jpg); left out",
    )
    (tmp_path / "list.csv").write_text("image,tags\nq.jpg,cat\n")
    refused(tmp_path, f"{place}: none of its 1 entries names an image", "'q.jpg'", "correct the names")


def test_other_tables_are_passed_over(tmp_path: Path) -> None:
    plant(tmp_path, "cat/a.jpg")
    (tmp_path / "prices.csv").write_text("item,price\nbread,3\n")
    (tmp_path / "empty.csv").write_text("")
    assert inspect_folder(tmp_path).what == "images in folders named by class"


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
    assert [text.partition("x: 1 of its entries ")[2][:9] for text in matcher.problems("x")] == [
        "name no i",
        "fit sever",
    ]
