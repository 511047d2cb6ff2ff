"""Freed memory stays with the process: the next array of its size gets no new pages."""

import ctypes
import subprocess
import sys

import pytest

from wsss.memory import keep_freed_memory

_FAULTS = """
import resource
import numpy as np
from wsss.memory import keep_freed_memory
{setting}
for repetition in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(size) for size in (1_000_000, 2_000_000, 3_000_000)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _pages(setting: str) -> int:
    """Pages that the last of several equal rounds of large arrays had to get."""
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS.format(setting=setting)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_large_arrays_get_no_new_pages() -> None:
    kept = _pages("assert keep_freed_memory()")
    assert kept < 50
    assert _pages("") > 5 * max(kept, 10)


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
