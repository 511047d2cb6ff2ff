"""The command export on a finished run: what it takes from where, and what it refuses."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from data.images import read_mask
from run_pipeline import EXIT_USER_ERROR, main
from tests.products import Product
from tests.test_export_formats import certain, read_cvat

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # pycocotools has not followed numpy 2 yet

ROOT = Path(__file__).parent.parent


def export(product: Product, *arguments: object) -> int:
    return main(product.arguments("export", "tiny", *arguments))


def read_coco(path: Path) -> dict[str, NDArray[np.uint8]]:
    document = json.loads(path.read_text(encoding="utf-8"))
    names = {entry["id"]: entry["file_name"] for entry in document["images"]}
    found = {
        entry["file_name"]: np.zeros((entry["height"], entry["width"]), np.uint8)
        for entry in document["images"]
    }
    for annotation in document["annotations"]:
        mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
        found[names[annotation["image_id"]]][mask] = annotation["category_id"]
    return found


def stored(product: Product, stage: str, field: str) -> dict[str, NDArray[np.uint8]]:
    artifact = product.artifact(stage)
    return {image_id: artifact.read(image_id, field) for image_id in artifact.ids}


def test_every_format_holds_the_masks_of_refine(product: Product, tmp_path: Path) -> None:
    masks = stored(product, "refine", "masks")
    values = set(np.unique(np.concatenate([mask.ravel() for mask in masks.values()])).tolist())
    assert 255 in values
    assert len(values) > 2
    for name in ("voc", "coco", "cvat", "labelstudio"):
        assert export(product, "--format", name, "--from", "masks", "--out", tmp_path / name) == 0
    coco = read_coco(tmp_path / "coco" / "instances_train.json")
    cvat = read_cvat((tmp_path / "cvat" / "segmentation_mask_train.zip").read_bytes())[1]
    tasks = json.loads((tmp_path / "labelstudio" / "tasks_train.json").read_text())
    assert len(tasks) == len(masks)
    for task in tasks:
        image_id = task["data"]["image"].removeprefix("/data/local-files/?d=").removesuffix(".jpg")
        mask = masks[image_id]
        assert (read_mask(tmp_path / "voc" / "SegmentationClass" / f"{image_id}.png") == mask).all()
        assert (coco[f"{image_id}.jpg"] == certain(mask)).all()
        assert (cvat[image_id][0] == certain(mask)).all()
        assert len(task["predictions"][0]["result"]) == len(set(np.unique(mask)) - {0, 255})


def test_the_order_of_review_goes_to_label_studio_and_cvat(product: Product, tmp_path: Path) -> None:
    report = json.loads((product.workspace / "tiny" / "report.json").read_text(encoding="utf-8"))
    pairs = zip(report["segment.per_image.id"], report["segment.per_image.review"], strict=True)
    scores = {image: round(score, 4) for image, score in pairs}
    assert len(set(scores.values())) > 1
    for name in ("labelstudio", "cvat"):
        assert export(product, "--format", name, "--from", "predictions", "--out", tmp_path) == 0
    tasks = json.loads((tmp_path / "tasks_val.json").read_text())
    names = [task["data"]["image"].removeprefix("/data/local-files/?d=") for task in tasks]
    assert [task["predictions"][0]["score"] for task in tasks] == sorted(scores.values())
    assert [scores[name.removesuffix(".jpg")] for name in names] == sorted(scores.values())
    assert (tmp_path / "order_val.txt").read_text().split() == names
    content = (tmp_path / "segmentation_mask_val.zip").read_bytes()
    assert [f"{image}.jpg" for image in read_cvat(content)[1]] == names


def test_the_loader_for_fiftyone_reads_the_masks(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(product, "--format", "voc", "--from", "masks", "--out", tmp_path) == 0
    code = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    code = code.replace("runs/sample/export/masks-train-voc", str(tmp_path))
    code = code.replace('"my_images"', repr(str(product.images)))
    samples: list[dict[str, Any]] = []
    dataset = SimpleNamespace(add_sample=samples.append)  # FiftyOne itself brings a database
    stub = {"Dataset": lambda: dataset, "Sample": dict, "Segmentation": SimpleNamespace}
    monkeypatch.setitem(sys.modules, "fiftyone", SimpleNamespace(**stub))
    exec(code, {})
    stored_masks = stored(product, "refine", "masks")
    assert len(samples) == len(stored_masks)
    for sample in samples:
        path, mask = Path(sample["filepath"]), sample["masks"].mask
        assert path.is_file()
        assert (mask == stored_masks[path.stem]).all()
        assert set(np.unique(mask)) <= {0, *dataset.default_mask_targets}
    assert dataset.default_mask_targets == {1: "disc", 2: "square", 3: "diamond", 255: "uncertain"}


def test_uncertain_pixels_can_be_decided(product: Product, tmp_path: Path) -> None:
    assert (
        export(product, "--format", "coco", "--from", "masks", "--unsure", "decide", "--out", tmp_path) == 0
    )
    coco = read_coco(tmp_path / "instances_train.json")
    labels = stored(product, "refine", "labels")
    assert any((labels[i] != certain(mask)).any() for i, mask in stored(product, "refine", "masks").items())
    for image_id, expected in labels.items():
        assert (coco[f"{image_id}.jpg"] == expected).all()


def test_predictions_are_stored_ones_and_else_made_now(product: Product, tmp_path: Path) -> None:
    predictions = stored(product, "segment", "predictions")
    assert export(product, "--format", "coco", "--from", "predictions", "--out", tmp_path) == 0
    found = read_coco(tmp_path / "instances_val.json")
    assert sorted(found) == ["val_006.jpg", "val_007.jpg", "val_008.jpg"]
    for name, mask in found.items():
        assert (mask == predictions[name.removesuffix(".jpg")]).all()
    new, labels = product.images / "new.jpg", Path(product.data.root) / "labels.csv"
    before = labels.read_text(encoding="utf-8")
    try:  # an image that the run has not seen, the same as one that it has
        shutil.copy(product.images / "val_007.jpg", new)
        labels.write_text(f"{before}new.jpg,disc,train\n", encoding="utf-8")
        arguments = ("--format", "voc", "--from", "predictions", "--split", "train", "--out", tmp_path)
        assert export(product, *arguments) == 0
    finally:
        new.unlink()
        labels.write_text(before, encoding="utf-8")
    assert len(list((tmp_path / "SegmentationClass").iterdir())) == 7
    assert (read_mask(tmp_path / "SegmentationClass" / "new.png") == predictions["val_007"]).all()


def test_masks_are_exported_when_the_data_set_has_gone(
    product: Product, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with product.data_gone():
        assert export(product, "--format", "coco", "--from", "masks", "--out", tmp_path / "masks") == 0
        assert "the data set cannot be read" in capsys.readouterr().out
        assert export(product, "--format", "coco", "--from", "predictions", "--out", tmp_path / "val") == 0
        of_training = (
            "--format",
            "coco",
            "--from",
            "predictions",
            "--split",
            "train",
            "--out",
            tmp_path / "new",
        )
        assert export(product, *of_training) == EXIT_USER_ERROR
        assert "are gone" in capsys.readouterr().err
    found = read_coco(tmp_path / "masks" / "instances_train.json")
    assert sorted(found) == [f"train_{i:03d}.jpg" for i in range(6)]  # names from the workspace's file index
    assert sorted(read_coco(tmp_path / "val" / "instances_val.json")) == [
        f"val_{i:03d}.jpg" for i in (6, 7, 8)
    ]


def test_files_in_the_way_are_left_alone(
    product: Product, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "SegmentationClass" / "train_003.png"
    foreign.parent.mkdir()
    foreign.write_bytes(b"somebody's")
    arguments = ("--format", "voc", "--from", "masks", "--out", tmp_path)
    assert export(product, *arguments) == EXIT_USER_ERROR
    assert "train_003.png" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [foreign]
    assert export(product, *arguments, "--force") == 0
    assert foreign.read_bytes() != b"somebody's"
    assert export(product, *arguments) == EXIT_USER_ERROR


def test_the_default_folder_is_the_runs_own(product: Product, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(product, "--format", "coco", "--from", "masks") == 0
    file = product.workspace / "tiny" / "export" / "masks-train-coco" / "instances_train.json"
    assert str(file) in capsys.readouterr().out
    assert file.exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--format", "coco"], "--from is missing"),
        (["--format", "coco", "--from", "masks", "--split", "val"], "training split train alone"),
        (["--format", "coco", "--from", "predictions", "--split", "test"], "knows the splits train and val"),
        (["--format", "coco", "--from", "masks", "--set", "refine.preset=psa"], "only run.device"),
    ],
)
def test_mistakes_are_named(
    product: Product, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert export(product, *arguments, "--out", tmp_path / "out") == EXIT_USER_ERROR
    assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_result_names_the_command(
    product: Product, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Path(shutil.copytree(product.workspace, tmp_path / "ws"))
    next((workspace / "artifacts" / "refine").glob("*.h5")).unlink()
    command = ["export", "tiny", "--format", "voc", "--from", "masks", "--workspace", str(workspace)]
    assert main(command) == EXIT_USER_ERROR
    assert "the result of stage refine is gone" in (message := capsys.readouterr().err)
    assert "run_pipeline.py run --name 'tiny'" in message
