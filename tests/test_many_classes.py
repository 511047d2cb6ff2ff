"""The ends of what masks of 8 bits can hold: one class, 254 classes, one more."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from stages.commands.session import open_session, run_all
from tests.pipelines import request
from tests.trees import SHAPES, make_folder_tree, write_csv
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.store.artifacts import Artifact


def tree(root: Path, classes: Sequence[str]) -> DataConfig:
    """Four training and two validation photographs; each training photograph has a quarter of the tags."""
    data = make_folder_tree(
        root, n_train=4, n_val=2, classes=(*classes, *SHAPES)[: max(1, min(3, len(classes)))]
    )
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
