"""The VOC devkit layout: lists, annotations and masks."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data import open_dataset
from data.masks import PngMask
from data.sources import VOC_CLASSES, read_listing
from data.sources.voc import read_annotation
from tests.trees import (
    make_voc_tree,
    write_annotation,
)
from wsss.config import DataConfig
from wsss.errors import UserError

MASK = np.ones((4, 4), np.uint8)


def refused(config: DataConfig, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        read_listing(config)
    message = str(caught.value)
    assert message.count("\n") < 3
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


def test_a_devkit(tmp_path: Path) -> None:
    data = open_dataset(make_voc_tree(tmp_path))
    assert data.classes == ("aeroplane", "bicycle")
    assert [(s.id, s.split, s.tags) for s in data.samples[:2]] == [
        ("2007_000000", "train", (0, 1)),
        ("2007_000001", "train", (1,)),
    ]
    assert (len(data), len(data.split("val")), data.notes) == (6, 2, ())
    for sample in data.samples:
        assert sample.mask == PngMask(tmp_path / "SegmentationClass" / f"{sample.id}.png")
        labels = set(np.unique(sample.mask.read()).tolist())
        assert labels == {0, 255, *(tag + 1 for tag in sample.tags)}


def test_all_twenty_classes_by_default(tmp_path: Path) -> None:
    make_voc_tree(tmp_path, n_train=20, n_val=0, classes=VOC_CLASSES)
    data = open_dataset(DataConfig(source="voc", root=str(tmp_path)))
    assert data.classes == tuple(sorted(VOC_CLASSES))
    assert (len(data.classes), data.classes[0], data.classes[14], data.classes[-1]) == (
        20, "aeroplane", "person", "tvmonitor",
    )  # fmt: skip
    assert data.notes == ("no validation images: no image has the split 'val'",)


@pytest.mark.parametrize("inner", ["VOCdevkit/VOC2012", "VOC2012"])
def test_devkit_inside_the_root(tmp_path: Path, inner: str) -> None:
    config = make_voc_tree(tmp_path / inner)
    outer = DataConfig(source="voc", root=str(tmp_path), classes=config.classes)
    assert read_listing(outer).entries == read_listing(config).entries


def test_other_lists_and_masks(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    lists = tmp_path / "ImageSets" / "Segmentation"
    (lists / "train_aug.txt").write_bytes(b"2007_000000\r\n2007_000001 \r\n\r\n")
    shutil.copytree(tmp_path / "SegmentationClass", tmp_path / "Aug")
    settings = {"source": "voc", "root": config.root, "classes": config.classes, "train_split": "train_aug"}
    found = read_listing(DataConfig(**settings, masks="Aug"))  # type: ignore[arg-type]
    assert [e.split for e in found.entries] == ["train_aug", "train_aug", "val", "val"]
    assert found.entries[0].mask == PngMask(tmp_path / "Aug" / "2007_000000.png")
    found = read_listing(DataConfig(**settings, masks=""))  # type: ignore[arg-type]
    assert found.entries[0].mask is None
    refused(DataConfig(**settings, masks="None"), str(tmp_path / "None"), "data.masks")  # type: ignore[arg-type]


def test_masks_are_optional(tmp_path: Path) -> None:
    found = read_listing(make_voc_tree(tmp_path, masks=False))
    assert {e.mask for e in found.entries} == {None}
    assert found.notes == ()


def test_not_a_devkit(tmp_path: Path) -> None:
    config = DataConfig(source="voc", root=str(tmp_path))
    refused(config, "not a VOC devkit", str(tmp_path / "JPEGImages"), "correct data.root")
    refused(config, str(tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages"))
    refused(DataConfig(source="voc", root=str(tmp_path / "x")), "no such folder")


def test_lists(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    path = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
    path.write_text("2007_000000\n\n/JPEGImages/1.jpg /SegmentationClass/1.png\n2007_000001 1\n")
    refused(
        config,
        str(path),
        "one image id per line",
        "line 3 is '/JPEGImages/1.jpg /Seg",
        "line 4 is '2007_000001 1'",
    )
    path.write_text("2007_000000\n2007_999999\n../Annotations/x\n2007_000005\n2007_000000\n")
    refused(
        config,
        "train.txt line 2 '2007_999999.jpg' does not exist",
        "train.txt line 3 '../Annotations/x.jpg' leaves",
    )
    refused(config, "line 5 '2007_000000.jpg' has the same id '2007_000000' as train.txt line 1")
    refused(config, "val.txt line 2 '2007_000005.jpg' has the same id '2007_000005' as train.txt line 4")
    path.write_text("")
    refused(config, str(path.parent), "no training images", "'train'", "'val' (2 images)")
    path.unlink()
    refused(config, str(path), "no such file", "the list of the split 'train'")


def test_annotation_that_is_missing(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    path = tmp_path / "Annotations" / "2007_000001.xml"
    path.unlink()
    refused(
        config,
        "1 annotation(s) cannot be used",
        f"train.txt line 2: {path} does not exist",
        "unlist the image",
    )
    shutil.rmtree(tmp_path / "Annotations")
    refused(config, "6 annotation(s) cannot be used")


def test_unknown_and_stray_names(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    write_annotation(tmp_path / "Annotations" / "2007_000000.xml", MASK, {1: "aeroplan"})
    write_annotation(tmp_path / "Annotations" / "2007_000001.xml", MASK, {1: "bicycle "})
    refused(
        config, "train.txt line 1 (2007_000000.xml)", "unknown tag 'aeroplan' (did you mean 'aeroplane'?)"
    )
    refused(
        config, "train.txt line 2 (2007_000001.xml)", "tag 'bicycle ' has stray spaces", "of data.classes"
    )
    refused(DataConfig(source="voc", root=config.root), "Expected the classes of the 20 VOC classes")


def test_annotation_counts_objects_once_and_no_parts(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    parts = "\t\t<part>\n\t\t\t<name>head</name>\n\t\t</part>\n"
    write_annotation(path, MASK, {1: "person"}, parts)
    text = path.read_text()
    again = text[text.index("\t<object>") : text.index("</annotation>")]
    difficult = again.replace("person", "cat").replace("<difficult>0", "<difficult>1")
    path.write_text(text.replace("</annotation>", f"{again}{difficult}</annotation>"))
    assert read_annotation(path) == ("cat", "person")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not a readable XML annotation (no element found"),
        ("<annotation><object>", "is not a readable XML annotation"),
        ("<annotation><object><pose>x</pose></object></annotation>", "with a <name> in each <object>"),
        ("<annotation><object><name></name></object></annotation>", "with a <name> in each <object>"),
        ("<html></html>", "is not a VOC annotation"),
        ("<!DOCTYPE annotation><annotation></annotation>", "it has a DOCTYPE"),
        (
            '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
            "<annotation><object><name>&b;</name></object></annotation>",
            "it has a DOCTYPE, which may define entities",
        ),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "is not a readable XML annotation"),
    ],
)
def test_malformed_annotations(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "x.xml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)
    assert part in str(caught.value)


def test_annotation_without_objects_has_no_tags(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text("<annotation></annotation>")
    assert read_annotation(tmp_path / "x.xml") == ()
