"""Streaming of large JSON files: every entry with its bytes, whatever the window, and clear refusals."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import data.json_stream
from data.json_stream import stream_items
from wsss.errors import UserError

CONTENT: dict[str, Any] = {
    "info": {"images": [1, 2], "text": 'a ] } , " \\ end'},
    "images": [{"name": "ü/日本.jpg", "n": 1.5}, {"name": "plain", "deep": [[1, [2]], {}]}],
    "skipped": [1, 2, 3],
    "empty": [],
    "numbers": [12345, -7, 1e3, True, None, "é"],
    "none": None,
}


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_entries_and_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, layout: dict[str, Any]
) -> None:
    monkeypatch.setattr(data.json_stream, "_CHUNK", window)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(CONTENT, **layout) + "\n", encoding="utf-8")
    items = list(stream_items(path, ("images", "numbers", "empty")))
    assert [item.value for item in items] == CONTENT["images"] + CONTENT["numbers"]
    assert [item.key for item in items] == ["images"] * 2 + ["numbers"] * 6
    content = path.read_bytes()
    for item in items:
        assert json.loads(content[item.start : item.start + item.length]) == item.value


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [1]}', encoding="utf-8-sig")
    assert [(item.value, item.start) for item in stream_items(path, ("a",))] == [(1, 10)]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "ends too early"),
        (b"[1, 2]", "expected '{', found '['"),
        (b'{"a": [{"b": 1}, {"b"', "near byte 17"),
        (b'{"a": [1, 2', "ends too early"),
        (b'{"a": [1 2]}', "expected ',', found '2'"),
        (b'{"a": [1,]}', "near byte 9"),
        (b'{"a" [1]}', "expected ':'"),
        (b'{"a": ["\xff"]}', "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "near byte 7"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(stream_items(path, ("a",)))
    assert part in str(caught.value)
    assert f"{path}: not a JSON object, damaged or cut off" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.json: cannot be read"):
        list(stream_items(tmp_path / "no.json", ("a",)))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    entry = json.dumps({"text": "x" * 4000})
    path.write_text('{"a": [' + ",".join([entry] * 5_000) + "]}", encoding="utf-8")
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    assert sum(1 for _ in stream_items(path, ("a",))) == 5_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


RECORDS: list[dict[str, Any]] = [
    {"id": 1, "s": [[1.5, 2, -3e-7], [4]], "end": "x"},
    {"s": [], "id": 2},
    {"id": 3, "s": [[]], "t": "a, b: [1] s"},
    {"id": 4, "s": {"counts": [1, 2], "size": [3, 4]}},
    {"id": 5, "s": None, "t": '"s": [1]'},
    {"id": 6, "t": "s", "u": [1, 2]},
    {"id": 7, "t": "} { ]", "s": [1]},
    {"id": 8, "t": "é \\ \n", "s": [[1, 2]]},
    {"id": 9, "s": "[1]"},
    {"id": 10, "u": 1, "s": [[1, 2], [3, 4]]},
    {},
]


@pytest.mark.parametrize("window", [1, 5, 1 << 20])
@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_a_skipped_member_is_there_or_empty_and_all_else_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, layout: dict[str, Any]
) -> None:
    monkeypatch.setattr(data.json_stream, "_CHUNK", window)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"a": RECORDS}, **layout), encoding="utf-8")
    items = list(stream_items(path, ("a",), skip="s"))
    content = path.read_bytes()
    assert len(items) == len(RECORDS)
    for item, record in zip(items, RECORDS, strict=True):
        assert json.loads(content[item.start : item.start + item.length]) == record
        assert {**item.value, "s": 0} == {**record, "s": 0}
        assert bool(item.value.get("s")) == bool(record.get("s")) or record.get("s") == [[]]


def test_what_is_damaged_beside_a_skipped_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [{"s": [1, 2] "b": 1}, {"s": [1], "b": }]}')
    with pytest.raises(UserError, match="near byte"):
        list(stream_items(path, ("a",), skip="s"))
