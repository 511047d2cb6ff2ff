"""Folders of photographs as people have them, and what is said of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from data.own import Found, inspect_folder
from tests.trees import write_jpeg
from wsss.errors import UserError

PIXELS = np.zeros((8, 9, 3), np.uint8)


def plant(root: Path, *images: str) -> Path:
    """Write black photographs; return the folder."""
    for name in images:
        write_jpeg(root / name, PIXELS)
    return root


def tags(found: Found) -> Mapping[str, tuple[str, ...]]:
    """Tags by photograph."""
    return {row.image: row.tags for row in found.rows}


def splits(found: Found) -> Mapping[str, str]:
    """Splits by photograph."""
    return {row.image: row.split for row in found.rows}


def refused(root: Path, *parts: str) -> None:
    """Assert that the folder is refused with a message of at most three lines that holds all ``parts``."""
    with pytest.raises(UserError) as caught:
        inspect_folder(root)
    message = str(caught.value)
    assert message.count("\n") < 3
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"
