"""The whole pipeline on every kind of data: VOC, COCO, Cityscapes, without masks, with one class and with 254."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import STAGE_NAMES
from stages.commands.run import run_all
from stages.commands.session import open_session
from tests.cityscapes_trees import make_cityscapes_tree
from tests.coco_trees import make_coco_tree
from tests.pipelines import request
from tests.trees import SHAPES, make_folder_tree, make_voc_tree, write_csv
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.store.artifacts import Artifact

pytestmark = pytest.mark.slow


def record(workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace / "tiny" / "run.json").read_text())
    return found


def scores(workspace: Path) -> dict[str, dict[str, float]]:
    return {name: entry["scores"] for name, entry in record(workspace)["stages"].items()}


@pytest.mark.parametrize("supervision", ["pseudo", "full"])
def test_voc(tmp_path: Path, supervision: str) -> None:
    data = make_voc_tree(tmp_path / "voc", n_train=4, n_val=2)
    run_all(request(data, tmp_path / "ws", f"segment.supervision={supervision}"))
    found = scores(tmp_path / "ws")
    assert list(found) == (list(STAGE_NAMES) if supervision == "pseudo" else ["segment"])
    assert record(tmp_path / "ws")["classes"] == ["aeroplane", "bicycle"]
    assert found["segment"]["images"] == 2


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


def test_data_without_any_mask_runs_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=4, n_val=0, masks=False)
    run_all(request(data, tmp_path / "ws"))
    assert "no masks to score against" in capsys.readouterr().out
    assert (tmp_path / "ws" / "tiny" / "overview.png").exists()
    with pytest.raises(UserError, match=r"segment\.supervision = 'full': 4 training images have no mask"):
        run_all(request(data, tmp_path / "ws", "segment.supervision=full"))


def tree(root: Path, classes: Sequence[str]) -> DataConfig:
    """Four training and two validation images; each training image has a quarter of the tags."""
    shown = (*classes, *SHAPES)[: max(1, min(3, len(classes)))]
    data = make_folder_tree(root, n_train=4, n_val=2, classes=shown)
    tags = [";".join(classes[start::4]) or classes[0] for start in range(4)]
    train = [(f"train_{i:03d}.jpg", tags[i], "train") for i in range(4)]
    write_csv(root / "labels.csv", [*train, *((f"val_{i:03d}.jpg", classes[0], "val") for i in (4, 5))])
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    return data


@pytest.mark.parametrize("count", [1, 254])
def test_all_stages_with_the_fewest_and_the_most_classes(tmp_path: Path, count: int) -> None:
    classes = [f"class {index}" for index in range(count)]
    asked = request(tree(tmp_path / "data", classes), tmp_path / "ws", "refine.method=local")
    run_all(asked)
    session = open_session(asked)
    network = Artifact(session.planned["segment"].path)
    names = [name for name, array in network.group("network").items() if array.shape[:1] == (count + 1,)]
    network.close()
    assert any(name.startswith("head.") for name in names), "one channel for each class and the background"
    cams = Artifact(session.planned["cams"].path)
    assert cams.read("train_000", "classes").tolist() == list(range(0, count, 4))
    assert cams.read("train_000", "confidence").shape == (count,)
    cams.close()
    masks = Artifact(session.planned["refine"].path)
    assert set(masks.read("train_000", "labels").ravel().tolist()) <= {0, *range(1, count + 1, 4)}
    masks.close()
    page = json.loads((tmp_path / "ws" / "tiny" / "report.json").read_text(encoding="utf-8"))
    assert len(page["labels"]) == count + 1
    assert 0 <= page["segment.miou"] <= 1


def test_one_class_too_many_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", [f"class {index}" for index in range(255)])
    with pytest.raises(UserError, match=r"255 classes.*254"):
        run_all(request(data, tmp_path / "ws"))
    assert not list((tmp_path / "ws").rglob("*.h5"))
