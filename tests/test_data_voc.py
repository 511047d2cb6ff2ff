"""The VOC devkit layout: lists, annotations and masks; SBD beside it, and tags derived from masks."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix

from data import open_dataset
from data.masks import PngMask, SbdMask
from data.sources import VOC_CLASSES, derive_tags, read_listing
from data.sources.folder import entries_as_csv
from data.sources.voc import read_annotation
from tests.trees import (
    UInt8,
    make_scene,
    make_voc_tree,
    refused,
    with_borders,
    write_annotation,
    write_jpeg,
    write_png,
)
from wsss.config import DataConfig
from wsss.errors import UserError

MASK = np.ones((4, 4), np.uint8)


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


def test_lists_and_masks_of_other_classes_take_their_tags_from_a_table(tmp_path: Path) -> None:
    """As PASCAL-Context: beside a devkit whose annotations name other classes."""
    root = tmp_path / "VOCdevkit" / "VOC2010"
    make_voc_tree(root, classes=("cat", "diningtable"))
    (root / "ImageSets" / "Segmentation").rename(root / "ImageSets" / "SegmentationContext")
    (root / "SegmentationClass").rename(root / "SegmentationClassContext")
    config = DataConfig(
        source="voc",
        root=str(root),
        labels="ImageSets/SegmentationContext",
        masks="SegmentationClassContext",
        classes=("sky", "grass"),
    )
    refused(config, "SegmentationContext: 6 image(s) without tags", "data.tags", "command `tags`")
    (root / "tags.csv").write_text(entries_as_csv(derive_tags(config), splits=False))
    data = open_dataset(dataclasses.replace(config, tags="tags.csv"))
    assert data.classes == ("sky", "grass")
    assert [(s.split, s.tags) for s in data.samples[:2]] == [("train", (0, 1)), ("train", (1,))]
    assert data.samples[0].mask == PngMask(root / "SegmentationClassContext" / "2007_000000.png")
    refused(dataclasses.replace(config, labels="ImageSets/No"), "no such folder", "data.labels")


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
    path.write_text(
        "2007_000000\n\n/JPEGImages/2007_000001.jpg /SegmentationClass/2007_000001.png\n2007_000002.jpg\n"
    )
    assert [sample.id[-1] for sample in open_dataset(config).split("train").samples] == ["0", "1", "2"]
    path.write_text("2007_000000\n2007_999999\n")
    (tmp_path / "Annotations" / "2007_999999.xml").write_text("<annotation></annotation>")
    refused(config, "train.txt line 2 (2007_999999.xml) '2007_999999.jpg' does not exist")
    path.write_text("2007_000000\n2007_000005\n2007_000000\n")
    refused(config, "line 3 '2007_000000.jpg' has the same id '2007_000000' as train.txt line 1")
    refused(config, "val.txt line 2 '2007_000005.jpg' has the same id '2007_000005' as train.txt line 2")
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
    write_annotation(tmp_path / "Annotations" / "2007_000001.xml", MASK, {1: "bicycle "})
    assert open_dataset(config).samples[1].tags == (1,)
    write_annotation(tmp_path / "Annotations" / "2007_000000.xml", MASK, {1: "aeroplan"})
    refused(
        config, "train.txt line 1 (2007_000000.xml)", "unknown tag 'aeroplan' (did you mean 'aeroplane'?)"
    )
    refused(DataConfig(source="voc", root=config.root), "Expected the classes of the 20 VOC classes")


def test_any_image_format_any_classes_and_other_encodings(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    for path in list((tmp_path / "JPEGImages").iterdir())[1:]:
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    text = '<?xml version="1.0" encoding="GB2312"?><annotation><folder>\u6587\u4ef6</folder>' + (
        "<object><name>aeroplane</name></object></annotation>"
    )
    (tmp_path / "Annotations" / "2007_000001.xml").write_bytes(text.encode("gb2312"))
    data = open_dataset(config)
    assert len(data) == 6
    assert data.samples[1].tags == (0,)
    assert all(sample.mask for sample in data.samples)


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


# ---- SBD and train_aug


def add_sbd(root: Path, *, annotated: bool) -> dict[str, UInt8]:
    """Add two images of SBD to the list train_aug, with their masks by id."""
    rng = np.random.default_rng(9)
    masks = {}
    for number, label in enumerate((1, 2)):
        name = f"2008_{number:06d}"
        pixels, mask = make_scene([label], (36, 48), rng)
        write_jpeg(root / "JPEGImages" / f"{name}.jpg", pixels)
        if annotated:
            write_annotation(
                root / "Annotations" / f"{name}.xml", mask, {label: ("aeroplane", "bicycle")[label - 1]}
            )
        masks[name] = mask
    lists = root / "ImageSets" / "Segmentation"
    names = [*(lists / "train.txt").read_text().split(), *masks]
    (lists / "train_aug.txt").write_text("".join(f"{name}\n" for name in names))
    return masks


def write_sbd(root: Path, masks: dict[str, UInt8]) -> None:
    """Write cls/<id>.mat with the published fields."""
    folder = root / "benchmark_RELEASE" / "dataset" / "cls"
    folder.mkdir(parents=True)
    for name, mask in masks.items():
        boundaries = np.empty((20, 1), object)
        for label in range(20):
            boundaries[label, 0] = csc_matrix(with_borders((mask == label + 1).astype(np.uint8)) == 255)
        present = np.unique(mask[mask > 0])[:, None]
        fields = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}
        savemat(folder / f"{name}.mat", {"GTcls": fields}, do_compression=True)


def train_aug(config: DataConfig, tags: str = "") -> DataConfig:
    return dataclasses.replace(config, train_split="train_aug", tags=tags)


def test_train_aug_takes_tags_from_annotations_and_masks_from_where_they_are(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    masks = add_sbd(tmp_path, annotated=True)
    write_sbd(tmp_path, {"2008_000001": masks["2008_000001"]})
    write_png(
        tmp_path / "SegmentationClassAug" / "2008_000000.png", masks["2008_000000"]
    )  # gray, as it is spread
    write_png(tmp_path / "SegmentationClassAug" / "2007_000000.png", np.zeros((36, 48), np.uint8))
    data = open_dataset(train_aug(config))
    found = {sample.id: sample for sample in data.split("train_aug").samples}
    assert len(found) == 6
    assert found["2007_000000"].mask == PngMask(tmp_path / "SegmentationClass" / "2007_000000.png")
    assert [found[name].tags for name in masks] == [(0,), (1,)]
    for name, mask in masks.items():
        sample = found[name]
        assert sample.mask is not None
        np.testing.assert_array_equal(sample.mask.read(), mask)
    assert found["2008_000001"].mask == SbdMask(
        tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000001.mat"
    )
    assert data.notes == ()


def test_both_spellings_of_the_list(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    lists = tmp_path / "ImageSets" / "Segmentation"
    refused(train_aug(config), str(lists / "train_aug.txt"), "no such file", "docs/data.md")
    (lists / "trainaug.txt").write_text("2007_000000\n2007_000001\n")
    assert [entry.split for entry in read_listing(train_aug(config)).entries[:2]] == ["train_aug"] * 2


def test_images_without_annotation_need_a_tag_table(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    masks = add_sbd(tmp_path, annotated=False)
    write_sbd(tmp_path, masks)
    refused(
        train_aug(config), "2 annotation(s) cannot be used", "2008_000000.xml does not exist", "data.tags"
    )
    refused(
        train_aug(config, tags="tags.csv"), str(tmp_path / "tags.csv"), "no such file", "the command `tags`"
    )
    rows = derive_tags(train_aug(config))
    (tmp_path / "tags.csv").write_text(entries_as_csv(rows, splits=False), encoding="utf-8")
    lines = (tmp_path / "tags.csv").read_text().splitlines()
    assert lines[0] == "image,tags,derived_from"
    assert "2007_000000.jpg,aeroplane;bicycle,their XML annotations" in lines
    assert "2008_000001.jpg,bicycle,their masks in benchmark_RELEASE" in lines
    data = open_dataset(train_aug(config, tags="tags.csv"))
    assert [sample.tags for sample in data.samples if sample.id in masks] == [(0,), (1,)]
    assert data.notes == ("tags of 2 images were derived from their masks in benchmark_RELEASE",)


def test_tags_are_not_derived_where_there_is_nothing_to_derive_them_from(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    add_sbd(tmp_path, annotated=False)
    with pytest.raises(UserError, match=r"2 image\(s\) with neither tags nor a mask: 2008_000000.jpg"):
        derive_tags(train_aug(config))
    with pytest.raises(UserError, match="Expected source 'voc' or 'folder'"):
        derive_tags(DataConfig(source="coco", root=str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"\x89PNG"])
def test_damaged_matlab_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.mat: no class segmentation of SBD"):
        SbdMask(tmp_path / "x.mat").read()


def test_matlab_files_of_something_else(tmp_path: Path) -> None:
    for content in (
        {"GTinst": 1},
        {"GTcls": {"Segmentation": np.zeros((3, 3))}},
        {"GTcls": {"Segmentation": np.zeros((2, 2, 2), np.uint8)}},
        {"GTcls": 5},
    ):
        savemat(tmp_path / "x.mat", content)
        with pytest.raises(UserError, match=r"use the files of benchmark_RELEASE/dataset/cls"):
            SbdMask(tmp_path / "x.mat").examine()


def test_the_test_split_is_predicted_and_not_scored(tmp_path: Path) -> None:
    config = make_voc_tree(tmp_path)
    (tmp_path / "ImageSets/Segmentation/val.txt").rename(tmp_path / "ImageSets/Segmentation/test.txt")
    for name in ("2007_000004", "2007_000005"):
        (tmp_path / "Annotations" / f"{name}.xml").unlink()
        (tmp_path / "SegmentationClass" / f"{name}.png").unlink()
    data = open_dataset(dataclasses.replace(config, val_split="test"))
    assert [(sample.tags, sample.mask) for sample in data.split("test").samples] == [((), None)] * 2
    assert data.notes == ("the split 'test' has neither tags nor masks: predicted, and not scored",)


def test_tags_of_a_folder_derived_from_its_masks(tmp_path: Path) -> None:
    """ADE20K's scene parsing layout: images/<split>/, annotations/<split>/."""
    for split, label in (("training", 1), ("training", 2), ("validation", 2)):
        name = f"{split}/ADE_{split[:5]}_0000000{label}"
        pixels, mask = make_scene([label], (36, 48), np.random.default_rng(0))
        write_jpeg(tmp_path / "images" / f"{name}.jpg", pixels)
        write_png(tmp_path / "annotations" / f"{name}.png", mask)
    config = DataConfig(
        root=str(tmp_path), masks="annotations", train_split="training", val_split="validation"
    )
    with pytest.raises(UserError, match=r"classes\.txt: no such file"):
        derive_tags(config)
    config = dataclasses.replace(config, classes=("wall", "tree"))
    (tmp_path / "labels.csv").write_text(entries_as_csv(derive_tags(config), splits=True), encoding="utf-8")
    data = open_dataset(config)
    assert [(sample.split, sample.tags) for sample in data.samples] == [
        ("training", (0,)),
        ("training", (1,)),
        ("validation", (1,)),
    ]
    assert data.notes == ("tags of 3 images were derived from their masks in annotations",)
    with pytest.raises(UserError, match="label 2 is beyond the 1 classes"):
        derive_tags(dataclasses.replace(config, classes=("wall",)))
