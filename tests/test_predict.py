"""The command predict as a user meets it: names, resuming, refusals, failures, tiles, tags, CRF."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import wsss
from data.images import read_image, read_mask
from run_pipeline import EXIT_INTERRUPTED, EXIT_USER_ERROR, main
from stages.commands.predict.predictors import RunPredictor, run_settings, scaled_image
from stages.workspace import open_run
from tests.products import Product
from tests.trees import UInt8, voc_palette, write_jpeg
from wsss.cams import resized
from wsss.crf import PRESETS, dense_crf
from wsss.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def photos(product: Product, tmp_path: Path) -> Path:
    """Three images in subfolders, one of them turned by EXIF."""
    folder = tmp_path / "photos"
    for name, source in (("a.jpg", "val_006"), ("trip 1/über.jpg", "val_007"), ("trip 2/b.jpg", "val_008")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(product.images / f"{source}.jpg", folder / name)
    with Image.open(folder / "trip 2" / "b.jpg") as opened:
        exif = opened.getexif()
        exif[0x0112] = 6
        opened.save(folder / "trip 2" / "b.jpg", exif=exif)
    return folder


def predict(product: Product, *arguments: object) -> int:
    return main(product.arguments("predict", "tiny", *arguments))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_masks_equal_those_of_the_segment_stage(product: Product, tmp_path: Path) -> None:
    with_data = tmp_path / "with"
    assert predict(product, product.images, "--out", with_data) == 0
    stored = product.artifact("segment")
    labels = set()
    for image_id in stored.ids:
        mask = read_mask(with_data / f"{image_id}.png")
        labels |= set(np.unique(mask).tolist())
        assert (mask == stored.read(image_id, "predictions")).all()
    assert len(labels) > 1
    shutil.copytree(product.images, tmp_path / "elsewhere")
    with product.data_gone():
        assert predict(product, tmp_path / "elsewhere", "--out", tmp_path / "without") == 0
    assert files(with_data) == files(tmp_path / "without")
    for name in files(with_data):
        assert (with_data / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_names_folders_palette_and_overlay(product: Product, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(product, photos, "--out", out, "--overlay") == 0
    stems = ["a", "trip 1/über", "trip 2/b"]
    assert files(out) == sorted(
        ["predict.json", *(f"{stem}{end}" for stem in stems for end in (".png", ".overlay.jpg"))]
    )
    for stem in stems:
        size = read_image(photos / f"{stem}.jpg").shape[:2]  # upright
        with Image.open(out / f"{stem}.png") as mask, Image.open(out / f"{stem}.overlay.jpg") as overlay:
            assert mask.mode == "P"
            assert mask.getpalette() == voc_palette()
            assert mask.size == size[::-1]
            assert overlay.width == size[1]
            assert overlay.height > size[0]  # the legend
    assert read_mask(out / "trip 2" / "b.png").shape == (88, 60)


def test_a_second_call_resumes(
    product: Product, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(product, photos, "--out", out) == 0
    assert "3 predicted, 0 there already, 0 failed" in capsys.readouterr().out
    before = {name: (out / name).stat().st_mtime_ns for name in files(out) if name.endswith("png")}
    (out / "a.png").unlink()
    write_jpeg(photos / "trip 1" / "über.jpg", np.zeros((20, 30, 3), np.uint8))  # another image now
    assert predict(product, photos, "--out", out) == 0
    assert "2 predicted, 1 there already, 0 failed" in capsys.readouterr().out
    assert read_mask(out / "trip 1" / "über.png").shape == (20, 30)
    after = {name: (out / name).stat().st_mtime_ns for name in before}
    assert [name for name in before if before[name] == after[name]] == ["trip 2/b.png"]
    assert predict(product, photos, "--out", out, "--overlay") == 0  # overlays are missing: all again
    assert "3 predicted" in capsys.readouterr().out


def test_other_settings_and_foreign_files_are_not_overwritten(
    product: Product, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"somebody's")
    assert predict(product, photos, "--out", out) == EXIT_USER_ERROR
    assert "a.png" in capsys.readouterr().err
    assert files(out) == ["a.png"]
    (out / "a.png").unlink()
    assert predict(product, photos, "--out", out) == 0
    before = (out / "a.png").read_bytes()
    assert predict(product, photos, "--out", out, "--flip", "--scales", "0.5,1") == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert "flip: false -> true" in message
    assert "scales: [1.0] -> [0.5, 1.0]" in message
    assert (out / "a.png").read_bytes() == before
    assert predict(product, photos, "--out", out, "--flip", "--scales", "0.5,1", "--force") == 0
    assert (out / "a.png").read_bytes() != before
    assert json.loads((out / "predict.json").read_text())["settings"]["scales"] == [0.5, 1.0]


def test_what_cannot_be_read_is_named_and_stops_nothing(
    product: Product, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:200])
    (photos / "notes.txt").write_text("no picture")
    assert predict(product, photos, "--out", tmp_path / "out") == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert "note: left out, no images: 1 .txt (notes.txt)" in captured.out
    assert "3 predicted, 0 there already, 1 failed" in captured.out
    assert "broken.jpg: damaged" in captured.err
    assert len(files(tmp_path / "out")) == 4
    (photos / "broken.jpg").unlink()
    assert predict(product, photos, "--out", tmp_path / "out") == 0  # what is no image is no failure


def test_whatever_happens_to_an_image_is_its_own_failure(
    product: Product,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = RunPredictor.labels

    def odd(self: RunPredictor, image: UInt8, allowed: NDArray[np.bool_] | None) -> UInt8:
        if image.shape[0] == 88:
            raise ZeroDivisionError("the reason")
        return labels(self, image, allowed)

    monkeypatch.setattr(RunPredictor, "labels", odd)
    for n in range(10):
        shutil.copy(photos / "trip 2" / "b.jpg", photos / f"turned {n:02d}.jpg")
    shutil.copy(photos / "trip 2" / "b.jpg", photos / os.fsdecode(b"turned \xff.jpg"))  # no UTF-8
    assert predict(product, photos, "--out", tmp_path / "out") == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert "2 predicted, 0 there already, 12 failed" in captured.out
    assert "b.jpg: ZeroDivisionError: the reason\n" in captured.err
    assert "and 2 more, all of them in" in captured.err
    failed = (tmp_path / "out" / "predict.failed.txt").read_text(encoding="utf-8").splitlines()
    assert len(failed) == 12


def test_a_name_that_is_too_long_for_its_result_is_its_own_failure(
    product: Product, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a.jpg").rename(photos / f"{'a' * 249}.jpg")  # .overlay.jpg makes it more than 255
    assert predict(product, photos, "--out", tmp_path / "out", "--overlay") == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert "2 predicted, 0 there already, 1 failed" in captured.out
    assert "File name too long" in captured.err


@pytest.mark.parametrize("side", [(1, 40), (40, 1), (1, 1)])
def test_images_of_one_row_or_column_are_predicted(
    product: Product, tmp_path: Path, side: tuple[int, int]
) -> None:
    write_jpeg(tmp_path / "thin.jpg", np.zeros((*side, 3), np.uint8))
    options = ("--flip", "--crf", "--overlay", "--scales", "0.5,1", "--set", "run.workers=1")
    assert predict(product, tmp_path / "thin.jpg", "--out", tmp_path / "out", *options) == 0
    assert read_mask(tmp_path / "out" / "thin.png").shape == side


def test_the_pixel_limit_can_be_set(
    product: Product,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # of the whole process
    assert predict(product, photos, "--out", tmp_path / "out", "--max-pixels", 1000) == EXIT_USER_ERROR
    assert "above Pillow's limit of 1,000 pixels" in (message := capsys.readouterr().err)
    assert "--max-pixels N" in message
    assert predict(product, photos, "--out", tmp_path / "out", "--max-pixels", 60 * 88) == 0


def test_tags_choose_the_classes(
    product: Product, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = tmp_path / "tags.csv"
    tags.write_text("image,tags\na.jpg,diamond\ntrip 1/über.jpg,\n", encoding="utf-8")
    assert predict(product, photos, "--out", tmp_path / "out", "--tags", tags) == 0
    assert "1 images without a row" in capsys.readouterr().out
    assert set(np.unique(read_mask(tmp_path / "out" / "a.png"))) <= {0, 3}
    assert set(np.unique(read_mask(tmp_path / "out" / "trip 1" / "über.png"))) == {0}
    tags.write_text("\ufeffsep=;\nFile Name;Label\nA.JPG; Disc\ntrip 1\\über.jpg;\n", encoding="utf-8")
    assert predict(product, photos, "--out", tmp_path / "out", "--tags", tags) == 0
    assert "1 predicted, 2 there already" in capsys.readouterr().out  # its tags alone have changed
    assert set(np.unique(read_mask(tmp_path / "out" / "a.png"))) <= {0, 1}
    tags.write_text("image,tags\na.jpg,diamon\n", encoding="utf-8")
    assert predict(product, photos, "--out", tmp_path / "new", "--tags", tags) == EXIT_USER_ERROR
    assert "line 2: 'diamon' is no class of this network; did you mean 'diamond'?" in capsys.readouterr().err
    tags.write_text("image,tags\nphotos/zzz.jpg,diamond\n", encoding="utf-8")
    assert predict(product, photos, "--out", tmp_path / "new", "--tags", tags) == EXIT_USER_ERROR
    assert "names none of the images" in capsys.readouterr().err


def test_crf_is_the_published_one_on_the_networks_probabilities(
    product: Product, photos: Path, tmp_path: Path
) -> None:
    assert (
        predict(product, photos / "a.jpg", "--out", tmp_path / "out", "--crf", "--set", "run.workers=1") == 0
    )
    image = read_image(photos / "a.jpg")
    predictor = load(product, tile=0)
    from wsss.cams import label_probabilities

    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    probability = label_probabilities(predictor.network, pixels, scales=(1.0,), flip=False).numpy()
    labels = np.union1d(np.unique(probability.argmax(0)), [0])
    shared = probability[labels] / probability[labels].sum(0)
    expected = labels[dense_crf(image, shared, PRESETS["deeplab"], iterations=10).argmax(0)]
    found = read_mask(tmp_path / "out" / "a.png")
    assert (found == expected).mean() > 0.995
    assert (found != probability.argmax(0)).any()
    record = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert record["settings"]["crf"] == ["deeplab", 10, 1024]


def load(product: Product, **changes: object) -> RunPredictor:
    run = open_run(product.workspace, "tiny")
    predictor = RunPredictor(run, run_settings(run.config, **{"tile": 0, **changes}))
    predictor.load()
    return predictor


@pytest.mark.slow
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.5, 1.0, 1.5), True)])
def test_tiled_masks_nearly_equal_untiled_ones(
    product: Product, scales: tuple[float, ...], flip: bool
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 1300, 3), dtype=np.uint8)
    whole = load(product, scales=scales, flip=flip, max_side=0)
    tiled = load(product, scales=scales, flip=flip, max_side=0, tile=256)
    assert 0.5 * image.shape[1] > 256  # every scale is larger than a tile
    expected = whole.labels(image, None)
    assert len(np.unique(expected)) > 1
    assert (tiled.labels(image, None) == expected).mean() > 0.9
    allowed = np.array([True, True, False, False])
    assert (tiled.labels(image, allowed) == whole.labels(image, allowed)).mean() > 0.9


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.3, 2.0])
def test_images_are_scaled_as_by_torch(scale: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    expected = resized(pixels, scale)[0].permute(1, 2, 0).numpy()
    scaled = scaled_image(image, scale)
    found = scaled.astype(np.float32) / (255 if scaled.dtype == np.uint8 else 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nobody", "."], "nobody: no such run in"),
        (["tiny"], "no images given"),
        (["tiny", "nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["tiny", ".", "--set", "seed=1"], "only run.device"),
        (["--onnx", "no.onnx", "."], "no.onnx: no such file"),
        (["--onnx", "no.onnx", ".", "--tile", "64"], "--max-side"),
    ],
)
def test_mistakes_are_named(
    product: Product,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(photos)
    command = product.arguments("predict", "--out", tmp_path / "out")
    # argparse takes positional arguments in one place.
    split = next((i for i, text in enumerate(arguments) if text == "--set"), len(arguments))
    assert main([*command, *arguments[split:], *arguments[:split]]) == EXIT_USER_ERROR
    assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_its_result_names_the_command(
    product: Product, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Path(shutil.copytree(product.workspace, tmp_path / "ws"))
    next((workspace / "artifacts" / "segment").glob("*.h5")).unlink()
    command = ["predict", "tiny", str(photos), "--out", str(tmp_path / "out"), "--workspace", str(workspace)]
    assert main(command) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert "the result of stage segment is gone" in message
    assert f"run --name 'tiny' --workspace '{workspace}'" in message


@pytest.mark.slow
def test_an_interrupted_prediction_resumes(product: Product, photos: Path, tmp_path: Path) -> None:
    for n in range(60):
        shutil.copy(photos / "a.jpg", photos / f"copy {n:02d}.jpg")
    command = [sys.executable, "run_pipeline.py", *product.arguments("predict", "tiny", photos)]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as process:
        while not (tmp_path / "out" / "copy 00.png").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait() == EXIT_INTERRUPTED
    before = files(tmp_path / "out")
    assert 2 <= len(before) < 64
    assert not list(tmp_path.rglob("*.tmp-*"))
    assert predict(product, photos, "--out", tmp_path / "out") == 0
    assert len(files(tmp_path / "out")) == 64


def test_settings_are_the_runs_own_by_default(product: Product) -> None:
    config, image = open_run(product.workspace, "tiny").config, np.zeros((30, 1200, 3), np.uint8)
    settings = run_settings(config)
    assert (settings.scales, settings.flip, settings.working_size(image)) == ((1.0,), False, (26, 1024))
    assert (settings.crf, settings.crf_max_side, settings.tile) == (False, 1024, 1536)
    assert run_settings(config, max_side=0).working_size(image) == (30, 1200)


def test_the_example_for_python_runs_and_predicts_what_the_command_does(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = next(path for path in sorted(product.images.iterdir()) if path.stem.startswith("val"))
    assert predict(product, photograph, "--out", tmp_path / "out") == 0
    (tmp_path / "photo.jpg").write_bytes(photograph.read_bytes())
    (tmp_path / "runs").symlink_to(product.workspace)
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "predict.md").read_text(encoding="utf-8")
    example = next(
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "open_run" in block
    )
    found: dict[str, Any] = {}
    exec(example.replace("runs/sample", "runs/tiny"), found)
    labels, probabilities, run = found["labels"], found["probabilities"], found["run"]
    assert (labels == read_mask(next((tmp_path / "out").rglob("*.png")))).all()
    assert probabilities.shape == (1 + len(run.classes), *labels.shape)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)
    assert (probabilities.argmax(0) == labels).mean() > 0.95
    refine = product.artifact("refine")
    assert found["masks"].keys() == set(refine.ids)
    assert all((mask == refine.read(name, "masks")).all() for name, mask in found["masks"].items())
    assert str(run.report()["segment.miou"]) in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"float64 \(2, 3\); expected uint8 \(height, width, 3\)"):
        run.predict(np.zeros((2, 3)))
    with pytest.raises(UserError, match="no such run"):
        wsss.open_run(tmp_path / "runs" / "none")
