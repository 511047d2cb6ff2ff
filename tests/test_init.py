"""`init`: what it writes suits data and machine, loads, runs, and overwrites nothing unasked."""

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import open_dataset
from data.sources import VOC_CLASSES
from run_pipeline import EXIT_USER_ERROR, main
from stages.commands.init import Images, Machine, config_text, expected_time, suggest
from tests.cityscapes_trees import make_cityscapes_tree
from tests.coco_trees import make_coco_tree
from tests.pipelines import SETTINGS
from tests.trees import make_folder_tree, make_scene, make_voc_tree, write_jpeg
from wsss.config import load_config

CPU = Machine(cores=2)
GPU = Machine(cores=16, gpu="NVIDIA X", gpu_gib=24)


def init(folder: Path, *more: str) -> int:
    return main(["init", str(folder), "--workspace", str(folder.parent / "ws"), *more])


def class_folders(root: Path, each: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for label, name in enumerate(("disc", "square", "diamond"), start=1):
        for number in range(each):
            write_jpeg(root / name / f"{number}.jpg", make_scene([label], (70, 90), rng)[0])
    return root


@pytest.mark.slow
def test_class_folders_become_a_configuration_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "my shapes")
    assert init(root, "--val", "0.25") == 0
    out = capsys.readouterr().out
    assert "found: images in folders named by class" in out
    assert "images   27 training (train), 9 validation (val)" in out
    command = f"run --config '{root / 'wsss.toml'}' --name 'my shapes' --workspace"
    assert f"  run_pipeline.py {command}" in out
    arguments = [
        "stage",
        "classify",
        "--config",
        str(root / "wsss.toml"),
        "--workspace",
        str(tmp_path / "ws"),
    ]
    for setting in SETTINGS:
        if setting.startswith(("classify", "run")) and "backbone" not in setting:
            arguments += ["--set", setting]
    assert main(arguments) == 0


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = class_folders(tmp_path / "d")
    assert init(root) == 0
    assert "No validation split: `init" in capsys.readouterr().out
    written = {path: path.read_bytes() for path in (root / "wsss.toml", root / "wsss_labels.csv")}
    assert init(root, "--val", "0.2") == EXIT_USER_ERROR
    assert "exists already; --force replaces" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in written} == written
    assert init(root, "--val", "0.2", "--force") == 0
    assert b",val\n" in (root / "wsss_labels.csv").read_bytes()
    others = {path.name for path in root.iterdir()} - {"wsss.toml", "wsss_labels.csv"}
    assert others == {"disc", "square", "diamond"}


@pytest.mark.parametrize("kind", ["folder", "voc", "coco", "cityscapes"])
def test_known_layouts_are_read_in_place(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "d"
    if kind == "folder":
        make_folder_tree(root)
    elif kind == "voc":
        make_voc_tree(root, n_train=20, classes=VOC_CLASSES)
    elif kind == "coco":
        make_coco_tree(root)
    else:
        make_cityscapes_tree(root)
    assert init(root) == 0
    assert not (root / "wsss_labels.csv").exists()
    config = load_config(root / "wsss.toml")
    assert config.data.source == kind
    assert len(open_dataset(config.data)) > 0
    assert config.segment.supervision == ("full" if kind == "cityscapes" else "pseudo")
    assert "Everything that a run needs is there" in capsys.readouterr().out


def test_a_split_is_not_imposed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_coco_tree(tmp_path / "coco")
    assert init(tmp_path / "coco", "--val", "0.2") == EXIT_USER_ERROR
    assert "has splits of its own" in capsys.readouterr().err
    make_folder_tree(tmp_path / "folder")
    assert init(tmp_path / "folder", "--val", "0.2") == EXIT_USER_ERROR
    assert "has a validation split already" in capsys.readouterr().err
    for share, part in (("0", "above 0 and at most 0.5"), ("0.6", "at most 0.5"), ("x", "a valid number")):
        assert init(tmp_path / "folder", "--val", share) == EXIT_USER_ERROR
        assert part in capsys.readouterr().err


def test_a_list_of_ours_is_split_into_a_new_one(tmp_path: Path) -> None:
    root = tmp_path / "d"
    make_folder_tree(root, n_train=12, n_val=0)
    before = (root / "labels.csv").read_bytes()
    assert init(root, "--val", "0.25") == 0
    assert (root / "labels.csv").read_bytes() == before
    data = open_dataset(load_config(root / "wsss.toml").data)
    assert 2 <= len(data.split("val")) <= 5
    assert all(sample.mask for sample in data.samples)
    assert data.classes == ("disc", "square", "diamond")


def test_images_that_cannot_be_read_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "d", each=2)
    (root / "disc" / "0.jpg").write_bytes(b"\xff\xd8 no picture")
    assert init(root) == 0
    assert "left out: 1 image that cannot be read (disc/0.jpg: not an image" in capsys.readouterr().out
    assert len(open_dataset(load_config(root / "wsss.toml").data)) == 5
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"")
    assert init(root, "--force") == EXIT_USER_ERROR
    assert "no image can be read" in capsys.readouterr().err


