"""How files are spoilt: bytes of every kind, and texts by what readers stumble over."""

import struct
import zlib
from collections.abc import Callable

import numpy as np

Random = np.random.Generator

NASTY = (
    b"../../x", b"/etc/passwd", b"\x00", b"a" * 300, b"<script>alert(1)</script>", b'"', b"'", b"\xff\xfe",
    b"\xef\xbb\xbf", b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999999999", b"null", b"true", b"[]", b"{}",
    b"[" * 3000, b'{"a":' * 2000, b"9" * 5000, b"\r", b"\n", b"\t", b";;", b",", b"&x;", b"<!DOCTYPE a>", b"]]>",
    b"\x1b[2J", "\u202e".encode(), "\u00e9".encode(), "e\u0301".encode(), "\ud7ff".encode(), b"{{7*7}}", b"__proto__",
    b"-9223372036854775809", b"0x10", b"1_000", b"\\u0000", b"\\ud800", b"C:\\x", b"CON", b".", b"..", b"~", b"~x",
    b"%s%s%n", b"$(touch x)",
)  # fmt: skip
"""Texts that parsers, paths, pages and terminals stumble over."""
LARGEST = 4_000_000
"""Bytes of a spoilt file."""
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(data: bytes, random: Random, *, text: bool) -> bytes:
    """Spoil a file in one place, sometimes up to four."""
    kinds = (*_BYTES, *_TEXT, *_TEXT) if text else _BYTES
    for _ in range(min(int(random.geometric(0.6)), 4)):
        data = kinds[int(random.integers(len(kinds)))](data, random)[:LARGEST]
    return data


def png_mended(data: bytes) -> bytes:
    """Give every chunk of a PNG its right checksum, so that what was mutated is read at all."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        parts.append(data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        at += 12 + length
    return b"".join(parts) + data[at:]


def _place(data: bytes, random: Random) -> int:
    return int(random.integers(len(data) + 1))


def _run(random: Random) -> int:
    return int(2 ** random.uniform(0, 8))


def _flip(data: bytes, random: Random) -> bytes:
    spoilt = bytearray(data)
    if not data:
        return data
    for _ in range(min(len(data), _run(random) // 16 + 1)):
        spoilt[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    return bytes(spoilt)


def _overwrite(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    noise = random.bytes(_run(random))
    return data[:at] + noise + data[at + len(noise) :]


def _number(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    value = _NUMBERS[int(random.integers(len(_NUMBERS)))]
    form = ("<I", ">I", "<H", ">H", "<Q")[int(random.integers(5))]
    packed = struct.pack(form, value & 0xFFFF if form[1] == "H" else value)
    return data[:at] + packed + data[at + len(packed) :]


def _insert(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + random.bytes(_run(random)) + data[at:]


def _delete(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + _run(random) :]


def _repeat(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at : at + _run(random)] * int(random.integers(2, 40)) + data[at:]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _nasty(data: bytes, random: Random) -> bytes:
    """Put a nasty text in the place of a word."""
    words = [word for word in _words(data) if word]
    if not words:
        return _insert_nasty(data, random)
    word = words[int(random.integers(len(words)))]
    return data.replace(word, _pick(random), 1 if random.random() < 0.7 else 20)


def _insert_nasty(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + _pick(random) + data[at:]


def _swap_lines(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    first, second = (int(random.integers(len(lines))) for _ in range(2))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _drop_line(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    del lines[int(random.integers(len(lines)))]
    return b"\n".join(lines)


def _pick(random: Random) -> bytes:
    return NASTY[int(random.integers(len(NASTY)))]


def _words(data: bytes) -> list[bytes]:
    table = bytes(code if chr(code).isalnum() or code > 127 else 32 for code in range(256))
    return data.translate(table).split()


Mutation = Callable[[bytes, Random], bytes]
_BYTES: tuple[Mutation, ...] = (
    _flip,
    _overwrite,
    _number,
    _insert,
    _delete,
    _repeat,
    _cut,
)
_TEXT: tuple[Mutation, ...] = (_nasty, _insert_nasty, _swap_lines, _drop_line)
