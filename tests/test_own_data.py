"""What `init` makes of folders that people have: class folders, CSVs, exports of labelling tools."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from data.images import heif_is_readable
from data.own import Wanted, inspect_folder, suspicious
from data.sources import Entry
from data.sources.table import Matcher
from tests.cityscapes_trees import make_cityscapes_tree
from tests.coco_trees import annotation, image_entry, make_coco_tree, write_instances
from tests.own_folders import plant, refused, splits, tags
from tests.trees import UInt8, make_folder_tree, make_voc_tree, write_jpeg, write_png


def noise() -> UInt8:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


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
        "1 image outside of the class folders (loose.jpg): left out",
    )


def test_folders_of_splits_and_classes(tmp_path: Path) -> None:
    found = inspect_folder(plant(tmp_path, "train/cat/a.jpg", "Valid/dog/b.jpg", "test/dog/c.jpg"))
    assert tags(found) == {
        "Valid/dog/b.jpg": ("dog",),
        "test/dog/c.jpg": ("dog",),
        "train/cat/a.jpg": ("cat",),
    }
    assert splits(found) == {"Valid/dog/b.jpg": "val", "test/dog/c.jpg": "test", "train/cat/a.jpg": "train"}


def test_a_layout_that_is_not_whole_is_said_and_the_next_reading_tried(tmp_path: Path) -> None:
    make_voc_tree(tmp_path)
    (tmp_path / "Annotations" / "2007_000001.xml").unlink()
    found = inspect_folder(tmp_path)
    assert found.what == "VOC annotations (5 files)"
    assert "not used: " in found.problems[0]
    assert "2007_000001.xml does not exist" in found.problems[0]
    shutil.rmtree(tmp_path / "Annotations")
    refused(tmp_path, "6 annotation(s) cannot be used")  # and no class called JPEGImages


def test_published_layouts_are_read_as_they_are(tmp_path: Path) -> None:
    make_voc_tree(tmp_path / "voc")
    shutil.copy(
        tmp_path / "voc/ImageSets/Segmentation/train.txt",
        tmp_path / "voc/ImageSets/Segmentation/train_aug.txt",
    )
    make_coco_tree(tmp_path / "coco")
    make_folder_tree(tmp_path / "folder")
    make_cityscapes_tree(tmp_path / "city")
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
        shapes = [annotation(number, 1, number, [[1, 1, 4, 1, 4, 4]]) for number in (1, 3, 18)]
        write_instances(
            tmp_path / split / "_annotations.coco.json", [image_entry(1, "a.jpg", (8, 9))], shapes
        )
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
        tmp_path,
        "2 images (2 .jpg), 1 list (notes.json), and no tags",
        "Expected a folder per class",
        "--list FILE",
    )


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    plant(tmp_path / "elsewhere", "cat/a.jpg")
    root = plant(tmp_path / "d", "cat/b.jpg", ".thumbs/cat/c.jpg")
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "cat")
    (root / "cat" / "loop").symlink_to(root)
    found = inspect_folder(root)
    assert tags(found) == {"cat/b.jpg": ("cat",), "dog/a.jpg": ("dog",)}
    assert (
        f"left out: {root / 'cat' / 'loop'} is a link to {root}, which is read already" in found.problems[0]
    )


def test_files_of_systems_and_of_this_program_are_not_looked_at(tmp_path: Path) -> None:
    ours = ("runs/mine/overview.png", "runs/artifacts/x/a.png")
    root = plant(
        tmp_path, "cat/a.jpg", "dog/b.jpg", "cat/._a.jpg", "__MACOSX/cat/a.jpg", "@eaDir/b.jpg", *ours
    )
    (root / "runs" / "files-0123456789ab.json").write_text("{}")
    (root / "dog" / "Thumbs.db").write_text("x")
    assert tags(inspect_folder(root)) == {"cat/a.jpg": ("cat",), "dog/b.jpg": ("dog",)}


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heif_is_readable.cache_clear()
    plant(tmp_path, "cat/a.jpg", "dog/b.gif", "dog/c.jfif", "dog/d.jp2")
    for name in ("cat/1.HEIC", "cat/2.heic", "dog/x.cr2"):
        (tmp_path / name).write_bytes(b"x")
    found = inspect_folder(tmp_path)
    assert len(found.entries) == 4
    assert found.problems[:2] == (
        "left out: 2 files .heic, which needs a package (pip install pillow-heif) (cat/1.HEIC)",
        "left out: 1 file .cr2, which is not read (dog/x.cr2)",
    )
    heif_is_readable.cache_clear()


@pytest.mark.parametrize("outer", ["images", "data/photos"])
def test_folders_around_class_folders_are_no_classes(tmp_path: Path, outer: str) -> None:
    found = inspect_folder(plant(tmp_path, f"{outer}/cat/a.jpg", f"{outer}/dog/b.jpg"))
    assert tags(found) == {f"{outer}/cat/a.jpg": ("cat",), f"{outer}/dog/b.jpg": ("dog",)}


def test_folders_of_splits_alone_are_no_classes(tmp_path: Path) -> None:
    plant(tmp_path, "train/a.jpg", "val/b.jpg")
    refused(tmp_path, "no folder per class")


def test_split_folders_beside_others_are_splits(tmp_path: Path) -> None:
    found = inspect_folder(plant(tmp_path, "train/cat/a.jpg", "test/dog/b.jpg", "docs/preview.jpg"))
    assert splits(found) == {"train/cat/a.jpg": "train", "test/dog/b.jpg": "test"}
    assert "1 image outside of the class folders (docs/preview.jpg): left out" in found.problems


def test_defects_beside_good_images(tmp_path: Path) -> None:
    """The layout of MVTec AD: only good images to train on, defects and their masks for the test."""
    plant(tmp_path, "train/good/0.jpg", "test/good/0.jpg", "test/broken/1.jpg")
    write_png(tmp_path / "ground_truth/broken/1_mask.png", np.zeros((8, 9), np.uint8))
    found = inspect_folder(tmp_path)
    assert tags(found) == {"test/broken/1.jpg": ("broken",), "test/good/0.jpg": (), "train/good/0.jpg": ()}
    assert set(splits(found).values()) == {"train"}
    assert any("all images (test, train) are taken for training" in text for text in found.problems)
    assert any("1 mask in ground_truth not used" in text for text in found.problems)


def test_names_that_are_no_objects_are_suspicious() -> None:
    def said(*names: str) -> str:
        rows = [Entry(image=f"{n}.jpg", tags=(name,), split="train") for n, name in enumerate(names)]
        return " ".join(suspicious(rows))

    assert "classes 'DCIM' (1), 'docs' (1) do not sound like" in said("DCIM", "docs", "cat")
    assert "brackets or quotes: \"['cat'\"" in said("['cat'", "dog")
    assert "every image has the one tag 'cat'" in said("cat", "cat")
    assert "'100APPLE' (1), '2024-05-01' (1)" in said("100APPLE", "2024-05-01", "cat")
    assert said("cat", "dog") == ""


# ---- masks


@pytest.mark.parametrize("place", ["masks", "SegmentationClass", "train_labels", "ground truth"])
def test_masks_are_no_images(tmp_path: Path, place: str) -> None:
    for name in "ab":
        write_png(tmp_path / "photos" / f"{name}.png", noise())
        write_png(tmp_path / place / f"{name}.png", np.eye(8, dtype=np.uint8))
    (tmp_path / "list.csv").write_text("image,tags\na.png,cat\nb,dog\n")
    found = inspect_folder(tmp_path)
    assert tags(found) == {"photos/a.png": ("cat",), "photos/b.png": ("dog",)}
    assert (found.data["images"], found.data["masks"]) == ("photos", place)


def test_classes_called_mask_are_classes(tmp_path: Path) -> None:
    for name in ("with mask/a", "without mask/a"):
        write_png(tmp_path / f"{name}.png", noise())
    assert set(tags(inspect_folder(tmp_path)).values()) == {("with mask",), ("without mask",)}


def test_masks_that_are_no_png_are_named(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.png", noise())
    write_jpeg(
        tmp_path / "masks" / "a.jpg", np.eye(2, dtype=np.uint8).repeat(9, 0).repeat(9, 1) * np.uint8(255)
    )
    (tmp_path / "labels.csv").write_text("image,tags\na,cat\n")
    found = inspect_folder(tmp_path)
    assert tags(found) == {"images/a.png": ("cat",)}
    assert "1 mask in masks not used: " in found.problems[-1]
    assert "a.jpg: a mask must be a PNG, this is JPEG" in found.problems[-1]
    assert found.data["masks"] == ""


def test_masks_beside_their_images_are_named(tmp_path: Path) -> None:
    plant(tmp_path, "cat/a.jpg", "cat/a_mask.png", "dog/b.jpg")
    found = inspect_folder(tmp_path)
    assert len(found.entries) == 2
    assert found.problems[0] == "left out: 1 file masks beside images (cat/a_mask.png)"


# ---- CSV


@pytest.mark.parametrize(
    "text",
    [
        "image,tags\na.jpg,cat\nb.jpg,cat;dog\n",
        "filename;labels\na.jpg;cat\nb.jpg;cat,dog\n",
        "Path\tClass\nphotos/a.jpg\tcat\nphotos/b.jpg\tcat|dog\n",
        "id,score,label\na,1,cat\nb,2,cat;dog\n",
        "filename, cat, dog\na.jpg, 1, 0\nb.jpg, 1, 1\n",
        "a,cat\n",
    ],
)
def test_tables_of_many_forms(tmp_path: Path, text: str) -> None:
    plant(tmp_path, "photos/a.jpg", "photos/b.jpg")
    (tmp_path / "list.csv").write_text(text)
    if text == "a,cat\n":
        refused(tmp_path, "list.csv: no rows after the header")
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
        "list.csv: 2 of its entries name no image in the folder (../../etc/passwd, gone.jpg); left out",
        "list.csv: 1 of its entries fit no image of their own (x.jpg (a/x.jpg or b/x.jpg)); left out; "
        "write their folders too",
        "list.csv: no entry for 2 images (a/x.jpg, b/x.jpg); left out",
    )
    (tmp_path / "list.csv").write_text("image,tags\nq.jpg,cat\n")
    assert f"not used: {place}: none of its 1 entries names an image" in inspect_folder(tmp_path).problems[0]


def test_a_split_that_is_not_there_is_not_taken_from_another(tmp_path: Path) -> None:
    plant(tmp_path, "images/train/1.jpg", "images/train/2.jpg")
    (tmp_path / "labels.csv").write_text(
        "image,tags,split\nval/1.jpg,dog,val\ntrain/1.jpg,cat,train\ntrain/2.jpg,dog,train\n"
    )
    found = inspect_folder(tmp_path)
    assert tags(found) == {"images/train/1.jpg": ("cat",), "images/train/2.jpg": ("dog",)}
    assert "val/1.jpg (images/train/1.jpg, which another entry means)" in found.problems[0]


def test_other_tables_are_passed_over_and_another_can_be_named(tmp_path: Path) -> None:
    plant(tmp_path, "cat/a.jpg", "cat/b.jpg")
    (tmp_path / "prices.csv").write_text("item,price\nbread,3\n")
    (tmp_path / "empty.csv").write_text("")
    found = inspect_folder(tmp_path)
    assert found.what == "images in folders named by class"
    assert "not used:" in found.problems[0]
    (tmp_path / "odd.csv").write_text("foto,animal,seen\na.jpg,dog,x\nb.jpg,fox,\n")
    wanted = Wanted(list="odd.csv", image_column="Foto", tag_columns=("animal",))
    assert tags(inspect_folder(tmp_path, wanted)) == {"cat/a.jpg": ("dog",), "cat/b.jpg": ("fox",)}
    by_column = Wanted(list="odd.csv", image_column="foto", tag_columns=("seen",))
    assert tags(inspect_folder(tmp_path, by_column)) == {"cat/a.jpg": ("seen",), "cat/b.jpg": ()}
    (tmp_path / "a.csv").write_text("image,tags\na.jpg,fox\n")
    found = inspect_folder(tmp_path)
    assert found.what == "the list a.csv (columns image and tags)"
    assert "empty.csv, odd.csv, prices.csv; init --list FILE reads another" in found.notes[-1]


def test_a_list_per_split(tmp_path: Path) -> None:
    plant(tmp_path, "train/a.jpg", "valid/a.jpg", "valid/b.jpg")
    for split, names in (("train", "a"), ("valid", "ab")):
        rows = "".join(f"{name}.jpg, 1, 0\n" for name in names)
        (tmp_path / split / "_classes.csv").write_text(f"filename, cat, dog\n{rows}")
    assert splits(inspect_folder(tmp_path)) == {
        "train/a.jpg": "train",
        "valid/a.jpg": "val",
        "valid/b.jpg": "val",
    }


# ---- names


def test_names_are_matched_with_the_files_that_are_there() -> None:
    matcher = Matcher(["x/a.jpg", "y/a.jpg", "y/b.jpg", "0a1b2c3d-c.jpg"])
    assert matcher.find("x/a.jpg") == "x/a.jpg"
    assert matcher.find("photos/y/a.jpg") == "y/a.jpg"
    assert matcher.find("photos\\y\\b.jpg") == "y/b.jpg"
    assert Matcher(["y/b.jpg"]).find("b") == "y/b.jpg"
    assert matcher.find("0a1b2c3d-c.jpg") == "0a1b2c3d-c.jpg"
    assert Matcher(["y/b.jpg"]).find("ffffffff-b.jpg") == "y/b.jpg"
    assert matcher.find("a.jpg") is None
    assert Matcher(["train/0.jpg", "val/0.jpg"]).find("0.jpg", "val") == "val/0.jpg"
    assert matcher.find("/etc/passwd") is None
    assert [text.partition("x: 1 of its entries ")[2][:9] for text in matcher.problems("x")] == [
        "name no i",
        "fit no im",
    ]
