"""Every shipped preset trains two steps and predicts on a tiny tree of its own layout."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from run_pipeline import main
from tests.cityscapes_trees import make_cityscapes_tree
from tests.coco_trees import make_coco_tree
from tests.trees import make_folder_tree, make_voc_tree
from wsss.config import DataConfig, TrainConfig, load_config

PRESETS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))
TINY = {"hrnet_w48": "hrnet_w18_small", "resnet101": "resnet18", "resnet50": "resnet18"}


def voc_tree(root: Path) -> DataConfig:
    made = make_voc_tree(root)
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train_aug.txt").write_bytes((lists / "train.txt").read_bytes())
    return replace(made, train_split="train_aug")


def context_tree(root: Path) -> DataConfig:
    """As VOC, with lists and masks of its own: the annotations are of other classes."""
    made = make_voc_tree(root, classes=load_config(preset("context_hrnet_ocr")).data.classes[:2])
    (root / "ImageSets" / "Segmentation").rename(root / "ImageSets" / "SegmentationContext")
    (root / "SegmentationClass").rename(root / "SegmentationClassContext")
    return made


def preset(name: str) -> Path:
    return next(path for path in PRESETS if path.stem == name)


def coco_tree(root: Path) -> DataConfig:
    made = make_coco_tree(root, n_train=4, n_val=2)
    for split in ("train", "val"):
        (root / f"{split}2017").rename(root / f"{split}2014")
        annotations = root / "annotations"
        (annotations / f"instances_{split}2017.json").rename(annotations / f"instances_{split}2014.json")
    return made


def folder_tree(root: Path) -> DataConfig:
    return make_folder_tree(root, n_train=4, n_val=2)


TREES: dict[str, Callable[[Path], DataConfig]] = {
    "folder": folder_tree,
    "voc": voc_tree,
    "coco": coco_tree,
    "cityscapes": make_cityscapes_tree,
    "context": context_tree,
}


def test_presets_are_there_and_say_command_needs_and_cost() -> None:
    assert len(PRESETS) >= 10
    for path in PRESETS:
        comment = path.read_text(encoding="utf-8").split("seed = 0")[0]
        for part in (
            f"run_pipeline.py {'ablate' if path.stem == 'ablation' else 'run'} --config",
            "Needs:",
            "Expect:",
        ):
            assert part in comment, f"{path.name} lacks {part!r}"
        assert all(line.startswith("#") for line in comment.splitlines())
        assert f"configs/{path.name}" in comment
        assert path.stem in ("sample", "folder", "defects", "ablation") or "never run at full size" in comment


@pytest.mark.slow
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_trains_two_steps_on_its_own_layout(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    context = config.data.labels != "auto"
    TREES["context" if context else config.data.source](tmp_path / "data")
    settings = [f"data.root={tmp_path / 'data'}", "run.device=cpu", "run.workers=0", "run.precision=fp32"]
    for name in ("classify", "segment"):
        section: TrainConfig = getattr(config, name)
        settings += [
            f"{name}.backbone={TINY.get(section.backbone, section.backbone)}",
            f"{name}.weights=none",
        ]
        settings += [f"{name}.crop=64", f"{name}.long_side=[48, 96]", f"{name}.batch=2", f"{name}.sr_start=0"]
        # Four training images, or one, which is a batch by itself.
        settings.append(f"{name}.epochs={2 if config.data.source == 'cityscapes' else 1}")
    given = [part for text in (*settings, "segment.head_channels=16") for part in ("--set", text)]
    place = ["--workspace", str(tmp_path / "ws")]
    if context:
        assert main(["tags", "--config", str(path), *given, "--set", "data.tags="]) == 0
    assert main(["run", "--config", str(path), "--name", "tiny", *place, *given]) == 0
    events = [json.loads(line) for line in (tmp_path / "ws" / "tiny" / "log.jsonl").read_text().splitlines()]
    epochs = {event["stage"]: event for event in events if "epoch" in event}
    assert set(epochs) == {"segment"} | ({"classify"} if config.segment.supervision == "pseudo" else set())
    losses = {
        name: value for event in epochs.values() for name, value in event.items() if name in ("cls", "seg")
    }
    assert set(losses) == {"cls", "seg"}
    assert all(math.isfinite(value) and value > 0 for value in losses.values())
