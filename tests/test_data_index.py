"""The cache of checked files: it saves the decoding, and never vouches for a file that changed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import data.cache
import data.masks
from data import open_dataset
from data.images import decode_image, decode_mask
from tests.trees import make_folder_tree, write_csv
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.store.files import parse_json, write_sealed_json


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded."""
    names: list[str] = []

    def spy(decode: Callable[..., object]) -> Callable[..., object]:
        def wrapped(content: bytes, path: Path) -> object:
            names.append(path.name)
            return decode(content, path)

        return wrapped

    monkeypatch.setattr(data.cache, "decode_image", spy(decode_image))
    monkeypatch.setattr(data.masks, "decode_mask", spy(decode_mask))
    return names


def test_unchanged_files_are_not_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    config = make_folder_tree(tmp_path / "d", n_train=3, n_val=0)
    cache = tmp_path / "new" / "cache.json"
    first = open_dataset(config, cache=cache)
    assert len(decoded) == 6
    stamp = cache.stat().st_mtime_ns
    assert open_dataset(config, cache=cache) == first
    assert len(decoded) == 6
    assert cache.stat().st_mtime_ns == stamp
    assert list(cache.parent.iterdir()) == [cache]
    open_dataset(config)
    assert len(decoded) == 12


def test_a_changed_file_alone_is_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    config = make_folder_tree(tmp_path / "d")
    cache = tmp_path / "cache.json"
    first = open_dataset(config, cache=cache)
    decoded.clear()
    image, mask = tmp_path / "d/images/train_002.jpg", tmp_path / "d/masks/train_003.png"
    before = image.stat().st_mtime_ns
    image.write_bytes(image.read_bytes() + b"\0")  # another length
    os.utime(image, ns=(0, before))
    os.utime(mask, ns=(0, mask.stat().st_mtime_ns + 1))  # another time
    second = open_dataset(config, cache=cache)
    assert sorted(decoded) == ["train_002.jpg", "train_003.png"]
    assert [a.id for a, b in zip(first.samples, second.samples, strict=True) if a != b] == ["train_002"]
    assert open_dataset(config, cache=cache) == second
    assert len(decoded) == 2


def test_cached_labels_are_checked_against_the_classes_of_today(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path / "d")
    open_dataset(config, cache=tmp_path / "cache.json")
    rows = [(f"train_{i:03d}.jpg", "disc", "train") for i in range(6)]
    write_csv(tmp_path / "d" / "labels.csv", rows)
    with pytest.raises(UserError, match="labels beyond the 1 classes"):
        open_dataset(DataConfig(root=config.root, classes=("disc",)), cache=tmp_path / "cache.json")


def test_one_file_as_image_and_as_mask_is_kept_apart(tmp_path: Path, decoded: list[str]) -> None:
    config = make_folder_tree(tmp_path / "d", n_train=3, n_val=0)
    cache = tmp_path / "cache.json"
    rows = [(f"train_{i:03d}.png", name, "train") for i, name in enumerate(["disc", "square", "diamond"])]
    write_csv(tmp_path / "d" / "wrong.csv", rows)
    wrong = DataConfig(root=config.root, images="masks", masks="", labels="wrong.csv")
    open_dataset(wrong, cache=cache)
    decoded.clear()
    open_dataset(config, cache=cache)
    assert len(decoded) == 6


def spoil(*keys: str, value: object) -> Callable[[Path], None]:
    def change(cache: Path) -> None:
        stored = parse_json(cache.read_bytes())
        del stored["sha256"]
        at = stored
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value
        write_sealed_json(cache, stored)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda cache: cache.write_text(cache.read_text()[:-40]),
        lambda cache: cache.write_bytes(b"\xff\x00"),
        lambda cache: cache.write_text("[1]"),
        lambda cache: cache.write_text("[" * 100_000),
        lambda cache: cache.write_text("{}"),
        lambda cache: cache.write_text(cache.read_text().replace("1", "2", 1)),
        lambda cache: cache.write_text(cache.read_text().replace('"image:', '"imago:')),
        spoil("schema", value="other"),
        spoil("root", value="/elsewhere"),
        spoil("files", value=[]),
        spoil("files", "image:images/train_000.jpg", value=[1, 2]),
        spoil("files", "image:images/train_000.jpg", value=[1, 2, 3, 4, 5, []]),
        spoil("files", "image:images/train_000.jpg", value=[1, 2, "x", "4", 5, []]),
    ],
)
def test_a_damaged_or_foreign_cache_is_rebuilt(
    tmp_path: Path, decoded: list[str], damage: Callable[[Path], None]
) -> None:
    config = make_folder_tree(tmp_path / "d", n_train=3, n_val=0)
    cache = tmp_path / "cache.json"
    first = open_dataset(config, cache=cache)
    whole = parse_json(cache.read_bytes())
    damage(cache)
    assert open_dataset(config, cache=cache) == first
    assert len(decoded) == 12
    mended = parse_json(cache.read_bytes())
    assert mended.keys() == whole.keys()
    assert len(mended["files"]) == 6


def test_facts_survive_a_bad_file(tmp_path: Path, decoded: list[str]) -> None:
    config = make_folder_tree(tmp_path / "d", n_train=3, n_val=0)
    bad = tmp_path / "d" / "images" / "train_001.jpg"
    good = bad.read_bytes()
    bad.write_text("text")
    with pytest.raises(UserError, match="train_001"):
        open_dataset(config, cache=tmp_path / "cache.json")
    bad.write_bytes(good)
    decoded.clear()
    open_dataset(config, cache=tmp_path / "cache.json")
    assert decoded == ["train_001.jpg"]


def test_an_unwritable_cache_is_refused_before_the_work(tmp_path: Path, decoded: list[str]) -> None:
    config = make_folder_tree(tmp_path / "d")
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file" / "cache.json", tmp_path / "d"):
        with pytest.raises(UserError) as caught:
            open_dataset(config, cache=cache)
        assert f"{cache}: the cache of checked files cannot be written" in str(caught.value)
        assert "name a file in a folder" in str(caught.value)
    assert decoded == []


def test_the_disk_fills_up_while_the_cache_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_folder_tree(tmp_path / "d")
    cache = tmp_path / "c" / "cache.json"
    open_dataset(config, cache=cache)
    before = cache.read_bytes()
    os.utime(tmp_path / "d" / "images" / "train_000.jpg", ns=(0, 0))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        open_dataset(config, cache=cache)
    assert cache.read_bytes() == before
    assert list(cache.parent.iterdir()) == [cache]


def test_progress_bar_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_folder_tree(tmp_path)
    open_dataset(config)
    assert capsys.readouterr().err == ""
    open_dataset(config, progress=True)
    assert "checking files: 100%" in capsys.readouterr().err


def test_a_file_that_vanishes_after_it_was_listed(tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    with pytest.raises(UserError, match=r"gone\.jpg: cannot be read"):
        data.cache.index_files([gone], [], root=tmp_path, cache=None, progress=False)
