"""Artifacts: round trips, atomicity, shards, resuming, damage, and bit-equal files."""

import contextlib
import errno
import fcntl
import os
import pickle
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.store.artifacts import (
    Arrays,
    Artifact,
    DamagedArtifactError,
    Stamp,
    verify,
    write_artifact,
    write_sharded,
)
from wsss.store.files import is_sealed

STAMP = Stamp(
    stage="cams",
    version=1,
    seed=3,
    data="d",
    config={"scales": [1.0, 0.5], "flip": True},
    inputs={"classify": "0123456789abcdef"},
    classes=("cat", "größer als", "a;b"),
)
IDS = ["2007_000032", "with space", "ünï/code", "a.b", ".", "x" * 200]


def maps_of(image_id: str) -> Arrays:
    random = np.random.default_rng(len(image_id))
    return {
        "maps": random.random((2, 5, 4)).astype(np.float16),
        "classes": np.array([0, 2], np.uint8),
    }


def produce(ids: Sequence[str]) -> Iterator[Arrays]:
    for image_id in ids:
        yield maps_of(image_id)


def test_fingerprint_depends_on_everything_that_matters_and_on_nothing_else() -> None:
    changes = {
        "stage": "x",
        "version": 2,
        "seed": 4,
        "data": "e",
        "config": {"scales": [1.0], "flip": True},
        "inputs": {"classify": "f" * 16},
        "precision": "bf16",
    }
    prints = {replace(STAMP, **{key: value}).fingerprint for key, value in changes.items()}  # type: ignore[arg-type]
    assert len(prints | {STAMP.fingerprint}) == len(changes) + 1
    assert replace(STAMP, software={"torch": "9"}).fingerprint == STAMP.fingerprint
    reordered = replace(STAMP, config={"flip": True, "scales": [1.0, 0.5]})
    assert reordered.fingerprint == STAMP.fingerprint
    assert len(STAMP.fingerprint) == 16
    assert int(STAMP.fingerprint, 16) >= 0


def test_round_trip_of_images_and_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    weights = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.asarray(7)}
    write_artifact(path, STAMP, groups={"network": weights}, images=[(i, maps_of(i)) for i in IDS])
    artifact = Artifact(path, fingerprint=STAMP.fingerprint)
    assert artifact.ids == tuple(IDS)
    assert artifact.classes == STAMP.classes
    assert artifact.stage == "cams"
    for image_id in IDS:
        for name, array in maps_of(image_id).items():
            got = artifact.read(image_id, name)
            assert got.dtype == array.dtype
            assert np.array_equal(got, array)
    got_weights = artifact.group("network")
    assert np.array_equal(got_weights["conv.weight"], weights["conv.weight"])
    assert int(got_weights["n"]) == 7
    assert "with space" in artifact
    assert "other" not in artifact
    sent = pickle.loads(pickle.dumps(artifact))  # as to a worker process
    assert np.array_equal(sent.read(IDS[1], "maps"), maps_of(IDS[1])["maps"])


@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 1, 1), ()])
def test_empty_and_tiny_arrays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, np.float16)
    write_artifact(tmp_path / "a.h5", STAMP, images=[("i", {"maps": array})])
    got = Artifact(tmp_path / "a.h5").read("i", "maps")
    assert got.shape == shape
    assert got.dtype == np.float16


