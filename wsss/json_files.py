"""JSON from files: whatever is wrong with one is a ValueError, and what we keep for ourselves has a checksum."""

import hashlib
import json
import re
from typing import Any

_SEALED = re.compile(rb'\{"sha256": "(?P<digest>[0-9a-f]{64})", "content": (?P<content>.*)\}\s*', re.DOTALL)


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
