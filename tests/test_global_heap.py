"""Texts in artifacts: of fixed length as they are written, of any length as older versions wrote them."""

from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from tests.test_artifacts import STAMP
from wsss.store.artifacts import Artifact, DamagedArtifactError, write_artifact
from wsss.store.global_heap import never_ends


def older(path: Path) -> bytearray:
    """An artifact as older versions wrote it, its texts in one heap."""
    with h5py.File(path, "w") as file:
        for key, value in {"stage": "cams", "fingerprint": "f" * 16, "classes": '["cät"]'}.items():
            file.attrs[key] = value
        file.create_dataset("ids", data=["ü", "b"], dtype=h5py.string_dtype("utf-8"))
    return bytearray(path.read_bytes())


def _free_space(content: bytes | bytearray) -> int:
    """Where the size of the free space of the first collection is."""
    place = content.index(b"GCOL") + 16
    while int.from_bytes(content[place : place + 2], "little"):
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
    return place + 8


def test_what_is_written_has_no_heap(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_artifact(path, STAMP, images=[])
    assert b"GCOL" not in path.read_bytes()


def test_older_artifacts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    older(path)
    assert not never_ends(path)
    artifact = Artifact(path)
    assert (artifact.stage, artifact.classes, artifact.ids) == ("cams", ("cät",), ("ü", "b"))


@pytest.mark.parametrize("size", [0, 2**64 - 16])
def test_a_heap_that_hdf5_would_go_round_in_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.h5"
    content = older(path)
    place = _free_space(content)
    if size:  # of an object: its header and this are nothing together
        content[place - 8] = 9
    content[place : place + 8] = size.to_bytes(8, "little")
    path.write_bytes(content)
    assert never_ends(path)
    with pytest.raises(DamagedArtifactError, match="heap"):
        Artifact(path)


def test_a_collection_at_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for content in (b"GCOL\x01\0\0\0", b"GCOL\x01\0\0\0" + b"\xff" * 8, b"GCOL\x01\0\0\0" + b"\xff" * 20):
        path.write_bytes(content)
        assert not never_ends(path)


def test_long_texts_are_kept(tmp_path: Path) -> None:
    classes = tuple(f"{'ü' * 200} {number}" for number in range(254))  # more than 64 KiB in one attribute
    write_artifact(tmp_path / "a.h5", replace(STAMP, classes=classes), images=[])
    assert Artifact(tmp_path / "a.h5").classes == classes
