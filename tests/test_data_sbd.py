"""VOC's train_aug: the images of SBD, their masks as PNG or MATLAB files, tags with and without annotation."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix

from data import open_dataset
from data.derive import as_csv, derive_tags
from data.masks import PngMask
from data.sbd import SbdMask
from data.sources import read_listing
from tests.trees import (
    UInt8,
    make_scene,
    make_voc_tree,
    with_borders,
    write_annotation,
    write_jpeg,
    write_png,
)
from wsss.config import DataConfig
from wsss.errors import UserError


def refused(config: DataConfig, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        read_listing(config)
    message = str(caught.value)
    assert message.count("\n") < 3
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


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
    (tmp_path / "tags.csv").write_text(as_csv(rows, splits=False), encoding="utf-8")
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
    (tmp_path / "labels.csv").write_text(as_csv(derive_tags(config), splits=True), encoding="utf-8")
    data = open_dataset(config)
    assert [(sample.split, sample.tags) for sample in data.samples] == [
        ("training", (0,)),
        ("training", (1,)),
        ("validation", (1,)),
    ]
    assert data.notes == ("tags of 3 images were derived from their masks in annotations",)
    with pytest.raises(UserError, match="label 2 is beyond the 1 classes"):
        derive_tags(dataclasses.replace(config, classes=("wall",)))