def test_the_layout_of_the_readme_with_png_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder_tree(tmp_path / "d")
    for path in list((tmp_path / "d" / "images").iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    text = (tmp_path / "d" / "labels.csv").read_text()
    (tmp_path / "d" / "labels.csv").write_text(text.replace(".jpg", ".png"))
    assert init(tmp_path / "d") == 0
    out = capsys.readouterr().out
    assert "found: labels.csv and images/, as this program reads them" in out
    assert "masks    6 of 6 train, 3 of 3 val; used for scores alone" in out


def test_looking_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = class_folders(tmp_path / "d")
    assert init(root, "--look") == 0
    out = capsys.readouterr().out
    assert "images   36 training (train), 0 validation (val)" in out
    assert "Nothing is written" in out
    assert {path.name for path in tmp_path.iterdir()} == {"d"}
    assert {path.name for path in root.iterdir()} == {"disc", "square", "diamond"}


def test_masks_that_do_not_fit_are_said_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An EXIF rotation that the masks do not follow; the advice is followed, and works."""
    root = tmp_path / "d"
    make_folder_tree(root)
    path = root / "images" / "train_000.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)
    assert init(root) == 0
    out = capsys.readouterr().out
    assert "problem: masks not used: 1 mask(s) do not fit" in out
    assert "remove the orientation from the image's EXIF" in out
    assert "look at the problems first (masks not used" in out
    assert load_config(root / "wsss.toml").data.masks == ""
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=Image.Exif())
    assert init(root, "--force") == 0
    assert all(sample.mask for sample in open_dataset(load_config(root / "wsss.toml").data).samples)
    assert init(root, "--force", "--masks", "none") == 0
    assert load_config(root / "wsss.toml").data.masks == ""


def test_a_failed_check_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = class_folders(tmp_path / "d", each=2)
    (root / "classes.txt").write_text("disc\nsquare\n")
    assert init(root) == EXIT_USER_ERROR
    assert "unknown tag 'diamond'" in capsys.readouterr().err
    assert {path.name for path in root.iterdir()} == {"classes.txt", "disc", "square", "diamond"}
    (root / "classes.txt").write_text("disc\nsquare\ndiamond\n")
    assert init(root) == 0
    assert load_config(root / "wsss.toml").data.source == "folder"


def test_a_folder_that_is_not_to_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, elsewhere = class_folders(tmp_path / "d"), tmp_path / "new" / "place"
    assert init(root, "--out", str(elsewhere), "--val", "0.25") == 0
    assert "run --config" in capsys.readouterr().out
    assert {path.name for path in root.iterdir()} == {"disc", "square", "diamond"}
    assert len(open_dataset(load_config(elsewhere / "wsss.toml").data).split("val")) == 9
    assert init(root, "--out", str(root / "disc" / "0.jpg")) == EXIT_USER_ERROR
    assert "cannot be written" in (err := capsys.readouterr().err)
    assert "--out DIR" in err


def test_the_list_the_masks_and_the_columns_can_be_named(tmp_path: Path) -> None:
    root = tmp_path / "d"
    make_folder_tree(root)
    (root / "masks").rename(root / "truth")
    rows = "".join(f"train_{i:03d},{'disc' if i % 2 else 'square'}\n" for i in range(6))
    (root / "other.csv").write_text(f"foto,animal\n{rows}")
    options = ["--list", "other.csv", "--image-column", "foto", "--tag-columns", "animal", "--masks", "truth"]
    assert init(root, *options) == 0
    data = open_dataset(load_config(root / "wsss.toml").data)
    assert [[data.classes[tag] for tag in sample.tags] for sample in data.samples] == [
        ["square"],
        ["disc"],
    ] * 3
    assert all(sample.mask for sample in data.samples)


def test_voc_without_annotations_gets_tags_from_its_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "d"
    make_voc_tree(root / "VOC2012")
    shutil.rmtree(root / "VOC2012" / "Annotations")
    assert init(root) == EXIT_USER_ERROR
    assert "derive tags from the masks (command tags" in capsys.readouterr().err
    assert main(["tags", "--set", "data.source=voc", "--set", f"data.root={root}"]) == 0
    assert init(root) == 0
    assert [sample.tags for sample in open_dataset(load_config(root / "wsss.toml").data).samples[:2]] == [
        (0, 1),
        (1,),
    ]


def test_nonsense_is_not_called_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = class_folders(tmp_path / "d", each=2)
    (root / "disc").rename(root / "DCIM_raw")
    (root / "square").rename(root / "masks")
    assert init(root) == 0
    out = capsys.readouterr().out
    assert "problem: suspicious: classes 'masks' (2) do not sound like what an image shows" in out
    assert "look at the problems first (suspicious)" in out
    assert "Everything that a run needs" not in out


# ---- sizes


def by_key(images: Images, machine: Machine) -> dict[str, object]:
    return {name: value for name, (value, _) in suggest(images, machine).items()}


def test_the_measured_set_gets_the_measured_settings() -> None:
    preset = tomllib.loads((Path(__file__).parent.parent / "configs" / "folder.toml").read_text())
    wanted = {
        f"{section}.{key}": value
        for section in ("classify", "cams", "refine", "segment")
        for key, value in preset[section].items()
    }
    assert by_key(Images(training=294, long_side=320), CPU) == wanted


def test_what_looks_like_surfaces_gets_the_settings_for_small_defects() -> None:
    plain = Images(training=300, long_side=320)
    for images in (replace(plain, without_tags=100), replace(plain, gray=True)):
        found = suggest(images, CPU)
        assert found["segment.zoom"] == (
            [0.75, 1.5],
            f"{images.defects}, so they may be surfaces with small defects, whose scale is kept",
        )
        assert found["segment.class_weights"][0] == "root"
    assert by_key(replace(plain, gray=True, long_side=6400), CPU)["segment.zoom"] == [0.1, 0.15]
    assert "segment.zoom" not in by_key(replace(plain, without_tags=5), CPU)


def test_large_sets_on_a_large_gpu_get_the_published_recipe() -> None:
    found = by_key(Images(training=10_582, long_side=500), GPU)
    assert (found["classify.backbone"], found["segment.backbone"]) == ("resnet50", "resnet101")
    assert found["segment.epochs"] == 19
    for images, machine in (
        (Images(training=10_582, long_side=500), CPU),
        (Images(training=10_582, long_side=500), Machine(cores=8, gpu="small", gpu_gib=8)),
        (Images(training=300, long_side=500), GPU),
    ):
        assert by_key(images, machine)["classify.weights"] == "bundled"


def test_passes_follow_the_number_of_images() -> None:
    epochs = [
        by_key(Images(training=n, long_side=320), CPU)["classify.epochs"] for n in (1, 20, 100, 294, 5000)
    ]
    assert epochs == [40, 40, 24, 8, 4]
    assert by_key(Images(training=3, long_side=320), CPU)["classify.batch"] == 3


def test_large_images_are_reduced_on_a_cpu() -> None:
    found = suggest(Images(training=300, long_side=4000), CPU)
    assert [found[f"{stage}.max_side"][0] for stage in ("cams", "refine", "segment")] == [640, 640, 640]
    assert "4000" in found["cams.max_side"][1]
    on_gpu = by_key(Images(training=300, long_side=4000), GPU)
    assert "cams.max_side" not in on_gpu
    assert on_gpu["classify.long_side"] == [352, 560]


@pytest.mark.parametrize("machine", [CPU, GPU, Machine(cores=1), Machine(cores=8, gpu="Apple GPU")])
@pytest.mark.parametrize("training", [1, 50, 3000, 200_000])
@pytest.mark.parametrize("long_side", [1, 100, 500, 9000])
def test_every_suggestion_is_accepted(
    tmp_path: Path, machine: Machine, training: int, long_side: int
) -> None:
    settings = suggest(Images(training=training, long_side=long_side), machine)
    path = tmp_path / "wsss.toml"
    path.write_text(config_text(["ü"], {"root": "."}, settings, origin="x"), encoding="utf-8")
    config = load_config(path)
    assert config.data.root == str(tmp_path)
    for name, (value, _) in settings.items():
        section, key = name.split(".")
        found = getattr(getattr(config, section), key)
        assert (list(found) if isinstance(found, tuple) else found) == value
    for name in ("classify.backbone", "classify.weights"):
        assert settings[name][1], f"{name} does not say why"


def test_times_are_said_where_they_were_measured() -> None:
    assert expected_time(Images(training=300, long_side=320), CPU) == "about 10 to 20 minutes on 2 CPU cores"
    assert "not measured" in expected_time(Images(training=300, long_side=320), GPU)
