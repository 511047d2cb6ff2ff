"""Work in threads: the order of the items, a bounded number under way, errors at their turn."""

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss.runtime.pool import in_order


@given(items=st.lists(st.integers()), threads=st.integers(1, 4))
def test_as_map(items: list[int], threads: int) -> None:
    assert list(in_order(lambda value: value * 2, items, threads=threads)) == [value * 2 for value in items]


def test_order_holds_when_the_first_is_the_slowest() -> None:
    def work(value: int) -> int:
        time.sleep(0.05 if value == 0 else 0)
        return value

    assert list(in_order(work, range(8), threads=4)) == list(range(8))


def test_threads_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)
    assert len(list(in_order(lambda _: both.wait(), range(2), threads=2))) == 2


def test_items_are_taken_as_results_are() -> None:
    taken = []

    def items() -> Iterator[int]:
        for value in range(100):
            taken.append(value)
            yield value

    results = in_order(lambda value: value, items(), threads=3)
    for _ in range(5):
        next(results)
    assert len(taken) <= 5 + 6
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 5 + 6


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_at_its_turn(threads: int) -> None:
    def work(value: int) -> int:
        if value == 4:
            raise ValueError("four")
        return value

    results = in_order(work, range(50), threads=threads)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="four"):
        next(results)
