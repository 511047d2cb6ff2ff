"""Freed memory stays with the process: the next array of its size gets no new pages."""

import ctypes
import subprocess
import sys
from collections.abc import Iterator

import pytest

from wsss.memory import IMAGES, keep_freed_memory, reusing_memory

GLIBC = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc"
)
_FAULTS = """
import resource
import numpy as np
from wsss.memory import keep_freed_memory, reusing_memory
{setting}
for repetition in {loop}:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(size) for size in {sizes}]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_RESIDENT = """
import os
import numpy as np
from wsss.memory import IMAGES, reusing_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before, after, small = [], [], []
for image in reusing_memory(range(2 * IMAGES)):
    before.append(resident())
    array = np.ones(5_000_000)
    small.append(bytes(50_000))  # lies behind it, so that the end of the heap cannot go back
    del array
    after.append(resident())
before.append(resident())
print(*(round(each / after[0], 3) for each in before))
"""


def _run(code: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def _pages(
    sizes: tuple[int, ...] = (1_000_000, 2_000_000, 3_000_000), setting: str = "", loop: str = "range(4)"
) -> float:
    """Pages that the last of several equal rounds of arrays had to get."""
    (pages,) = _run(_FAULTS.format(setting=setting, loop=loop, sizes=sizes))
    return pages


@GLIBC
def test_large_arrays_get_no_new_pages() -> None:
    kept = _pages(setting="assert keep_freed_memory()")
    assert kept < 50
    assert _pages() > 5 * max(kept, 10)


@GLIBC
def test_the_largest_are_kept_in_loops_alone() -> None:
    largest = (10_000_000, 20_000_000)
    kept = _pages(largest, "keep_freed_memory()", "reusing_memory(range(4))")
    assert kept < 50
    for setting in ("pass", "list(reusing_memory(range(4)))"):  # before such a loop and after it
        assert _pages(largest, f"{setting}; keep_freed_memory()") > 5 * max(kept, 10)


@GLIBC
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /proc")
def test_loops_give_memory_back_now_and_then() -> None:
    # Memory at the beginning of each round and after the last, over that at the end of the first.
    before = _run(_RESIDENT)
    assert len(before) == 2 * IMAGES + 1
    for index, share in enumerate(before):
        assert (share < 0.7) == (index % IMAGES == 0), (index, before)


def test_loops_go_over_everything_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(reusing_memory(range(3 * IMAGES + 1))) == list(range(3 * IMAGES + 1))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert list(reusing_memory("abc")) == list("abc")


def test_an_error_in_a_loop_is_the_loops_own() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        list(reusing_memory(broken()))


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
