"""`open_dataset`: what it returns, what its digest says, and the checks that need the pixels."""

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from data import Dataset, open_dataset
from tests.trees import make_folder_tree, make_scene, refused, write_csv, write_jpeg, write_png
from wsss.config import DataConfig


def test_samples(tmp_path: Path) -> None:
    data = open_dataset(make_folder_tree(tmp_path, n_train=3, n_val=1, size=(20, 30)))
    assert data.classes == ("disc", "square", "diamond")
    assert [s.id for s in data.samples] == ["train_000", "train_001", "train_002", "val_003"]
    assert [s.tags for s in data.samples] == [(0, 1), (1,), (0, 2), (0,)]
    assert (len(data), data.notes) == (4, ())
    first = data.samples[0]
    assert first.size == (20, 30)
    assert first.image_digest == hashlib.sha256(first.image.read_bytes()).hexdigest()
    assert first.mask is not None
    assert first.mask_digest == hashlib.sha256(first.mask.file.read_bytes()).hexdigest()


def test_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, masks=False, size=(20, 30))
    turn(tmp_path / "images" / "train_000.jpg")
    assert [s.size for s in open_dataset(config).samples[:2]] == [(30, 20), (20, 30)]


def turn(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
        image.save(path, "JPEG", exif=exif)


def test_split_and_weak(tmp_path: Path) -> None:
    data = open_dataset(make_folder_tree(tmp_path, n_train=3, n_val=2))
    assert [s.id for s in data.split("val").samples] == ["val_003", "val_004"]
    assert len(data.split("test")) == 0
    weak = data.weak()
    assert {(s.mask, s.mask_digest) for s in weak.samples} == {(None, None)}
    shutil.rmtree(tmp_path / "masks")
    assert open_dataset(DataConfig(root=str(tmp_path))) == weak


def test_without_validation_images(tmp_path: Path) -> None:
    data = open_dataset(make_folder_tree(tmp_path, n_val=0))
    assert data.notes == ("no validation images: no image has the split 'val'",)
    assert len(data.split("val")) == 0


def test_torch_is_not_imported() -> None:
    check = "import sys, data, data.images; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[1])


# ---- digest


def both(data: Dataset) -> tuple[str, str]:
    return data.digest(masks=False), data.digest(masks=True)


def test_digest_does_not_depend_on_the_place(tmp_path: Path) -> None:
    before = both(open_dataset(make_folder_tree(tmp_path / "a")))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert both(open_dataset(DataConfig(root=str(tmp_path / "b")))) == before


def flip_last_byte(path: Path) -> None:
    with path.open("ab") as file:  # behind the end of a JPEG or PNG: other bytes, the same pixels
        file.write(b"\0")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def rename_image(root: Path) -> None:
    (root / "images" / "train_001.jpg").rename(root / "images" / "train_1.jpg")
    edit(root / "labels.csv", "train_001", "train_1")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: flip_last_byte(root / "images" / "train_001.jpg"),
        lambda root: edit(root / "labels.csv", "train_001.jpg,square", "train_001.jpg,disc"),
        lambda root: edit(
            root / "labels.csv", "val_006.jpg,disc;square,val", "val_006.jpg,disc;square,train"
        ),
        lambda root: edit(root / "classes.txt", "disc\nsquare", "square\ndisc"),
        rename_image,
    ],
    ids=["image", "tag", "split", "classes", "id"],
)
def test_digest_follows_what_weak_stages_read(tmp_path: Path, change: Callable[[Path], None]) -> None:
    config = make_folder_tree(tmp_path)
    before = both(open_dataset(config))
    change(tmp_path)
    after = both(open_dataset(config))
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_digest_follows_masks_only_on_request(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path)
    weak, full = both(open_dataset(config))
    assert weak != full
    flip_last_byte(tmp_path / "masks" / "train_001.png")
    changed = both(open_dataset(config))
    assert changed[0] == weak
    assert changed[1] != full
    shutil.rmtree(tmp_path / "masks")
    assert open_dataset(config).digest(masks=False) == weak


