"""Cityscapes: fine labels to 19 train ids, names of polygons to tags."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import open_dataset
from data.sources import read_listing
from data.sources.cityscapes import CITYSCAPES_CLASSES
from tests.cityscapes_trees import VOID, make_cityscapes_tree
from tests.trees import refused
from wsss.config import DataConfig


def test_label_ids_become_train_ids(tmp_path: Path) -> None:
    data = open_dataset(make_cityscapes_tree(tmp_path))
    assert data.classes == CITYSCAPES_CLASSES
    assert [(s.id, s.split) for s in data.samples] == [
        ("train/aachen/aachen_000000_000019_leftImg8bit", "train"),
        ("val/ulm/ulm_000001_000019_leftImg8bit", "val"),
    ]
    for sample in data.samples:
        assert sample.tags == tuple(range(19))
        assert sample.mask is not None
        assert sample.mask.read().ravel().tolist() == [*range(1, 20), *[255] * len(VOID)]
    assert "segment.supervision = 'full'" in data.notes[0]


def test_tags_are_the_names_of_polygons(tmp_path: Path) -> None:
    config = make_cityscapes_tree(tmp_path)
    path = tmp_path / "gtFine/val/ulm/ulm_000001_000019_gtFine_polygons.json"
    path.write_text(json.dumps({"objects": [{"label": "cargroup"}, {"label": "sky"}, {"label": "static"}]}))
    assert open_dataset(config).samples[1].tags == (10, 13)


def test_classes_left_out_are_ignored(tmp_path: Path) -> None:
    make_cityscapes_tree(tmp_path)
    config = DataConfig(source="cityscapes", root=str(tmp_path), classes=("car", "road"))
    sample = open_dataset(config).samples[0]
    assert sample.mask is not None
    values, counts = np.unique(sample.mask.read(), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {1: 1, 2: 1, 255: 33}
    assert sample.tags == (0, 1)
    config = DataConfig(source="cityscapes", root=str(tmp_path), classes=("cart",))
    refused(config, "'cart' not among the classes of Cityscapes", "traffic light")


def test_the_test_split_has_no_labels(tmp_path: Path) -> None:
    make_cityscapes_tree(tmp_path)
    (tmp_path / "leftImg8bit" / "val").rename(tmp_path / "leftImg8bit" / "test")
    entries = read_listing(DataConfig(source="cityscapes", root=str(tmp_path), val_split="test")).entries
    assert [(entry.split, entry.tags == (), entry.mask is None) for entry in entries] == [
        ("test", True, True),
        ("train", False, False),
    ]


def test_without_masks(tmp_path: Path) -> None:
    make_cityscapes_tree(tmp_path)
    for path in tmp_path.rglob("*_labelIds.png"):
        path.unlink()
    found = read_listing(DataConfig(source="cityscapes", root=str(tmp_path), masks=""))
    assert {entry.mask for entry in found.entries} == {None}


def test_wrong_and_half_unpacked_trees(tmp_path: Path) -> None:
    refused(
        DataConfig(source="cityscapes", root=str(tmp_path)), "leftImg8bit/train: no such folder", "unpack"
    )
    config = make_cityscapes_tree(tmp_path)
    labels = tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    labels.unlink()
    refused(
        config,
        "1 image(s) without usable labels",
        f"{labels} does not exist",
        "unpack gtFine_trainvaltest",
    )
    shutil.rmtree(tmp_path / "gtFine")
    refused(config, "2 image(s)")
    shutil.rmtree(tmp_path / "leftImg8bit" / "train" / "aachen")
    refused(config, "no training images")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"objects": [1]}', '{"objects": [{}]}', "[" * 100_000])
def test_malformed_polygon_files(tmp_path: Path, text: str) -> None:
    config = make_cityscapes_tree(tmp_path)
    path = tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json"
    path.write_text(text)
    refused(config, f"{path} is no polygon file")
    path.unlink()
    refused(config, f"{path} does not exist")
