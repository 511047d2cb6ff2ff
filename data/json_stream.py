"""Reading JSON files that are larger than memory should be: one entry at a time, with its place in the file."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from wsss.errors import UserError

_CHUNK = 1 << 20
_LARGEST = 1 << 26  # an entry of more than 64 MiB is taken for a damaged file
_SPACE = " \t\r\n"
_BYTE_ORDER_MARK = "\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of one of the file's arrays.

    Attributes:
        key: name of the array.
        value: the entry.
        start: where it begins, in bytes from the start of the file.
        length: its bytes.
    """

    key: str
    value: Any
    start: int
    length: int


def stream_items(path: Path, keys: Collection[str], *, skip: str = "") -> Iterator[Item]:
    """Yield the entries of the arrays named ``keys`` in a file that is one JSON object, in the file's order.

    Memory holds one chunk of the file and one entry, however large the file. Most of such files, and of the time
    to read them, is numbers: an array of numbers (or of such arrays) that is the member ``skip`` of an entry may
    be passed over unread, and its value is then ``[0]``, or ``[]`` if it is empty.

    Raises:
        UserError: the file cannot be read, is no JSON object, or is cut off; the byte is named.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(file, path, skip).items(keys)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check the file.") from error


class _Reader:
    """A window on the file, moving forward.

    Bytes are taken for Latin-1: JSON's own characters are ASCII, so the structure is the same as in UTF-8, and
    a position in the text is a position in the file. Entries beyond ASCII are then decoded as what they are.
    """

    def __init__(self, file: BinaryIO, path: Path, skip: str) -> None:
        self.file = file
        self.path = path
        self.text = ""
        self.offset = 0  # of the window in the file
        self.at = 0  # in the window
        self.scan = json.JSONDecoder().raw_decode
        self.skipped = f'"{skip}"' if skip else ""

    def items(self, keys: Collection[str]) -> Iterator[Item]:
        self._more()
        self.at = len(_BYTE_ORDER_MARK) if self.text.startswith(_BYTE_ORDER_MARK) else 0
        self._expect("{")
        for _ in self._entries("}"):
            key = self._value()[0]
            self._expect(":")
            if self._next() != "[":
                self._value()
                continue
            self.at += 1
            for _ in self._entries("]"):
                value, start, length = self._value()
                if key in keys:
                    yield Item(key, value, start, length)

    def _entries(self, end: str) -> Iterator[None]:
        """Stand at one entry after another, having stepped over the commas; at last, over the end."""
        first = True
        while self._next() != end:
            if not first:
                self._expect(",")
            first = False
            yield
        self.at += 1

    def _next(self) -> str:
        """Return the next character that is no space, without stepping over it."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                raise self._refused("the file ends too early")

    def _expect(self, character: str) -> None:
        found = self._next()
        if found != character:
            raise self._refused(f"expected {character!r}, found {found!r}")
        self.at += 1

    def _value(self) -> tuple[Any, int, int]:
        """Return the next value with its place in the file, and step over it."""
        if self._next() == "{" and self.skipped and (flat := self._flat()):
            return flat
        while True:
            try:
                value, end = self.scan(self.text, self.at)
            except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
                if len(self.text) - self.at > _LARGEST or not self._more():
                    raise self._refused(getattr(error, "msg", str(error))) from error
                continue
            if len(self.text) - end <= len("e+") and self._more():
                continue  # a number may go on behind the window: 1 as 1.5 or 1e+5
            start, length = self.offset + self.at, end - self.at
            raw = self.text[self.at : end]
            self.at = end
            return value if raw.isascii() else self._decoded(raw), start, length

    def _flat(self) -> tuple[Any, int, int] | None:
        """Return what `_value` does, the skipped member unread; None for what is not simple enough, or not whole.

        Simple is an object of ASCII without objects inside and without escaped characters: the first closing brace
        ends it (one inside a string leaves a text that is no JSON), and between the member's name and the next quote
        is its value.
        """
        end = self.text.find("}", self.at) + 1
        raw = self.text[self.at : end]
        if not raw.isascii() or raw.count("{") != 1 or "\\" in raw:
            return None
        name, _, rest = raw.partition(self.skipped)
        numbers = rest[: rest.find('"')] if '"' in rest else rest[:-1]
        if not numbers.lstrip(_SPACE + ":").startswith("[") or ":" not in numbers:
            return None
        filled = "[0]" if any(digit in numbers for digit in "0123456789") else "[]"
        after = "," if numbers.rstrip(_SPACE).endswith(",") else ""
        try:
            value, _ = self.scan(f"{name}{self.skipped}: {filled}{after}{rest[len(numbers) :]}")
        except (ValueError, RecursionError):
            return None  # said where the whole entry is read
        start, self.at = self.offset + self.at, end
        return value, start, len(raw)

    def _decoded(self, raw: str) -> Any:
        try:
            return json.loads(raw.encode("latin-1").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self._refused("not UTF-8") from error

    def _more(self) -> bool:
        """Widen the window and drop what lies behind; False, and nothing done, at the end of the file."""
        data = self.file.read(max(_CHUNK, len(self.text) - self.at))
        if not data:
            return False
        self.offset += self.at
        self.text = self.text[self.at :] + data.decode("latin-1")
        self.at = 0
        return True

    def _refused(self, reason: str) -> UserError:
        return UserError(
            f"{self.path}: not a JSON object, damaged or cut off near byte {self.offset + self.at:,} ({reason}): "
            "copy or export it again."
        )
