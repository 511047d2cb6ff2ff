"""The folder source: each mistake in a CSV, a path, a tag or a class list is named with its place and fix."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.masks import PngMask
from data.sources import Listing, read_listing
from data.sources.listing import tidy
from data.sources.table import UNTAGGED, joined_tags, split_tags
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


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Z"]), min_size=1).filter(
    lambda text: text.lower() not in UNTAGGED
)


@given(
    st.lists(st.lists(WORDS | st.sampled_from(["dog", "dog house", "a;b", "[x", "{y}", "a, b"]), unique=True))
)
def test_every_tag_that_is_written_is_read_again(tags: list[list[str]]) -> None:
    clean = [[tidy(tag) for tag in each] for each in tags]
    assert split_tags(joined_tags(clean)) == list(map(tuple, clean))


# ---- what is cleaned, and said

CLEAN = {"a.jpg": ("cat",), "b.jpg": ("cat", "dog"), "c.jpg": ()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image;tags\na.jpg;cat\nb.jpg;cat,dog\nc.jpg;\n", "columns separated by ;"),
        ("\ufeffsep=;\nimage;tags\na.jpg;cat\nb.jpg;cat,dog\nc.jpg;\n", "tags separated by ,"),
        (
            "Image Index\tFinding Labels\na.jpg\tcat\nb.jpg\tcat|dog\nc.jpg\tNo Finding\n",
            "'No Finding' read as no tag",
        ),
        ("image,tags\ra.jpg,cat\rb.jpg,cat;dog\rc.jpg,\r", ""),
        ("image,tags\na.jpg,cat,\nb.jpg,cat;dog,,\nc.jpg,,\n", "separators at the end of 3 rows left out"),
        ("image,tags\n a.jpg , cat\nb.jpg,Cat;; dog ;\n\nc.jpg,background\n", "'Cat', 'cat' as"),
        ('image,tags\na.jpg,[\'cat\']\nb.jpg,"[""cat"", ""dog""]"\nc.jpg,[]\n', ""),
        (
            "image,tags\na.jpg,cat\nb.jpg,cat\nb.jpg,dog\nc.jpg,\n",
            "several rows of 1 image put together: b.jpg",
        ),
        ("a.jpg,cat\nb.jpg,cat;dog\nc.jpg,\n", "no header: columns taken as image, tags"),
        (
            "image,tags\n./a.jpg,cat\nC:\\x\\b.png,cat;dog\n/else/where/C,\n",
            "names of 3 images matched with the files",
        ),
        (",image,cat,dog\n0,a.jpg,1,0\n1,b.jpg,1,1.0\n2,c.jpg,,0\n", ""),
        ("image,tags,split\na.jpg,cat,Train\nb.jpg,cat;dog,training \nc.jpg,,\n", ""),
        ("image,tags\na.jpg,cat\nb.jpg,cat dog\nc.jpg,\n", ""),
    ],
)
def test_lists_as_programs_write_them(tmp_path: Path, text: str, said: str) -> None:
    if "cat dog" in text:  # blanks separate where the words stand alone elsewhere too
        text = text.replace("c.jpg,", "c.jpg,\nd.jpg,dog\ne.jpg,dog cat")
        plant(tmp_path, text, [*IMAGES, "d.jpg", "e.jpg"])
    else:
        plant(tmp_path, text)
    found = listing(tmp_path)
    spelled = {e.image: tuple(sorted(tag.lower() for tag in e.tags)) for e in found.entries}
    assert spelled | CLEAN == spelled
    assert {e.split for e in found.entries} == {"train"}
    assert said in "\n".join(found.notes)


def test_utf_16_and_decomposed_names(tmp_path: Path) -> None:
    plant(
        tmp_path,
        GOOD.replace("a.jpg", "gro\u0308\u00dfe.jpg").encode("utf-16"),
        ["gr\u00f6\u00dfe.jpg", *IMAGES],
    )
    assert [e.image for e in listing(tmp_path).entries] == ["b.jpg", "c.jpg", "gr\u00f6\u00dfe.jpg"]


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags\na.jpg,10;2\nb.jpg,1\nc.jpg,class 9;class 10\n")
    assert listing(tmp_path).classes == ("1", "2", "10", "class 9", "class 10")


@pytest.mark.parametrize("value", ["-1", "nan", "0.7", "maybe"])
def test_a_column_that_is_nearly_of_0_and_1_is_refused_by_name(tmp_path: Path, value: str) -> None:
    plant(tmp_path, f"image,cat,dog\na.jpg,1,0\nb.jpg,0,1\nc.jpg,1,{value}\n")
    refused(tmp_path, f"column 'dog' holds {value} in 1 of 3 rows", "Write 1 or 0 there, remove the column")


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
        ("image,split\na.jpg,train\n", ["no column of tags among image, split", "tags, tag, labels"]),
        ("what,tags\ncat,train\n", ["no column of images among what, tags", "image, images, filename"]),
        (
            "image,tags\na.jpg,cat\nb.jpg,cat,dog\nc.jpg\n",
            ["line 3 has 3 fields instead of 2", "line 4 has 1 field instead"],
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
    plant(tmp_path, "image,tags,split\na.jpg,cat,val\nb.jpg,cat,fold 2\n")
    refused(tmp_path, "labels.csv", "no training images", "'train'", "'fold 2' (1 images), 'val' (1 images)")
    refused(tmp_path, "Set data.train_split to one of them")


def test_equal_split_names(tmp_path: Path) -> None:
    refused(plant(tmp_path), "data.train_split and data.val_split are both 'val'", train_split="val")


# ---- images


@pytest.mark.parametrize(
    ("image", "part"),
    [
        ("", "line 3 '' is no plain path"),
        ("../zzz.jpg", "line 3 '../zzz.jpg' is no plain path"),
        ("/etc/passwd", "is no plain path of a file below the images folder"),
        ("b.jpg\0", r"'b.jpg\x00' is no plain path"),
        ("a.png", "line 3 'a.png' has the same id 'a' as line 2 'a.jpg'"),
        ("nope.jpg", "line 3 'nope.jpg' does not exist"),
    ],
)
def test_images_that_cannot_be_used(tmp_path: Path, image: str, part: str) -> None:
    plant(tmp_path, f"image,tags\na.jpg,cat\n{image},cat\n", [*IMAGES, "a.png"])
    refused(tmp_path, str(tmp_path / "labels.csv"), "1 image(s) cannot be used", part)
    refused(tmp_path, f"Expected a file of {tmp_path / 'images'}", "correct or remove these rows")


def test_ten_images_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags\n" + "".join(f"x{i}.jpg,cat\n" for i in range(25)))
    refused(tmp_path, "25 image(s)", "line 2 'x0.jpg'", "'x17.jpg' does not exist\n  and 15 more\nExp")


# ---- tags


def test_tags_against_a_class_list(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags\na.jpg,cta\nb.jpg,Dog\nc.jpg,zebra\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    refused(
        tmp_path,
        "line 2 'a.jpg': unknown tag 'cta' (did you mean 'cat'?)",
        "line 4 'c.jpg': unknown tag 'zebra'\n",
    )
    refused(tmp_path, "2 tag(s)", f"Expected the classes of {tmp_path / 'classes.txt'}")
    plant(tmp_path, "image,tags\na.jpg,cat\nb.jpg,Dog\nc.jpg, DOG\n")
    assert [e.tags for e in listing(tmp_path).entries] == [("cat",), ("dog",), ("dog",)]


def test_ten_tags_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(14)]
    plant(tmp_path, "image,tags\n" + "".join(f"{name},cta\n" for name in names), names)
    refused(tmp_path, "14 tag(s)", "line 11 '9.jpg'", "and 4 more", classes=("cat",))


# ---- classes


@pytest.mark.parametrize(
    ("classes", "part"),
    [
        (("cat", "dog", "cat"), "class 'cat' is listed twice"),
        (("cat", " dog"), "class ' dog' has stray spaces"),
        (("cat", "dog", ""), "class '' has stray spaces or is empty"),
        (("cat", "dog", "Dog"), "or differs only in letter case from 'dog'"),
        (("background", "cat", "dog"), "class 'background' is reserved: the background is label 0"),
        (tuple(f"c{i}" for i in range(255)), "255 classes. Expected at most 254"),
    ],
)
def test_bad_class_lists(tmp_path: Path, classes: tuple[str, ...], part: str) -> None:
    refused(plant(tmp_path), "data.classes: ", part, classes=classes)
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    if "stray" not in part:  # the file's lines are cleaned
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


def test_a_class_without_training_images_is_said(tmp_path: Path) -> None:
    plant(tmp_path, "image,tags,split\na.jpg,cat,train\nb.jpg,dog,val\n")
    assert "no training image shows dog: not learned, and never predicted" in listing(tmp_path).notes
    assert listing(tmp_path, classes=("cow", "cat", "dog")).classes == ("cow", "cat", "dog")
