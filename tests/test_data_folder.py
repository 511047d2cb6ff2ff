"""The folder source: each mistake in a CSV, a path, a tag or a class list is named with its place and fix."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.masks import PngMask
from data.sources import Listing, read_listing
from data.sources.folder import parse_csv
from tests import trees
from wsss.config import DataConfig
from wsss.errors import UserError

IMAGES = ("a.jpg", "b.jpg", "c.jpg")
GOOD = "image,tags\na.jpg,cat\nb.jpg,dog\nc.jpg,cat;dog\n"


def plant(root: Path, text: str | bytes = GOOD, images: Sequence[str] = IMAGES) -> Path:
    """Write labels.csv and empty image files: a listing never opens them."""
    for name in images:
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "labels.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return root


def listing(root: Path, **settings: object) -> Listing:
    return read_listing(DataConfig(root=str(root), **settings))  # type: ignore[arg-type]


def refused(root: Path, *parts: str, **settings: object) -> None:
    trees.refused(DataConfig(root=str(root), **settings), *parts)  # type: ignore[arg-type]


# ---- what is right


def test_a_good_listing(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    plant(tmp_path, "image,tags,split\nb.jpg,dog;cat,val\na.jpg,cat,train\nc.jpg,dog,train\n")
    (tmp_path / "masks" / "b.png").touch()
    found = listing(tmp_path)
    assert found.classes == ("cat", "dog")
    assert [(e.id, e.image, e.tags, e.split) for e in found.entries] == [
        ("a", "a.jpg", ("cat",), "train"),
        ("b", "b.jpg", ("dog", "cat"), "val"),
        ("c", "c.jpg", ("dog",), "train"),
    ]
    assert found.images == tmp_path / "images"
    assert [e.mask for e in found.entries] == [None, PngMask(tmp_path / "masks" / "b.png"), None]
    assert found.notes == (f"2 of 3 images without a mask in {tmp_path / 'masks'}",)


def test_bom_line_ends_blank_lines_column_order_subfolders_and_unicode(tmp_path: Path) -> None:
    text = '\ufefftags,image\r\n"cat;dog",a b/über 1.jpg\r\n\r\ncat,"x,y.v2.png"\r\n'
    found = listing(plant(tmp_path, text, ["a b/über 1.jpg", "x,y.v2.png"]))
    assert [(e.id, e.tags) for e in found.entries] == [("a b/über 1", ("cat", "dog")), ("x,y.v2", ("cat",))]
    assert found.entries[0].image == "a b/über 1.jpg"


def test_masks_lie_in_the_same_subfolders(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags\ns/a.jpg,cat\n", ["s/a.jpg"])
    for name in ("masks", "other"):
        (tmp_path / name / "s").mkdir(parents=True)
        (tmp_path / name / "s" / "a.png").touch()
    assert listing(tmp_path).entries[0].mask == PngMask(tmp_path / "masks/s/a.png")
    assert listing(tmp_path, masks="other").entries[0].mask == PngMask(tmp_path / "other/s/a.png")
    assert listing(tmp_path, masks="").entries[0].mask is None


def test_without_a_masks_folder_nothing_is_said(tmp_path: Path) -> None:
    found = listing(plant(tmp_path))
    assert [e.mask for e in found.entries] == [None] * 3
    assert found.notes == ("no validation images: no image has the split 'val'",)


def test_classes_from_the_settings_the_file_or_the_tags(tmp_path: Path) -> None:
    plant(tmp_path)
    assert listing(tmp_path).classes == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("\ufeffdog\r\ncat\r\n\r\n", encoding="utf-8")
    assert listing(tmp_path).classes == ("dog", "cat")
    (tmp_path / "classes.txt").write_text("dog\ncat\ncow")
    assert listing(tmp_path, classes=("cat", "dog")).classes == ("cat", "dog")


def test_without_a_split_column_all_is_for_training(tmp_path: Path) -> None:
    found = listing(plant(tmp_path), train_split="mine")
    assert {e.split for e in found.entries} == {"mine"}


def test_notes_on_untagged_and_ignored_images(tmp_path: Path) -> None:
    text = "image,tags,split\na.jpg,cat,train\nb.jpg,,train\nc.jpg,cat,val\nx.jpg,??,test\ny.jpg,,test\n"
    assert listing(plant(tmp_path, text)).notes == (
        "2 images of other splits are ignored: 'test' (2)",
        "1 image has no tags: treated as showing background only",
    )


WORDS = st.text(st.characters(codec="utf-8", exclude_characters=";"), min_size=1)


@given(st.lists(st.tuples(WORDS, st.lists(WORDS)), min_size=1))
def test_csv_round_trip(rows: list[tuple[str, list[str]]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("image", "tags"), *((name, ";".join(tags)) for name, tags in rows)])
    found = parse_csv(stream.getvalue(), Path("x.csv"), "train")
    assert [(row.image, list(row.tags)) for row in found] == rows


# ---- folders and the CSV's form


def test_missing_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root is not set"):
        read_listing(DataConfig())
    refused(tmp_path / "none", str(tmp_path / "none"), "no such folder", "correct data.root")
    refused(tmp_path, str(tmp_path / "images"), "no such folder", "correct data.images")
    (tmp_path / "images").mkdir()
    refused(
        tmp_path, str(tmp_path / "labels.csv"), "no such file", "header image,tags[,split]", "data.labels"
    )
    plant(tmp_path)
    refused(tmp_path, str(tmp_path / "gt"), "no such folder", "correct data.masks", masks="gt")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["the file is empty", "image,tags,split"]),
        ("\n\n", ["the file is empty"]),
        ("image,tags\n", ["no rows after the header", "one row per image"]),
        ("a.jpg,cat\nb.jpg,dog\n", ["line 1", "no header, found 'a.jpg,cat'", "add it as the first line"]),
        ("image;tags\na.jpg;cat\n", ["no header, found 'image;tags'", "commas between columns"]),
        ("image,tags,weight\na.jpg,cat,1\n", ["line 1", "unknown columns 'weight'", "remove them"]),
        ("image,split\na.jpg,train\n", ["line 1", "the column 'tags' is missing", "add it"]),
        ("tags,split\ncat,train\n", ["the column 'image' is missing"]),
        ("image,tags,tags\na.jpg,cat,dog\n", ["a column is there twice in 'image,tags,tags'"]),
        (
            "image,tags\na.jpg,cat\nb.jpg,cat,dog\nc.jpg\n",
            ["2 fields expected", "line 3 has 3; line 4 has 1"],
        ),
        ('image,tags\n\na.jpg,\'x\nb.jpg,"cat"x\n', ["line 4", "not a CSV", "check the quotes"]),
    ],
)
def test_form_of_the_csv(tmp_path: Path, text: str, parts: list[str]) -> None:
    refused(plant(tmp_path, text), str(tmp_path / "labels.csv"), *parts)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags\na.jpg,cat\nb.jpg,größe\n".encode("latin-1"))
    refused(tmp_path, f"{tmp_path / 'labels.csv'} line 3", "not UTF-8 (byte 0xf6)", "Save the file as UTF-8")


# ---- splits


def test_no_training_images(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags,split\na.jpg,cat,val\nb.jpg,cat,training\n")
    refused(
        tmp_path, "labels.csv", "no training images", "'train'", "'training' (1 images), 'val' (1 images)"
    )
    refused(tmp_path, "Set data.train_split to one of them")


def test_equal_split_names(tmp_path: Path) -> None:
    refused(plant(tmp_path), "data.train_split and data.val_split are both 'val'", train_split="val")


@pytest.mark.parametrize("name", ["Val", " val", ""])
def test_misspelt_splits_are_not_ignored_silently(tmp_path: Path, name: str) -> None:
    plant(tmp_path, f"image,tags,split\na.jpg,cat,train\nb.jpg,cat,{name}\n")
    refused(tmp_path, f"line 3 'b.jpg' has the split {name!r}", "Expected 'train' or 'val'")


# ---- images


@pytest.mark.parametrize(
    ("image", "part"),
    [
        ("", "line 3 '' is empty"),
        ("../images/b.jpg", "leaves the images folder: remove the .."),
        ("x/../../b.jpg", "leaves the images folder"),
        ("/etc/passwd", "is an absolute path: write it relative to the images folder"),
        ("C:/b.jpg", "is an absolute path"),
        ("b.jpg\0", r"'b.jpg\x00' holds a control character"),
        ("x\\b.jpg", "holds a backslash: write / between folders"),
        ("./b.jpg", "is not in plain form"),
        (".", "is not in plain form"),
        ("x//b.jpg", "is not in plain form"),
        ("a.jpg", "line 3 'a.jpg' has the same id 'a' as line 2 'a.jpg'"),
        ("a.png", "line 3 'a.png' has the same id 'a' as line 2 'a.jpg'"),
    ],
)
def test_paths_that_cannot_be_used(tmp_path: Path, image: str, part: str) -> None:
    plant(tmp_path, f"image,tags\na.jpg,cat\n{image},cat\n../zzz,cat\n", [*IMAGES, "a.png"])
    refused(tmp_path, str(tmp_path / "labels.csv"), "2 image(s) cannot be used", part, "line 4 '../zzz'")
    refused(tmp_path, f"Expected a file of {tmp_path / 'images'}", "correct or remove these rows")


@pytest.mark.parametrize(
    ("image", "part"),
    [
        ("nope.jpg", "line 3 'nope.jpg' does not exist;"),
        ("b", "'b' does not exist ('b.jpg' does: write the extension"),
        ("b.jpeg", "('b.jpg' does: write the extension as on disk)"),
        ("no/b.jpg", "'no/b.jpg' does not exist"),
        (" b.jpg", "' b.jpg' does not exist (there are stray spaces"),
        ("x" * 300, "does not exist"),
    ],
)
def test_images_that_are_missing(tmp_path: Path, image: str, part: str) -> None:
    plant(tmp_path, f"image,tags\na.jpg,cat\n{image},cat\nzzz,cat\n")
    refused(tmp_path, str(tmp_path / "labels.csv"), "2 image(s) cannot be used", part, "line 4 'zzz'")


def test_ten_images_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags\n" + "".join(f"x{i}.jpg,cat\n" for i in range(25)))
    refused(tmp_path, "25 image(s)", "line 2 'x0.jpg'", "'x17.jpg' does not exist; and 15 more.\nExp")


# ---- tags


@pytest.mark.parametrize(
    ("tags", "part"),
    [
        (
            "Cat",
            "line 3 'b.jpg': tag 'Cat' differs only in letter case or accent encoding from 'cat' (line 2)",
        ),
        ("dog; cat", "line 3 'b.jpg': tag ' cat' has stray spaces"),
        ("dog;;cat", "line 3 'b.jpg': an empty tag"),
        ("dog;", "an empty tag (a doubled or trailing ;)"),
        ("cat;dog;cat", "line 3 'b.jpg': tag 'cat' is given twice"),
        ("Background", "tag 'Background' is reserved: leave the tags empty"),
    ],
)
def test_tags_that_cannot_be_used(tmp_path: Path, tags: str, part: str) -> None:
    plant(tmp_path, f"image,tags\na.jpg,cat\nb.jpg,{tags}\nc.jpg,fox \n")
    refused(
        tmp_path, str(tmp_path / "labels.csv"), "2 tag(s) cannot be used", part, "'fox ' has stray spaces"
    )
    refused(tmp_path, "Expected each class written in one way", "correct these tags")


def test_tags_against_a_class_list(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags\na.jpg,cta\nb.jpg,Dog\nc.jpg,zebra\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    place = tmp_path / "classes.txt"
    refused(tmp_path, "line 2 'a.jpg': unknown tag 'cta' (did you mean 'cat'?)")
    refused(tmp_path, "line 3 'b.jpg': tag 'Dog' differs only in letter case", f"from 'dog' ({place})")
    refused(tmp_path, "unknown tag 'zebra'.", "3 tag(s)", f"Expected the classes of {place}")
    refused(tmp_path, "from 'dog' (data.classes)", classes=("cat", "dog"))


def test_accents_in_two_encodings(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags\na.jpg,\u00e9l\u00e9phant\nb.jpg,e\u0301le\u0301phant\n")
    refused(tmp_path, "line 3 'b.jpg'", "accent encoding", "(line 2)")


def test_ten_tags_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(14)]
    plant(tmp_path, "image,tags\n" + "".join(f"{name},cta\n" for name in names), names)
    refused(tmp_path, "14 tag(s)", "line 11 '9.jpg'", "and 4 more", classes=("cat",))


# ---- classes


@pytest.mark.parametrize(
    ("classes", "part"),
    [
        (("cat", "dog", "cat"), "class 'cat' is listed 2 times"),
        (("cat", " dog"), "class ' dog' has stray spaces"),
        (("cat", "dog", ""), "class '' has stray spaces or is empty"),
        (("cat", "dog", "Dog"), "class 'Dog' differs only in letter case from 'dog'"),
        (("background", "cat", "dog"), "class 'background' is reserved: the background is label 0"),
        (tuple(f"c{i}" for i in range(255)), "255 classes. Expected at most 254"),
    ],
)
def test_bad_class_lists(tmp_path: Path, classes: tuple[str, ...], part: str) -> None:
    refused(plant(tmp_path), "data.classes: ", part, classes=classes)
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    if "" not in classes:  # an empty line of the file does not count
        refused(tmp_path, f"{tmp_path / 'classes.txt'}: ", part)


def test_two_hundred_and_fifty_four_classes(tmp_path: Path) -> None:
    names = [f"c{i:03d}" for i in range(254)]
    found = listing(plant(tmp_path, f"image,tags\na.jpg,{';'.join(names)}\n"))
    assert found.classes == tuple(names)
    plant(tmp_path, f"image,tags\na.jpg,{';'.join([*names, 'x'])}\n")
    refused(tmp_path, "the tags of", "labels.csv: 255 classes", "merge or remove")


def test_no_classes_at_all(tmp_path: Path) -> None:
    refused(plant(tmp_path, "image,tags\na.jpg,\n"), "the tags of", "no classes", "tag the images")
    (tmp_path / "classes.txt").touch()
    refused(tmp_path, f"{tmp_path / 'classes.txt'}: no classes")


def test_class_without_training_images(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags,split\na.jpg,cat,train\nb.jpg,dog,val\n")
    refused(tmp_path, "labels.csv: 1 class(es) without images in the training split 'train': 'dog'")
    refused(tmp_path, "Tag at least one training image with each, or remove them from the tags of")
    refused(tmp_path, "2 class(es)", "'cow', 'dog'", "from data.classes", classes=("cow", "cat", "dog"))
