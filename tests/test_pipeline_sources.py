"""The whole pipeline on data whose masks are no PNGs of ours: COCO from tags, Cityscapes from its labels."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stages.commands.session import run_all
from tests.cityscapes_trees import make_cityscapes_tree
from tests.coco_trees import make_coco_tree
from tests.pipelines import request


def scores(workspace: Path) -> dict[str, dict[str, float]]:
    stages = json.loads((workspace / "tiny" / "run.json").read_text())["stages"]
    return {name: entry["scores"] for name, entry in stages.items()}


def test_coco_from_tags(tmp_path: Path) -> None:
    run_all(request(make_coco_tree(tmp_path / "coco", n_train=3, n_val=2), tmp_path / "ws"))
    found = scores(tmp_path / "ws")
    assert found["classify"] == {}
    assert (found["refine"]["scored_images"], found["segment"]["scored_images"]) == (3, 2)


@pytest.mark.parametrize("val", ["val", "test"])
def test_cityscapes_from_its_labels(tmp_path: Path, val: str) -> None:
    root = tmp_path / "city"
    data = make_cityscapes_tree(root)
    if val == "test":
        (root / "leftImg8bit" / "val").rename(root / "leftImg8bit" / "test")
    run_all(request(replace(data, val_split=val), tmp_path / "ws", "segment.supervision=full"))
    found = scores(tmp_path / "ws")
    assert set(found) == {"segment"}
    assert found["segment"]["images"] == 1
    assert ("miou" in found["segment"]) == (val == "val")