@given(shard_size=st.integers(1, 9), count=st.integers(0, 6))
@settings(max_examples=15)
def test_sharded_files_equal_whatever_the_shard_size_holds(
    tmp_path_factory: pytest.TempPathFactory, shard_size: int, count: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write_sharded(folder / "a.h5", STAMP, IDS[:count], produce, shard_size=shard_size)
    artifact = Artifact(folder / "a.h5")
    assert artifact.ids == tuple(IDS[:count])
    for image_id in artifact.ids:
        assert np.array_equal(artifact.read(image_id, "maps"), maps_of(image_id)["maps"])
    assert sorted(item.name for item in folder.iterdir()) == ["a.h5"]


def test_equal_content_is_an_equal_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_sharded(tmp_path / name / "x.h5", STAMP, IDS, produce, shard_size=2)
        time.sleep(1.1 if name == "a" else 0)  # a stored time in seconds would show
    assert (tmp_path / "a" / "x.h5").read_bytes() == (tmp_path / "b" / "x.h5").read_bytes()


def write_recording(path: Path, stop_at: str = "", stamp: Stamp = STAMP) -> tuple[list[str], int]:
    """Write in shards of two until an image is asked for; which were, and how many were told of as done."""
    asked: list[str] = []
    done: list[int] = []

    def recording(ids: Sequence[str]) -> Iterator[Arrays]:
        for image_id in ids:
            if image_id == stop_at:
                raise KeyboardInterrupt
            asked.append(image_id)
            yield maps_of(image_id)

    with contextlib.suppress(KeyboardInterrupt):
        write_sharded(path, stamp, IDS, recording, shard_size=2, done=done.append)
    return asked, sum(done)


def test_an_interrupted_stage_resumes_after_its_last_whole_shard(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    assert write_recording(path, stop_at=IDS[5]) == (IDS[:5], 5)
    assert not path.exists()
    assert write_recording(path) == (IDS[4:], len(IDS))
    write_sharded(tmp_path / "y.h5", STAMP, IDS, produce, shard_size=2)
    assert path.read_bytes() == (tmp_path / "y.h5").read_bytes()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["x.h5", "y.h5"]


@pytest.mark.parametrize("damaged", [True, False])
def test_damaged_shards_and_those_of_other_settings_are_computed_again(tmp_path: Path, damaged: bool) -> None:
    path = tmp_path / "x.h5"
    write_recording(path, stop_at=IDS[4], stamp=STAMP if damaged else replace(STAMP, seed=99))
    first, second = sorted(path.with_name("x.h5.parts").iterdir())
    assert is_sealed(first)
    if damaged:
        second.write_bytes(second.read_bytes()[:-100])
    assert write_recording(path)[0] == (IDS[2:] if damaged else IDS)
    verify(path, STAMP.fingerprint)


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, Arrays]]:
        yield "a", maps_of("a")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        write_artifact(tmp_path / "a.h5", STAMP, images=broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "foreign"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.h5"
    write_artifact(path, STAMP, images=[(i, maps_of(i)) for i in IDS])
    if damage == "foreign":
        with h5py.File(path, "w") as file:
            file["x"] = 1
    else:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(DamagedArtifactError, match=r"a\.h5"):
        Artifact(path)


def test_groups_are_made_of_the_shards(tmp_path: Path) -> None:
    def summed(shards: Sequence[Artifact]) -> dict[str, Arrays]:
        maps = [shard.read(i, "maps").astype(np.float64) for shard in shards for i in shard.ids]
        return {"all": {"sum": np.asarray(np.sum(maps)), "count": np.asarray(len(shards))}}

    write_sharded(tmp_path / "x.h5", STAMP, IDS, produce, groups=summed, shard_size=4)
    found = Artifact(tmp_path / "x.h5").group("all")
    wanted = sum(maps_of(image_id)["maps"].astype(np.float64).sum() for image_id in IDS)
    assert float(found["sum"]) == pytest.approx(wanted)
    assert int(found["count"]) == 2


def foreign(path: Path, ids: object = None, **attributes: object) -> None:
    """An artifact of somebody else's, with these things in place of the program's, and an empty network."""
    texts = {"stage": "cams", "fingerprint": "f" * 16, "classes": "[]"}
    with h5py.File(path, "w") as file:
        for key, value in ({key: np.bytes_(text) for key, text in texts.items()} | attributes).items():
            file.attrs[key] = value
        file["ids"] = np.array([b"a"]) if ids is None else ids
        file.create_group("network")


def test_what_the_program_does_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    foreign(path)
    assert Artifact(path).ids == ("a",)
    for texts in ({"stage": "of variable length"}, {"classes": 7}):
        foreign(path, **texts)
        with pytest.raises(DamagedArtifactError, match="fixed length"):
            Artifact(path)
    foreign(path, ids=["of variable length"])
    with pytest.raises(DamagedArtifactError, match="fixed length"):
        _ = Artifact(path).ids
    elsewhere = h5py.VirtualLayout((4,), "f4")
    elsewhere[:] = h5py.VirtualSource(tmp_path / "b.h5", "x", (4,))
    huge = {"shape": (1 << 20, 1 << 10), "dtype": "f8", "chunks": (1 << 10, 1 << 10), "compression": "gzip"}
    external = {"shape": (4,), "dtype": "f4", "external": [(str(tmp_path / "c"), 0, 16)]}
    for content in (elsewhere, huge, external, {"data": np.array([b"text"])}, None):
        foreign(path)
        with h5py.File(path, "r+") as file:
            group = file["network"]
            if isinstance(content, dict):
                group.create_dataset("x", **content)
            elif content is None:
                group.create_group("x")
            else:
                group.create_virtual_dataset("x", content)
        with pytest.raises(DamagedArtifactError, match="network/x cannot be read"):
            Artifact(path).group("network")


def test_what_is_written_has_no_heap_of_texts(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a.h5", STAMP, images=[(i, maps_of(i)) for i in IDS])
    assert b"GCOL" not in (tmp_path / "a.h5").read_bytes()


def test_long_texts_are_kept(tmp_path: Path) -> None:
    classes = tuple(f"{'ü' * 200} {number}" for number in range(254))  # more than 64 KiB in one attribute
    write_artifact(tmp_path / "a.h5", replace(STAMP, classes=classes), images=[])
    assert Artifact(tmp_path / "a.h5").classes == classes


def test_reading_takes_no_lock(tmp_path: Path) -> None:
    """Some file systems have none, and HDF5 would refuse to open a file there."""
    write_artifact(tmp_path / "a.h5", STAMP, images=[(i, maps_of(i)) for i in IDS])
    with (tmp_path / "a.h5").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert Artifact(tmp_path / "a.h5").read(IDS[0], "maps").shape == (2, 5, 4)


def test_another_fingerprint_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a.h5", STAMP)
    with pytest.raises(DamagedArtifactError, match="0000000000000000"):
        Artifact(tmp_path / "a.h5", fingerprint="0" * 16)


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_artifact(path, STAMP, images=zip(IDS, map(maps_of, IDS), strict=True))
    whole = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # the next file would get a number above this one
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match=r"a\.h5") as caught:
            Artifact(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(lowest)
    assert caught.value.errno == errno.EMFILE
    assert path.read_bytes() == whole
    reader = Artifact(path)
    reader.close()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.h5"):
        reader.read(IDS[0], "maps")
