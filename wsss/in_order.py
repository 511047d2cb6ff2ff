"""Work on several items at once, results in the items' order: reading and counting overlap with the accelerator."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, threads: int) -> Iterator[Result]:
    """Yield ``work(item)`` of every item, in order.

    Args:
        work: called in threads, or right here with one thread.
        items: taken only as results are: at most twice as many as threads are under way or waiting to be taken.
        threads: at least 1.

    Raises:
        Exception: what ``work`` raised, at its item's turn; items not yet begun are dropped.
    """
    if threads == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
