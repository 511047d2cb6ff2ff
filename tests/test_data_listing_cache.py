"""The remembered listing: the same data set, at once, and never one that is no longer on disk."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.listing_cache
from data import Dataset, open_dataset
from data.columns import ColumnSamples
from data.packed import Packed, read_packed, write_packed
from data.sources import read_listing
from tests.coco_trees import make_coco_tree
from wsss.config import DataConfig
from wsss.errors import UserError

Open = Callable[..., Dataset]


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    return make_coco_tree(tmp_path / "coco")


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def open_again(config: DataConfig, *, writable: bool = True) -> Dataset:
        return open_dataset(
            config, cache=tmp_path / "ws" / "c.json", listing=tmp_path / "ws" / "c.listing", writable=writable
        )

    return open_again


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data sources that were read."""
    found: list[str] = []
    read = read_listing

    def spy(config: DataConfig) -> Any:
        found.append(config.source)
        return read(config)

    monkeypatch.setattr("data.read_listing", spy)
    return found


def annotations(config: DataConfig, split: str = "train2017") -> Path:
    return Path(config.root) / "annotations" / f"instances_{split}.json"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def views(dataset: Dataset) -> list[Dataset]:
    train, val = dataset.split("train2017"), dataset.split("val2017")
    return [
        dataset,
        train,
        val,
        train.weak(),
        dataset.weak(),
        train.joined(val.weak()),
        dataset.split("none"),
    ]


def test_the_second_opening_is_the_first(config: DataConfig, opened: Open, readings: list[str]) -> None:
    plain = open_dataset(config)
    first = opened(config)
    readings.clear()
    second = opened(config)
    assert readings == []
    assert isinstance(second.samples, ColumnSamples)
    assert plain == first == second == first
    for a, b in zip(views(plain), views(second), strict=True):
        assert a.samples == b.samples
        assert b.samples == a.samples
        assert len(a) == len(b)
        assert (a.classes, a.notes) == (b.classes, b.notes)
        for masks in (False, True):
            assert a.digest(masks=masks) == b.digest(masks=masks)
        assert a.mask_digests() == b.mask_digests()


def test_masks_are_drawn_from_the_remembered_places(config: DataConfig, opened: Open) -> None:
    plain = open_dataset(config)
    opened(config)
    for a, b in zip(plain.samples, pickle.loads(pickle.dumps(opened(config).samples)), strict=True):
        assert a == b
        assert a.mask is not None
        assert b.mask is not None
        assert a.mask.part == b.mask.part
        assert np.array_equal(a.mask.read(), b.mask.read())


def test_samples_are_a_sequence(config: DataConfig, opened: Open) -> None:
    plain = tuple(open_dataset(config).samples)
    opened(config)
    samples = opened(config).samples
    assert isinstance(samples, ColumnSamples)
    assert samples[-1] == plain[-1]
    assert samples[2:7:2] == plain[2:7:2]
    assert hash(samples) == hash(plain)
    assert samples != plain[1:]
    assert samples != plain[:-1] + plain[:1]
    assert samples != "text"
    assert plain[3] in samples
    with pytest.raises(IndexError):
        samples[len(plain)]


def category(content: Any) -> None:
    content["annotations"][0]["category_id"] = 18 if content["annotations"][0]["category_id"] != 18 else 1


def test_a_changed_tag_is_seen_even_under_the_old_times(
    config: DataConfig, opened: Open, readings: list[str]
) -> None:
    file = annotations(config)
    before = file.stat()
    opened(config)
    edit(file, category)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    readings.clear()
    assert opened(config) == open_dataset(config)
    assert readings == ["coco"] * 2
    assert opened(config) == open_dataset(config)
    assert readings == ["coco"] * 3


def same_length(content: Any) -> None:
    first, second = content["annotations"][:2]
    first["category_id"], second["category_id"] = second["category_id"], first["category_id"]


