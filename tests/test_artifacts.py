"""Artifacts: round trips, atomicity, shards, resuming, damage, and bit-equal files."""

import errno
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.runtime import interrupt
from wsss.store.artifacts import Arrays, Artifact, DamagedArtifactError, Stamp, write_artifact, write_sharded
from wsss.store.files import atomic_path, exclusive
from wsss.store.json_files import canonical_json

ROOT = Path(__file__).parent.parent

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
    }
    prints = {replace(STAMP, **{key: value}).fingerprint for key, value in changes.items()}  # type: ignore[arg-type]
    assert len(prints | {STAMP.fingerprint}) == len(changes) + 1
    assert replace(STAMP, software={"torch": "9"}).fingerprint == STAMP.fingerprint
    reordered = replace(STAMP, config={"flip": True, "scales": [1.0, 0.5]})
    assert reordered.fingerprint == STAMP.fingerprint
    assert len(STAMP.fingerprint) == 16
    assert int(STAMP.fingerprint, 16) >= 0


def test_canonical_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


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


def test_an_interrupted_stage_goes_on_after_its_last_whole_shard(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    asked: list[str] = []

    def failing(ids: Sequence[str]) -> Iterator[Arrays]:
        for image_id in ids:
            if image_id == IDS[3]:
                raise KeyboardInterrupt
            asked.append(image_id)
            yield maps_of(image_id)

    with pytest.raises(KeyboardInterrupt):
        write_sharded(path, STAMP, IDS, failing, shard_size=2)
    assert not path.exists()
    assert asked == IDS[:3]

    def recording(ids: Sequence[str]) -> Iterator[Arrays]:
        for image_id in ids:
            asked.append(image_id)
            yield maps_of(image_id)

    asked.clear()
    done: list[int] = []
    write_sharded(path, STAMP, IDS, recording, shard_size=2, done=done.append)
    assert asked == IDS[2:]
    assert sum(done) == len(IDS)
    write_sharded(tmp_path / "y.h5", STAMP, IDS, produce, shard_size=2)
    assert path.read_bytes() == (tmp_path / "y.h5").read_bytes()


def test_shards_of_other_settings_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"

    def first_only(ids: Sequence[str]) -> Iterator[Arrays]:
        if IDS[0] not in ids:
            raise KeyboardInterrupt
        yield from produce(ids)

    with pytest.raises(KeyboardInterrupt):
        write_sharded(path, replace(STAMP, seed=99), IDS, first_only, shard_size=2)
    asked: list[str] = []

    def recording(ids: Sequence[str]) -> Iterator[Arrays]:
        asked.extend(ids)
        return produce(ids)

    write_sharded(path, STAMP, IDS, recording, shard_size=2)
    assert asked == IDS
    assert Artifact(path).fingerprint == STAMP.fingerprint


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, Arrays]]:
        yield "a", maps_of("a")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        write_artifact(tmp_path / "a.h5", STAMP, images=broken())
    assert list(tmp_path.iterdir()) == []


def test_an_atomic_path_keeps_the_old_file_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"):
        fail_half_way()
    assert path.read_text() == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["f"]


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


def test_a_flipped_bit_in_the_pixels_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    array = np.arange(1000, dtype=np.float32)
    write_artifact(path, STAMP, images=[("i", {"maps": array})])
    whole = bytearray(path.read_bytes())
    place = bytes(whole).index(array[500:502].tobytes())
    whole[place] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(DamagedArtifactError, match="maps/000000"):
        Artifact(path).read("i", "maps")


def test_another_fingerprint_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a.h5", STAMP)
    with pytest.raises(DamagedArtifactError, match="0000000000000000"):
        Artifact(tmp_path / "a.h5", fingerprint="0" * 16)


def read_in_child(artifact: Artifact) -> float:
    return float(artifact.read(IDS[1], "maps").sum())


def check_readers(path: Path, method: str) -> None:
    artifact = Artifact(path)
    wanted = read_in_child(artifact)  # the parent's handle is open now
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_in_child, [artifact] * 4) == [wanted] * 4
    assert pickle.loads(pickle.dumps(artifact)).ids == artifact.ids


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_work_in_worker_processes(tmp_path: Path, method: str) -> None:
    """In an interpreter of its own: a fork of this one would take over the locks of threads of other tests."""
    write_artifact(tmp_path / "a.h5", STAMP, images=[(i, maps_of(i)) for i in IDS])
    code = (
        "import sys; from pathlib import Path; from tests.test_artifacts import check_readers; "
        "check_readers(Path(sys.argv[1]), sys.argv[2])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.h5"), method], check=True, cwd=ROOT, timeout=120
    )


def hold(path: Path, held: str) -> None:
    with exclusive(path, lambda: None):
        Path(held).touch()
        time.sleep(60)


def test_waiting_for_a_lock_heeds_a_request_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, held = tmp_path / "a.h5", tmp_path / "held"
    child = multiprocessing.get_context("spawn").Process(target=hold, args=(path, str(held)))
    child.start()
    while not held.exists():
        assert child.is_alive()
        time.sleep(0.01)
    ask = threading.Timer(0.3, monkeypatch.setattr, (interrupt, "_requested", True))
    with pytest.raises(interrupt.Interrupted), exclusive(path, ask.start):
        pass
    assert child.is_alive()
    child.kill()
    child.join()


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_artifact(path, STAMP, images=zip(IDS, map(maps_of, IDS), strict=True))
    whole = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # the next file would get a number above this one
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="not a whole artifact") as caught:
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


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path, held = tmp_path / "a.h5", tmp_path / "held"
    child = multiprocessing.get_context("spawn").Process(target=hold, args=(path, str(held)))
    child.start()
    while not held.exists():
        assert child.is_alive()
        time.sleep(0.01)
    waited: list[bool] = []

    def waiting() -> None:
        waited.append(True)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    with exclusive(path, waiting):
        assert waited == [True]
    child.join()
