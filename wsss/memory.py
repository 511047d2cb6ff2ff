"""Memory that is freed stays with the process: the next array of its size needs no new pages.

By default glibc gives every large array back to the system when it is freed, and gets empty pages for the next one:
the kernel clears each of them, which for activations of a network on a CPU costs up to a fifth of the time. What a
stage holds at once does not change, and that is the memory that the process has.
"""

import ctypes

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""M_MMAP_MAX and M_TRIM_THRESHOLD of <malloc.h>."""
KEPT = 1 << 30
"""Bytes at the end of the heap that are not given back."""


def keep_freed_memory() -> bool:
    """Tell the C library's allocator, for this process; returns whether there is one that listens (glibc's)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, KEPT))