def test_digest_is_stable_between_versions(tmp_path: Path) -> None:
    """Artifacts are named by it: a change of its recipe orphans every stored result."""
    write_png(tmp_path / "images" / "ü.png", np.zeros((1, 1, 3), np.uint8))
    write_csv(tmp_path / "labels.csv", [("ü.png", "cat", "train")])
    data = open_dataset(DataConfig(root=str(tmp_path)))
    fixed = msgspec.structs.replace(data.samples[0], image_digest="0" * 64, mask_digest="1" * 64)
    data = dataclasses.replace(data, samples=(fixed,))
    zeros, ones = "0" * 64, "1" * 64
    text = f'[["cat"],[["ü",[0],"train","{zeros}"]]]'
    assert data.digest(masks=False) == hashlib.sha256(text.encode()).hexdigest()
    text = f'[["cat"],[["ü",[0],"train","{zeros}","{ones}"]]]'
    assert data.digest(masks=True) == hashlib.sha256(text.encode()).hexdigest()


# ---- masks against their images


def test_mask_of_another_size(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, size=(20, 30))
    path = tmp_path / "masks" / "train_001.png"
    write_png(path, np.zeros((10, 30), np.uint8))
    refused(
        config,
        f"{path} is 30x10 (width x height), its image 30x20 (width x height)\n",
        "1 mask(s) do not fit",
    )
    write_png(path, np.zeros((30, 20), np.uint8))
    refused(config, "is 20x30", "30x20", "remove the orientation from the image's EXIF")


def test_mask_that_does_not_follow_the_exif_rotation(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, size=(20, 30))
    turn(tmp_path / "images" / "train_001.jpg")
    refused(config, "train_001.png is 30x20", "its image 20x30", "EXIF rotation")


def test_mask_with_labels_beyond_the_classes(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, size=(20, 30))
    mask = np.zeros((20, 30), np.uint8)
    mask[0, :6] = 3, 4, 21, 254, 255, 1
    write_png(tmp_path / "masks" / "train_001.png", mask)
    refused(config, "train_001.png has labels beyond the 3 classes: 4, 21, 254\n", "labels 0..3 or 255")
    write_png(tmp_path / "masks" / "train_001.png", np.where(mask > 3, 255, mask).astype(np.uint8))
    open_dataset(config)


def test_many_masks_that_do_not_fit(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, n_train=12, n_val=0, size=(20, 30))
    for path in (tmp_path / "masks").iterdir():
        write_png(path, np.full((20, 30), 9, np.uint8))
    refused(config, "12 mask(s)", "train_009.png", "and 2 more")


# ---- files


def test_every_bad_file_is_named_at_once(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path)
    (tmp_path / "images" / "train_000.jpg").write_bytes(b"")
    whole = (tmp_path / "images" / "train_001.jpg").read_bytes()
    (tmp_path / "images" / "train_001.jpg").write_bytes(whole[:-300])
    write_png(tmp_path / "masks" / "val_006.png", make_scene([1], (36, 48), np.random.default_rng(0))[0])
    refused(
        config,
        "3 files cannot be used",
        "train_000.jpg: the file is empty",
        "train_001.jpg: damaged or truncated",
    )
    refused(config, "val_006.png: a mask holds one label per pixel", "convert it to a palette PNG")


def test_ten_bad_files_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, n_train=14, masks=False)
    for i in range(14):
        (tmp_path / "images" / f"train_{i:03d}.jpg").write_text("text")
    refused(config, "14 files", "train_009.jpg: not an image", "and 4 more")


def test_one_pixel_images(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "images" / "a.jpg", np.zeros((1, 1, 3), np.uint8))
    write_png(tmp_path / "masks" / "a.png", np.ones((1, 1), np.uint8))
    write_csv(tmp_path / "labels.csv", [("a.jpg", "cat")], ["image", "tags"])
    assert open_dataset(DataConfig(root=str(tmp_path))).samples[0].size == (1, 1)
