"""Memory that is freed stays with the process: the next array of its size needs no new pages.

By default glibc soon gives large arrays back to the system when they are freed, and gets empty pages for the next ones:
the kernel clears each of them, which for activations of a network on a CPU costs about a fifth of the time. Kept memory
has holes that arrays of other sizes do not fit into, so the very largest are kept only where a loop gives all of it
back now and then: without that, memory grew by half over 400 photographs.
"""

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _MMAP_MAX = -3, -1, -4
"""M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>."""
LARGEST_KEPT = 1 << 25
"""Bytes of an array from which on it goes back when it is freed: the most that glibc takes."""
KEPT = 1 << 30
"""Bytes at the end of the heap that are not given back."""
IMAGES = 8
"""After so many images everything goes back; getting it again costs a hundredth of their time."""
_USUAL_MMAP_MAX = 65536
"""Arrays that glibc lets go back by themselves."""


def keep_freed_memory() -> bool:
    """Tell the C library's allocator, for this process; returns whether there is one that listens (glibc's)."""
    mallopt = _function("mallopt")
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, KEPT))


def reusing_memory(images: Iterable[_Item]) -> Iterator[_Item]:
    """What a loop goes over whose arrays differ in size: in it the largest are kept too, for a few images each time."""
    mallopt, trim = _function("mallopt"), _function("malloc_trim")
    if not mallopt or not trim:
        yield from images
        return
    mallopt(_MMAP_MAX, 0)
    try:
        for count, image in enumerate(images, start=1):
            yield image
            if count % IMAGES == 0:
                trim(ctypes.c_size_t(0))
    finally:
        mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        trim(ctypes.c_size_t(0))


def _function(name: str) -> Any:
    """A function of the C library; None where it has none of this name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):
        return None
