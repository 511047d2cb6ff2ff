"""Memory that is freed stays with the process: the next array of its size needs no new pages.

By default glibc gives large arrays back to the system when they are freed, and gets empty pages for the next ones:
the kernel clears each of them, which for activations of a network on a CPU costs a fifth of the time. Kept memory has
holes that arrays of other sizes do not fit into, so a loop over images of many sizes gives all of it back now and then:
without that, memory grew by half over 400 photographs.
"""

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>."""
KEPT = 1 << 30
"""Bytes at the end of the heap that are not given back."""
IMAGES = 8
"""After so many images what is kept is given back; that costs a hundredth of their time."""


def keep_freed_memory() -> bool:
    """Tell the C library's allocator, for this process; returns whether there is one that listens (glibc's)."""
    mallopt = _function("mallopt")
    return bool(mallopt and mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, KEPT))


def giving_back(images: Iterable[_Item]) -> Iterator[_Item]:
    """What a loop goes over whose arrays differ in size; every few rounds freed memory goes back to the system."""
    trim = _function("malloc_trim")
    for count, image in enumerate(images, start=1):
        yield image
        if trim and count % IMAGES == 0:
            trim(ctypes.c_size_t(0))


def _function(name: str) -> Any:
    """A function of the C library; None where it has none of this name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):
        return None
