"""Folders of images as people have them, and what is said of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from data.own import Found, inspect_folder
from tests.trees import write_jpeg
from wsss.errors import UserError

PIXELS = np.zeros((8, 9, 3), np.uint8)


def plant(root: Path, *images: str) -> Path:
    """Write black images; return the folder."""
    for name in images:
        write_jpeg(root / name, PIXELS)
    return root


def tags(found: Found) -> Mapping[str, tuple[str, ...]]:
    """Tags by image."""
    return {entry.image: entry.tags for entry in found.entries}


def splits(found: Found) -> Mapping[str, str]:
    """Splits by image."""
    return {entry.image: entry.split for entry in found.entries}


def refused(root: Path, *parts: str) -> None:
    """Assert that the folder is refused with a message that holds all ``parts``."""
    with pytest.raises(UserError) as caught:
        inspect_folder(root)
    message = str(caught.value)
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"
