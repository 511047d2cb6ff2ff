"""Masks as values: they travel, they read themselves, and their facts say what they rely on."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from data.cache import index_files
from data.masks import Mask, PngMask, TranslatedPng
from tests.trees import write_png
from wsss.errors import UserError

VALUES = np.array([[0, 7, 255], [7, 33, 1]], np.uint8)
TABLE = bytes(1 if value == 7 else 19 if value == 33 else 255 for value in range(256))


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
    masks: list[Mask] = [PngMask(file), TranslatedPng(file, TABLE), TranslatedPng(file, bytes(256))]
    for _ in range(2):  # the second time from the cache
        found = index_files([file], masks, root=tmp_path, cache=tmp_path / "c.json", progress=False)
        assert [found[mask].labels for mask in masks] == [(0, 1, 7, 33, 255), (1, 19, 255), (0,)]
        assert found[file].labels == ()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for mask in (PngMask(tmp_path / "no.png"), TranslatedPng(tmp_path / "no.png", TABLE)):
        with pytest.raises(UserError, match=r"no\.png: cannot be read"):
            mask.examine()
        with pytest.raises(UserError, match=r"no\.png: cannot be read"):
            mask.read()
