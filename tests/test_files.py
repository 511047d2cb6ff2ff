"""Files that are whole or not there: seals, checksums in JSON, locks, remains of dead processes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wsss.store.files import (
    atomic_path,
    exclusive,
    is_sealed,
    is_temporary,
    remove_remains,
    seal,
    set_aside,
    temporary_path,
)
from wsss.store.json_files import parse_json, parse_sealed, sealed_json


def test_a_seal_holds_until_a_bit_changes(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(range(200)))
    assert not is_sealed(path)
    seal(path)
    whole = path.read_bytes()
    assert is_sealed(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not is_sealed(path), place
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not is_sealed(path), length


def test_sealed_json_holds_until_a_byte_changes() -> None:
    value = {"a": [1, 2.5, None, "größer"], "b": {}}
    text = sealed_json(value).encode()
    assert parse_sealed(text) == value == parse_json(text)["content"]
    for place in range(len(text)):
        with pytest.raises(ValueError, match=r"."):
            parse_sealed(text[:place] + bytes([text[place] ^ 4]) + text[place + 1 :])


@pytest.mark.parametrize("content", [b"[" * 100_000, b"9" * 5000, b"\xff", b"", b"{"])
def test_bad_json_is_always_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(content)


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
    assert is_temporary(own)
    assert not is_temporary(tmp_path / "b.tmp-x")


def test_a_lock_leaves_no_file_and_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(30):
            with exclusive(tmp_path / "a", lambda: None):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127 + "x", "😀" * 63])
def test_names_as_long_as_can_be_are_written(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as path:
        assert is_temporary(path)
        path.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_set_aside_keeps_the_content(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as path:
        path.write_text("x")
    aside = set_aside(tmp_path / "a")
    assert aside.read_text() == "x"
    assert not (tmp_path / "a").exists()
