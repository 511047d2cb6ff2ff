"""Memory that is freed stays with the process: the next array of its size needs no new pages.

By default glibc soon gives large arrays back to the system when they are freed, and gets empty pages for the next ones:
the kernel clears each of them, which for activations of a network on a CPU costs about a seventh of the time. The very
largest arrays still go back each by itself: kept among the others they would leave holes that nothing fits into, and
memory would grow with the number of images (by half over 400 photographs of 500 x 375, when it was tried).
"""

import ctypes

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of <malloc.h>."""
LARGEST_KEPT = 1 << 25
"""Bytes of an array from which on it goes back when it is freed: the most that glibc takes."""
KEPT = 1 << 30
"""Bytes at the end of the heap that are not given back."""


def keep_freed_memory() -> bool:
    """Tell the C library's allocator, for this process; returns whether there is one that listens (glibc's)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, KEPT))