def test_a_fresh_file_is_compared_by_content(
    config: DataConfig, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the same length within one tick of the clock leaves the status as it was."""
    file = annotations(config)
    edit(file, lambda _: None)
    frozen = file.stat()
    monkeypatch.setattr(data.listing_cache, "_status", lambda _: (frozen.st_size, frozen.st_mtime_ns, 0, 0))
    first = opened(config)
    assert opened(config) == first
    edit(file, same_length)
    assert file.stat().st_size == frozen.st_size
    assert opened(config) == open_dataset(config) != first


def test_an_old_file_is_not_read_and_a_copied_one_is_recognised(
    config: DataConfig, opened: Open, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.listing_cache, "_COARSE_NS", -(10**18))  # everything is old
    hashed: list[Path] = []
    source = data.listing_cache._source

    def spy(path: Path) -> data.listing_cache.Source:
        hashed.append(path)
        return source(path)

    monkeypatch.setattr(data.listing_cache, "_source", spy)
    first = opened(config)
    assert len(hashed) == 2
    opened(config)
    assert len(hashed) == 2
    file = annotations(config)
    shutil.copy(file, file.with_suffix(".copy"))
    file.with_suffix(".copy").replace(file)
    readings.clear()
    assert opened(config) == first
    assert hashed[2:] == [file]
    opened(config)
    assert hashed[2:] == [file]  # the new status was remembered
    assert readings == []


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    config: DataConfig, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.listing_cache, "_COARSE_NS", -(10**18))
    read = read_listing

    def meanwhile(config: DataConfig) -> Any:
        found = read(config)
        edit(annotations(config), same_length)
        return found

    monkeypatch.setattr("data.read_listing", meanwhile)
    opened(config)
    assert not (tmp_path / "ws" / "c.listing").exists()


def test_changed_photographs_are_checked_again_and_the_annotations_are_not_read(
    config: DataConfig, opened: Open, readings: list[str]
) -> None:
    opened(config)
    readings.clear()
    image = opened(config).samples[0].image
    image.write_bytes(image.read_bytes() + b"\0")
    changed = opened(config)
    assert readings == []
    assert changed == open_dataset(config)
    assert opened(config) == changed
    image.write_bytes(b"text")
    with pytest.raises(UserError, match="not an image"):
        opened(config)
    image.unlink()
    with pytest.raises(UserError, match="does not exist"):
        opened(config)


def remove_val(config: DataConfig) -> None:
    annotations(config, "val2017").unlink()


def another_folder(config: DataConfig) -> None:
    root = Path(config.root)
    (root / "images").mkdir()
    shutil.copytree(root / "train2017", root / "images" / "train2017")


@pytest.mark.parametrize("change", [remove_val, another_folder])
def test_files_and_folders_that_come_or_go(
    config: DataConfig, opened: Open, readings: list[str], change: Callable[[DataConfig], None]
) -> None:
    opened(config)
    change(config)
    readings.clear()
    assert opened(config) == open_dataset(config)
    assert readings == ["coco"] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("dog", "car")},
        {"train_split": "val2017", "val_split": "train2017"},
        {"val_split": "none"},
        {"masks": ""},
        {"images": "{split}"},
    ],
)
def test_other_settings_are_another_listing(
    config: DataConfig, opened: Open, readings: list[str], changes: dict[str, Any]
) -> None:
    opened(config)
    other = replace(config, **changes)
    readings.clear()
    assert opened(other) == open_dataset(other)
    assert readings == ["coco"] * 2


def test_other_code_reads_again(
    config: DataConfig, opened: Open, readings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_FORMAT", 0), ("code_digest", lambda: "other")):
        opened(config)
        readings.clear()
        monkeypatch.setattr(data.listing_cache, name, value)
        opened(config)
        opened(config)
        assert readings == ["coco"]


def test_the_digest_of_the_code_covers_the_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(data.listing_cache.__file__).parent
    copy = Path(shutil.copytree(package, tmp_path / "data"))
    monkeypatch.setattr(data.listing_cache, "__file__", str(copy / "listing_cache.py"))
    before = data.listing_cache.code_digest.__wrapped__()
    assert before == data.listing_cache.code_digest()
    (copy / "sources" / "coco.py").write_text("# changed")
    assert data.listing_cache.code_digest.__wrapped__() != before


@pytest.mark.parametrize("place", [0, 10, 45, 60, 3000, -9, -1])
def test_a_damaged_file_is_written_anew(
    config: DataConfig, opened: Open, readings: list[str], tmp_path: Path, place: int
) -> None:
    path = tmp_path / "ws" / "c.listing"
    first = opened(config)
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    spoilt[place] ^= 1
    for damaged in (bytes(spoilt), whole[:place], b"", b"text"):
        path.write_bytes(damaged)
        readings.clear()
        assert opened(config) == first
        assert readings == ["coco"]
        assert path.read_bytes() == whole
    assert sorted(file.name for file in path.parent.iterdir()) == ["c.json", "c.listing"]


def test_a_file_of_columns_that_lacks_one_is_no_listing(
    config: DataConfig, opened: Open, tmp_path: Path
) -> None:
    path = tmp_path / "ws" / "c.listing"
    first = opened(config)
    packed = read_packed(path)
    for lacking in (
        replace(packed, texts={}),
        replace(packed, numbers={}),
        replace(packed, head={"key": packed.head["key"]}),
        replace(packed, head={**packed.head, "files": [["a"]]}),
    ):
        write_packed(path, lacking)
        assert opened(config) == first
        assert read_packed(path).head == packed.head


def test_readers_write_nothing(config: DataConfig, opened: Open, readings: list[str], tmp_path: Path) -> None:
    first = opened(config, writable=False)
    assert not (tmp_path / "ws").exists()
    opened(config)
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "ws").iterdir()}
    readings.clear()
    assert opened(config, writable=False) == first
    assert readings == []
    edit(annotations(config), category)
    assert opened(config, writable=False) == open_dataset(config)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "ws").iterdir()} == written


def test_masks_in_a_folder_are_not_remembered(config: DataConfig, opened: Open, tmp_path: Path) -> None:
    (Path(config.root) / "masks").mkdir()
    opened(replace(config, masks="masks"))
    assert not (tmp_path / "ws" / "c.listing").exists()


def test_columns_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = {"a": rng.integers(-(2**60), 2**60, (7, 3)), "none": np.zeros((0, 2), np.int64)}
    texts = {"x": ["über", "", 'a"b', ""], "none": [], "one": [""]}
    write_packed(tmp_path / "f", Packed({"é": [1, None]}, numbers, texts))
    found = read_packed(tmp_path / "f")
    assert found.head == {"é": [1, None]}
    assert found.texts == texts
    assert found.numbers.keys() == numbers.keys()
    for name, array in numbers.items():
        assert np.array_equal(found.numbers[name], array)
        assert found.numbers[name].shape == array.shape
    before = (tmp_path / "f").read_bytes()
    with pytest.raises(ValueError, match="line end"):
        write_packed(tmp_path / "f", Packed({}, {}, {"x": ["a\nb"]}))
    assert (tmp_path / "f").read_bytes() == before
