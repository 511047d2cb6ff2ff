"""Masks and the memory of checked files: it saves the reading, and never vouches for a file that changed."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import Dataset, open_dataset
from data.cache import Memory, check_files, checked_images, stamps_of
from data.masks import Mask, PngMask, TranslatedPng
from tests.trees import make_folder_tree, refused, write_csv, write_png
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.store.files import parse_json, write_sealed_json

VALUES = np.array([[0, 7, 255], [7, 33, 1]], np.uint8)
TABLE = bytes(1 if value == 7 else 19 if value == 33 else 255 for value in range(256))


def spoil(*paths: Path) -> None:
    """Other bytes, but the same length and time of change: whoever reads such a file again will complain."""
    for path in paths:
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(0, status.st_mtime_ns))


def pictures(root: Path) -> list[Path]:
    return [*sorted((root / "images").iterdir()), *sorted((root / "masks").iterdir())]


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path / "d", n_train=3, n_val=0)
    cache = tmp_path / "new" / "cache.json"
    first = open_dataset(config, cache=cache)
    written = cache.stat().st_mtime_ns
    spoil(*pictures(tmp_path / "d"))
    assert open_dataset(config, cache=cache) == first
    assert cache.stat().st_mtime_ns == written
    assert list(cache.parent.iterdir()) == [cache]
    refused(config, "6 files cannot be used")


def test_a_changed_file_alone_is_read_again(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path / "d")
    cache = tmp_path / "cache.json"
    first = open_dataset(config, cache=cache)
    image, mask = tmp_path / "d/images/train_002.jpg", tmp_path / "d/masks/train_003.png"
    spoil(*(path for path in pictures(tmp_path / "d") if path not in (image, mask)))
    before = image.stat().st_mtime_ns
    image.write_bytes(image.read_bytes() + b"\0")  # another length
    os.utime(image, ns=(0, before))
    os.utime(mask, ns=(0, mask.stat().st_mtime_ns + 1))  # another time
    second = open_dataset(config, cache=cache)
    assert [a.id for a, b in zip(first.samples, second.samples, strict=True) if a != b] == ["train_002"]
    spoil(image, mask)
    assert open_dataset(config, cache=cache) == second


def test_remembered_labels_are_checked_against_the_classes_of_today(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path / "d")
    open_dataset(config, cache=tmp_path / "cache.json")
    write_csv(tmp_path / "d" / "labels.csv", [(f"train_{i:03d}.jpg", "disc", "train") for i in range(6)])
    with pytest.raises(UserError, match="labels beyond the 1 classes"):
        open_dataset(DataConfig(root=config.root, classes=("disc",)), cache=tmp_path / "cache.json")


def test_one_file_as_image_and_as_mask_is_kept_apart(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path / "d", n_train=3, n_val=0)
    rows = [(f"train_{i:03d}.png", name, "train") for i, name in enumerate(["disc", "square", "diamond"])]
    write_csv(tmp_path / "d" / "wrong.csv", rows)
    wrong = DataConfig(root=config.root, images="masks", masks="", labels="wrong.csv")
    open_dataset(wrong, cache=tmp_path / "cache.json")
    assert open_dataset(config, cache=tmp_path / "cache.json") == open_dataset(config)


def rewritten(**changes: object) -> Callable[[Path], None]:
    def change(cache: Path) -> None:
        stored = {**parse_json(cache.read_bytes()), **changes}
        stored.pop("sha256")
        write_sealed_json(cache, stored)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda cache: cache.write_text(cache.read_text()[:-40]),
        lambda cache: cache.write_text(cache.read_text().replace("1", "2", 1)),
        lambda cache: cache.write_bytes(b""),
        lambda cache: cache.write_text("[1]"),
        rewritten(type="wsss-index-1"),
        rewritten(files=[]),
        rewritten(files={"image:images/train_000.jpg": [1, 2]}),
    ],
)
def test_a_damaged_or_foreign_memory_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    config = make_folder_tree(tmp_path / "d", n_train=3, n_val=0)
    cache = tmp_path / "cache.json"
    first = open_dataset(config, cache=cache)
    damage(cache)
    assert open_dataset(config, cache=cache) == first
    spoil(*pictures(tmp_path / "d"))
    assert open_dataset(config, cache=cache) == first


def test_what_is_known_survives_a_bad_file(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path / "d", n_train=3, n_val=0)
    bad = tmp_path / "d" / "images" / "train_001.jpg"
    good = bad.read_bytes()
    bad.write_text("text")
    with pytest.raises(UserError, match="train_001"):
        open_dataset(config, cache=tmp_path / "cache.json")
    bad.write_bytes(good)
    spoil(*(path for path in pictures(tmp_path / "d") if path != bad))
    assert len(open_dataset(config, cache=tmp_path / "cache.json")) == 3


def test_nothing_is_written_where_that_is_not_allowed(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path / "d")
    assert isinstance(open_dataset(config, cache=tmp_path / "cache.json", writable=False), Dataset)
    assert not (tmp_path / "cache.json").exists()


def test_progress_bar_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_folder_tree(tmp_path)
    open_dataset(config)
    assert capsys.readouterr().err == ""
    open_dataset(config, progress=True)
    assert "checking files: 100%" in capsys.readouterr().err


# ---- masks


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_png(tmp_path / "m.png", VALUES)
    return tmp_path / "m.png"


def test_a_png_is_its_own_labels(file: Path) -> None:
    mask = PngMask(file)
    np.testing.assert_array_equal(mask.read(), VALUES)
    facts = mask.examine()
    assert facts.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (facts.size, facts.labels, str(mask)) == ((2, 3), (0, 1, 7, 33, 255), str(file))


def test_a_translated_png(file: Path) -> None:
    mask = TranslatedPng(file, TABLE)
    assert mask.read().tolist() == [[255, 1, 255], [1, 19, 255]]
    assert mask.read().flags.writeable
    facts = mask.examine()
    assert (facts.size, facts.labels, str(mask)) == ((2, 3), (1, 19, 255), str(file))
    assert facts.digest != TranslatedPng(file, bytes(256)).examine().digest
    assert facts.digest != PngMask(file).examine().digest


def test_masks_travel_to_other_processes(file: Path) -> None:
    for mask in (PngMask(file), TranslatedPng(file, TABLE)):
        again = pickle.loads(pickle.dumps(mask))
        assert again == mask
        assert hash(again) == hash(mask)
        np.testing.assert_array_equal(again.read(), mask.read())


def test_two_readings_of_one_file_keep_their_own_facts(file: Path, tmp_path: Path) -> None:
    items: list[str | Mask] = [
        str(file), PngMask(file), TranslatedPng(file, TABLE), TranslatedPng(file, bytes(256)),
    ]  # fmt: skip
    memory = Memory(tmp_path / "c.json")
    for _ in range(2):  # the second time from memory
        found = check_files(items, stamps_of(items), memory=memory)
        assert [facts.labels for facts in found] == [(), (0, 1, 7, 33, 255), (1, 19, 255), (0,)]
    assert checked_images(memory) == [str(file)]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for mask in (PngMask(tmp_path / "no.png"), TranslatedPng(tmp_path / "no.png", TABLE)):
        with pytest.raises(UserError, match=r"no\.png: cannot be read"):
            mask.read()
        with pytest.raises(UserError, match=r"no\.png: cannot be read"):
            check_files([mask], stamps_of([mask]))
