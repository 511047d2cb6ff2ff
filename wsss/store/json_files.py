"""JSON from files: whatever is wrong with one is a ValueError, and what we keep for ourselves has a checksum.

Both kinds of checksum are of bytes as they stand in the file, so that they are verified without parsing it.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.store.files import file_sha256

_SEALED = re.compile(rb'\{"sha256": "(?P<digest>[0-9a-f]{64})", "content": (?P<content>.*)\}\s*', re.DOTALL)
_BEFORE = len('{"sha256": "", "content": ') + 64
_ENDING = re.compile(rb', "sha256": "(?P<digest>[0-9a-f]{64})"\}$')
_ENDING_LENGTH = len(', "sha256": ""}') + 64


def parse_json(content: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: not JSON, not UTF-8, nested too deeply, or with numbers of thousands of digits.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sealed_json(value: Any) -> str:
    """A JSON text that holds a value and the checksum of its text; no NaN.

    Read by `parse_sealed`, and by whoever wants the value at the key ``content``.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return f'{{"sha256": "{hashlib.sha256(text.encode()).hexdigest()}", "content": {text}}}'


def parse_sealed(content: bytes) -> Any:
    """The value that `sealed_json` was given.

    Raises:
        ValueError: not such a text, or not the one that was written.
    """
    found = _SEALED.fullmatch(content)
    if found is None:
        raise ValueError("it lacks its checksum")
    if hashlib.sha256(found["content"]).hexdigest() != found["digest"].decode():
        raise ValueError("its checksum does not hold")
    return parse_json(found["content"])


def holds_sealed(path: Path) -> bool:
    """Whether a file is what `sealed_json` gave, told without parsing it; False where there is none."""
    try:
        with path.open("rb") as file:
            start = file.read(_BEFORE)
            length = file.seek(0, os.SEEK_END) - len(start) - 1
            file.seek(-1, os.SEEK_END)
            found = _SEALED.fullmatch(start + file.read())
    except OSError:
        return False
    return found is not None and file_sha256(path, length, start=_BEFORE) == found["digest"].decode()


def signed_json(values: Mapping[str, Any]) -> str:
    """A JSON object whose last entry, ``sha256``, is the checksum of the text before that entry; no NaN."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False).removesuffix("}")
    return f'{text}, "sha256": "{hashlib.sha256(text.encode()).hexdigest()}"}}'


def signed_tail(path: Path, length: int) -> bytes | None:
    """Up to ``length`` bytes before the checksum of a file of `signed_json`; None if it does not hold.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _ENDING_LENGTH - length))
        tail = file.read()
    found = _ENDING.search(tail)
    if found is None or file_sha256(path, size - _ENDING_LENGTH) != found["digest"].decode():
        return None
    return tail[: found.start()]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
