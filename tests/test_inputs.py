"""Commands about the data itself, as a user meets them."""

from pathlib import Path

import numpy as np
import pytest

from run_pipeline import EXIT_USER_ERROR, main
from tests.trees import make_voc_tree, write_png


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
