"""Files that are whole or not there: seals, JSON, locks on all kinds of file systems, remains of dead processes."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsss.runtime import interrupt
from wsss.store.files import (
    atomic_path,
    digest_of,
    exclusive,
    is_kept,
    is_locked,
    is_sealed,
    is_temporary,
    parse_json,
    remove_remains,
    seal,
    temporary_path,
    write_json,
    write_sealed_json,
)


def sealed_bytes(path: Path) -> None:
    path.write_bytes(bytes(range(200)))
    assert not is_sealed(path)
    seal(path)


def sealed_json(path: Path) -> None:
    write_sealed_json(path, {"a": [1, 2.5, None, "größer"], "b": {}})


@pytest.mark.parametrize("write", [sealed_bytes, sealed_json])
def test_a_seal_holds_until_a_bit_changes(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "f"
    write(path)
    whole = path.read_bytes()
    assert is_sealed(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not is_sealed(path), place
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not is_sealed(path), length


def test_sealed_json_is_json_for_everybody(tmp_path: Path) -> None:
    values = {"a": [1, 2.5, None, "größer"], "b": {"c": np.float64(0.1)}, "d": float("nan")}
    write_sealed_json(tmp_path / "a.json", values)
    stored = json.loads((tmp_path / "a.json").read_bytes())
    assert list(stored) == ["a", "b", "d", "sha256"]
    assert stored == parse_json((tmp_path / "a.json").read_bytes())
    assert (stored["a"], stored["b"], stored["d"]) == ([1, 2.5, None, "größer"], {"c": 0.1}, None)
    write_json(tmp_path / "b.json", values)
    assert json.loads((tmp_path / "b.json").read_bytes())["a"] == values["a"]


def test_a_damaged_file_is_set_aside_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    assert not is_kept(path, "it is made again")
    write_sealed_json(path, {"x": 1})
    assert is_kept(path, "it is made again")
    assert capsys.readouterr().err == ""
    path.write_text('{"x": 2}')
    assert not is_kept(path, "it is made again")
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("a.json.damaged-")
    assert aside.read_text() == '{"x": 2}'
    said = capsys.readouterr().err
    assert str(path) in said
    assert aside.name in said
    assert "it is made again" in said


@pytest.mark.parametrize("content", [b"[" * 100_000, b"9" * 5000, b"\xff", b"", b"{", b"NaN"])
def test_bad_json_is_always_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)


def test_equal_values_have_equal_digests() -> None:
    assert digest_of({"a": (1, 2), "b": {"d": 0.1, "c": "ü"}}) == digest_of(
        {"b": {"c": "ü", "d": 0.1}, "a": [1, 2]}
    )
    assert digest_of([1, 2]) != digest_of([2, 1])
    assert int(digest_of({}), 16) >= 0
    assert len(digest_of({})) == 16


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


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127 + "x", "😀" * 63])
def test_names_as_long_as_can_be_are_written(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as path:
        assert is_temporary(path)
        path.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_remains_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    own = temporary_path(tmp_path / "a")
    dead = own.with_name(own.name.replace(f"tmp-{os.getpid()}.", f"tmp-{int(child.stdout)}."))
    elsewhere = dead.with_name(f"{dead.name}x")
    for path in (own, dead, elsewhere, tmp_path / "b.tmp-x"):
        path.write_text("")
    remove_remains(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([own.name, elsewhere.name, "b.tmp-x"])


def flock_fails(number: int) -> Callable[[int, int], None]:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.fixture(params=[0, errno.ENOLCK, errno.EINVAL], ids=["locks", "none", "not known"])
def any_file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One with locks, and the ways in which others say that they have none."""
    if request.param:
        monkeypatch.setattr(fcntl, "flock", flock_fails(request.param))
    return int(request.param)


def test_a_file_system_without_locks_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock_fails(errno.ENOSYS))
    for folder in ("a", "b"):
        with exclusive(tmp_path / folder / "c"):
            pass
    assert capsys.readouterr().err.count("has no locks") == 1


def test_a_lock_lets_one_in_at_a_time_and_leaves_no_file(tmp_path: Path, any_file_system: int) -> None:
    inside, most = [0], [0]
    waits: list[str] = []

    def work() -> None:
        for _ in range(5):
            with exclusive(tmp_path / "a", waits.append):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.002)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert set(waits) == {str(tmp_path / "a.lock")}
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_wait_is_told_that_it_is_locked(tmp_path: Path, any_file_system: int) -> None:
    assert not is_locked(tmp_path / "a")
    with exclusive(tmp_path / "a"):
        assert is_locked(tmp_path / "a")
        with pytest.raises(BlockingIOError), exclusive(tmp_path / "a"):
            pass
        assert (tmp_path / "a.lock").exists()
    assert not is_locked(tmp_path / "a")


def hold(path: Path, held: Path, number: int) -> None:
    if number:
        fcntl.flock = flock_fails(number)  # type: ignore[assignment]
    with exclusive(path):
        held.touch()
        time.sleep(300)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, errno.ENOLCK])
def test_a_wait_can_be_interrupted_and_ends_with_the_process_that_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path, held = tmp_path / "a.h5", tmp_path / "held"
    child = multiprocessing.get_context("spawn").Process(target=hold, args=(path, held, number))
    child.start()
    while not held.exists():
        assert child.is_alive()
        time.sleep(0.01)
    if number:
        monkeypatch.setattr(fcntl, "flock", flock_fails(number))
    ask = threading.Timer(0.3, monkeypatch.setattr, (interrupt, "_requested", True))
    with pytest.raises(interrupt.Interrupted), exclusive(path, lambda _: ask.start()):
        pass
    assert child.is_alive()
    monkeypatch.setattr(interrupt, "_requested", False)
    assert child.pid is not None
    kill = threading.Timer(0.3, os.kill, (child.pid, signal.SIGKILL))
    reap = threading.Thread(target=child.join)  # else its number stays taken

    def waiting(_lock: str) -> None:
        kill.start()
        reap.start()

    with exclusive(path, waiting):
        reap.join()
    assert [item.name for item in tmp_path.iterdir()] == ["held"]
