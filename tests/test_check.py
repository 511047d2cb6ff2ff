"""The commands check and tags, as a user meets them."""

import re
from pathlib import Path

import numpy as np
import pytest

from run_pipeline import EXIT_USER_ERROR, main
from tests.trees import make_folder_tree, make_voc_tree, write_png


def test_tags_of_voc_are_derived_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_voc_tree(tmp_path)
    (tmp_path / "Annotations" / "2007_000001.xml").unlink()
    command = ["tags", "--set", f"data.root={tmp_path}", "--set", "data.source=voc"]
    command += ["--set", f"data.classes={list(config.classes)}"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "1 image: tags derived from their masks in SegmentationClass" in out
    assert "5 images: tags derived from their XML annotations" in out
    assert f"{tmp_path / 'tags.csv'} written" in out
    before = (tmp_path / "tags.csv").read_text()
    assert "2007_000001.jpg,bicycle,their masks in SegmentationClass" in before
    write_png(tmp_path / "SegmentationClass" / "2007_000001.png", np.ones((36, 48), np.uint8))
    assert main(command) == EXIT_USER_ERROR
    assert "exists already; --force overwrites it" in capsys.readouterr().err
    assert (tmp_path / "tags.csv").read_text() == before
    assert main([*command, "--force"]) == 0
    assert "2007_000001.jpg,aeroplane,their masks" in (tmp_path / "tags.csv").read_text()
    assert main([*command, "--output", str(tmp_path / "other.csv")]) == 0
    assert (tmp_path / "other.csv").exists()


def test_tags_say_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tags"]) == EXIT_USER_ERROR
    assert "data.root is not set" in capsys.readouterr().err


def test_check_prints_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=12, n_val=3, size=(70, 90))
    (tmp_path / "my.toml").write_text(
        f'[data]\nroot = "{data.root}"\n[classify]\nbackbone = "resnet18"\n'
        'weights = "none"\n[segment]\nbackbone = "resnet18"\nweights = "none"\n'
    )
    command = ["check", str(tmp_path / "my.toml"), "--workspace", str(tmp_path / "ws")]
    assert main([*command, "--set", "seed=3"]) == 0
    out = capsys.readouterr().out
    assert f"data     folder  {data.root}" in out
    assert "images   12 training (train), 3 validation (val)" in out
    assert "70x90 pixels typically (short x long side)" in out
    assert "12 of 12 train, 3 of 3 val; used for scores alone" in out
    assert re.search(r"^disc +\d+ +\d+  █{12}$", out, re.MULTILINE)
    assert "problem: rare: 3 classes with fewer than 10 training images" in out
    assert (
        f"  run_pipeline.py run --config {tmp_path / 'my.toml'} --workspace {tmp_path / 'ws'} --set seed=3"
        in out
    )
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 100
    assert not list((tmp_path / "ws").rglob("*.h5"))


def test_check_finds_what_a_run_would_stumble_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=1)
    command = ["check", "--workspace", str(tmp_path / "ws"), "--set", f"data.root={data.root}"]
    assert main([*command, "--set", "classify.backbone=resnet_18"]) == EXIT_USER_ERROR
    assert "resnet_18" in capsys.readouterr().err
    (Path(data.root) / "images" / "train_000.jpg").write_bytes(b"")
    assert main(command) == EXIT_USER_ERROR
    assert "train_000.jpg: the file is empty" in capsys.readouterr().err
    (Path(data.root) / "images" / "train_000.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    )
    assert main(command) == EXIT_USER_ERROR
    assert "PostScript is a program" in capsys.readouterr().err


def test_many_classes_stay_on_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"class {number:02d}" for number in range(90)]
    data = make_folder_tree(tmp_path / "data", n_train=90, n_val=0, classes=names, size=(8, 8), masks=False)
    settings = ["classify.backbone=resnet18", "classify.weights=none", "segment.backbone=resnet18"]
    command = ["check", "--workspace", str(tmp_path / "ws"), "--set", f"data.root={data.root}"]
    for setting in [*settings, "segment.weights=none"]:
        command += ["--set", setting]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("class ") and "█" in line]
    assert len(rows) == 45
    assert rows[0].split("█")[0].startswith("class 00")
    assert "class 45" in rows[0]
    assert len(lines) < 70
