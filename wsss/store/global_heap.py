"""Global heaps of HDF5 files, in which texts of variable length lie, looked at before HDF5 does.

A collection whose free space claims to be of size zero keeps HDF5 (2.0) going round for ever, inside a call that
nothing interrupts. This program writes texts of fixed length, for which there are no heaps; older versions of it, and
everybody else, write others.
"""

import mmap
import struct
from pathlib import Path

_COLLECTION = b"GCOL\x01\0\0\0"
"""Signature, version and reserved bytes; the collection's size and its objects follow."""
_HEADER = 16
"""Bytes of the collection's header, and of each object's: index, references, reserved, size."""


def never_ends(path: Path) -> bool:
    """Whether reading a file's global heaps could go on for ever. Lengths must be of 8 bytes, as is usual.

    Format: HDF5 File Format Specification, III.E, "Disk Format: Level 1E - Global Heap".
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_COLLECTION)
        while start >= 0:
            if _goes_round(content, start):
                return True
            start = content.find(_COLLECTION, start + 1)
    return False


def _goes_round(content: mmap.mmap, start: int) -> bool:
    """Whether an object of the collection is followed by itself."""
    (size,) = struct.unpack_from("<Q", content, start + 8) if start + _HEADER <= len(content) else (0,)
    end, place = min(start + size, len(content)), start + _HEADER
    while place + _HEADER <= end:
        index, length = struct.unpack_from("<H6xQ", content, place)
        step = _HEADER + (length + 7) // 8 * 8 if index else length  # free space counts its own header
        if step % 2**64 == 0:
            return True
        place += step
    return False
