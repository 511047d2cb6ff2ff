"""Photographs as people have them, through the whole pipeline: odd names, modes, sizes, and none or one class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.commands.run import run_all
from stages.commands.session import open_session
from tests.pipelines import request
from wsss.config import DataConfig
from wsss.store.artifacts import Artifact

ODD = {
    "2007_000032.jpg": ("cat", "L", (50, 40)),
    "with space/ünï code.png": ("cat", "RGBA", (40, 50)),
    "sub/deep/x.y.jpg": ("dog", "CMYK", (64, 48)),
    "16 bit.png": ("dog", "I;16", (48, 64)),
    "one pixel.png": ("cat;dog", "RGB", (1, 1)),
    "thin.png": ("dog", "RGB", (300, 2)),
    "large.jpg": ("cat", "RGB", (2400, 1600)),
    "no tags.png": ("", "P", (33, 47)),
}
"""File -> tags, Pillow mode, (width, height)."""


def save(path: Path, mode: str, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    if mode == "I;16":
        Image.fromarray(random.integers(0, 2**16, size[::-1]).astype(np.uint16)).save(path)
        return
    pixels = random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    root = tmp_path_factory.mktemp("odd photos")
    rows = ["image,tags"]
    for seed, (name, (tags, mode, size)) in enumerate(ODD.items()):
        save(root / "images" / name, mode, size, seed)
        rows.append(f"{name},{tags}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return DataConfig(source="folder", root=str(root))


def test_every_odd_photograph_gets_its_mask(
    data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(request(data, tmp_path, "cams.max_side=128", "refine.max_side=128", "segment.max_side=128"))
    assert "no tags" in capsys.readouterr().out  # how it is treated is said
    session = open_session(
        request(data, tmp_path, "cams.max_side=128", "refine.max_side=128", "segment.max_side=128")
    )
    masks = Artifact(session.planned["refine"].path)
    assert set(masks.ids) == {name.rsplit(".", 1)[0] for name in ODD}
    for name, (tags, _, size) in ODD.items():
        labels = masks.read(name.rsplit(".", 1)[0], "labels")
        assert labels.shape == size[::-1], name
        allowed = {0} | {session.dataset.classes.index(tag) + 1 for tag in tags.split(";") if tag}
        assert set(np.unique(labels).tolist()) <= allowed, name
